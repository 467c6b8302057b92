//! One value of a captured row, exactly as the database has it.

use bytes::Bytes;

/// A value. What it means beside its variant (scale, unit, charset) is told by its column's [`crate::table::Kind`]; a value never is of
/// another variant than its kind names, but for the three at the top.
///
/// Bytes are slices of the message that brought them, so that a value costs no allocation.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    Null,
    /// The database did not send it because it has not changed (TOAST, a minimal row image). Neither null nor a value: no consumer may turn
    /// it into null.
    Unavailable,
    /// A value that its kind cannot hold, as the database writes it in text: a numeric `NaN` or `Infinity`, a date before 4713 BC, the zero
    /// date `0000-00-00`, a timestamp `infinity`.
    Odd(Bytes),
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float32(f32),
    Float64(f64),
    /// Plain decimal notation, as many digits as the database has: `-12.50`. ASCII.
    Decimal(Bytes),
    /// UTF-8, checked.
    Text(Bytes),
    Binary(Bytes),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight, or of an interval of the day beyond it (MySQL `TIME` reaches from -838 to 838 hours).
    Time(i64),
    /// Microseconds since 1970-01-01T00:00:00 of a wall clock without a zone.
    Timestamp(i64),
    /// Microseconds since 1970-01-01T00:00:00Z.
    TimestampTz(i64),
    Uuid([u8; 16]),
    /// A JSON text, as the database writes it. UTF-8, checked.
    Json(Bytes),
    Array(Vec<Datum>),
}

impl Datum {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// What the value takes in memory beside the enum itself, about.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Odd(b) | Self::Decimal(b) | Self::Text(b) | Self::Binary(b) | Self::Json(b) => b.len(),
            Self::Array(items) => items.iter().map(|i| size_of::<Self>() + i.heap_bytes()).sum(),
            _ => 0,
        }
    }
}
