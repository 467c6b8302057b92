//! Why a row was not accepted: said to whoever sent it, and kept with its dead letter.

/// One bad row of an input. `line` and `column` are 1-based places in the text as sent; `row` is its 0-based ordinal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowProblem {
    pub row: u64,
    pub line: u64,
    pub column: u64,
    pub field: Option<String>,
    /// Lower case, names the value and says what is wanted.
    pub reason: String,
    /// The original bytes of the row.
    pub original: Vec<u8>,
}
