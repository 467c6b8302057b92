//! Row events: `WRITE_ROWS`, `UPDATE_ROWS`, `DELETE_ROWS` in version 1 and 2, `PARTIAL_UPDATE_ROWS`, and MariaDB's compressed forms.
//!
//! Table number 6 (4 if the post-header is 6 long), flags 2, in version 2 extra data with its length 2 (itself included) before; number of
//! columns; a bit for each column, lowest first, that is in the image, of an update for both images; then the images. An image: a bit for each
//! column *in it* that is null, then the others' values ("Rows_event", rows_event.h).

use super::cursor::Cursor;
use super::error::{BinlogError, Result};
use super::header::EventKind;
use super::json_diff;
use super::shape::Shape;
use super::table_map::TableMap;
use super::value::Codec;
use crate::change::Row;
use crate::datum::Datum;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// `STMT_END_F`
const ENDS_STATEMENT: u16 = 1;
/// A table number that no table has: the event is there for its flags alone (`Rows_log_event::do_apply_event`).
const NO_TABLE: u64 = 0xff_ffff;
/// What is made of one event's values shares buffers of about this many bytes.
const ARENA_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsOp {
    Insert,
    Update,
    Delete,
}

#[derive(Debug, Clone)]
pub struct Rows {
    pub op: RowsOp,
    pub table_id: u64,
    /// None of an event without rows, which only ends a statement.
    pub table: Option<Arc<TableMap>>,
    /// The last event of its statement: table numbers are given anew behind it.
    pub ends_statement: bool,
    is_partial: bool,
    /// Bits of the columns in the images before and after, as far as there are such.
    before: Option<Bytes>,
    after: Option<Bytes>,
    images: Bytes,
    value_bytes_max: usize,
}

/// What a row event's type says of its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowsForm {
    op: RowsOp,
    has_extra: bool,
    is_partial: bool,
    pub is_compressed: bool,
}

impl RowsForm {
    pub fn of(kind: EventKind) -> Option<Self> {
        let (op, has_extra, is_compressed) = match kind {
            EventKind::WRITE_ROWS_V1 => (RowsOp::Insert, false, false),
            EventKind::UPDATE_ROWS_V1 => (RowsOp::Update, false, false),
            EventKind::DELETE_ROWS_V1 => (RowsOp::Delete, false, false),
            EventKind::WRITE_ROWS => (RowsOp::Insert, true, false),
            EventKind::UPDATE_ROWS | EventKind::PARTIAL_UPDATE_ROWS => (RowsOp::Update, true, false),
            EventKind::DELETE_ROWS => (RowsOp::Delete, true, false),
            EventKind::WRITE_ROWS_COMPRESSED_V1 => (RowsOp::Insert, false, true),
            EventKind::UPDATE_ROWS_COMPRESSED_V1 => (RowsOp::Update, false, true),
            EventKind::DELETE_ROWS_COMPRESSED_V1 => (RowsOp::Delete, false, true),
            EventKind::WRITE_ROWS_COMPRESSED => (RowsOp::Insert, true, true),
            EventKind::UPDATE_ROWS_COMPRESSED => (RowsOp::Update, true, true),
            EventKind::DELETE_ROWS_COMPRESSED => (RowsOp::Delete, true, true),
            _ => return None,
        };
        Some(Self { op, has_extra, is_partial: kind == EventKind::PARTIAL_UPDATE_ROWS, is_compressed })
    }
}

impl Rows {
    pub(super) fn parse(
        form: RowsForm,
        body: Bytes,
        id_bytes: usize,
        value_bytes_max: usize,
        table: impl FnOnce(u64) -> Option<Arc<TableMap>>,
        unpack: impl FnOnce(Bytes) -> Result<Bytes>,
    ) -> Result<Self> {
        let mut cursor = Cursor::new("row event", body);
        let table_id = cursor.uint(id_bytes)?;
        let flags = cursor.u16()?;
        if form.has_extra {
            let n = usize::from(cursor.u16()?);
            cursor.skip(n.checked_sub(2).ok_or(BinlogError::malformed(cursor.what(), "its extra data is shorter than its length"))?)?;
        }
        let ends_statement = flags & ENDS_STATEMENT != 0;
        let mut rows = Self {
            op: form.op,
            table_id,
            table: None,
            ends_statement,
            is_partial: form.is_partial,
            before: None,
            after: None,
            images: Bytes::new(),
            value_bytes_max,
        };
        if table_id == NO_TABLE && ends_statement {
            return Ok(rows);
        }
        let table = table(table_id).ok_or(BinlogError::UnknownTable { table_id })?;
        let n_columns = usize::try_from(cursor.lenenc()?).unwrap_or(usize::MAX);
        if n_columns != table.columns.len() && table.unknown_type.is_none() {
            return Err(BinlogError::malformed(cursor.what(), "it has another number of columns than its table map"));
        }
        let mut bits = || cursor.take(n_columns.div_ceil(8)).map(Some);
        match form.op {
            RowsOp::Insert => rows.after = bits()?,
            RowsOp::Delete => rows.before = bits()?,
            RowsOp::Update => (rows.before, rows.after) = (bits()?, bits()?),
        }
        rows.table = Some(table);
        rows.images = unpack(cursor.rest())?;
        Ok(rows)
    }

    /// The rows, read as the shape says, which has to be made of this event's own table map. Bytes of values are slices of the event.
    pub fn images<'a>(&'a self, shape: &'a Shape) -> Images<'a> {
        Images {
            rows: self,
            shape,
            cursor: Cursor::new("row image", self.images.clone()),
            arena: BytesMut::with_capacity(ARENA_BYTES.min(self.images.len())),
            is_over: self.table.is_none(),
            n_unresolved: 0,
        }
    }

    /// Bytes of all images together, when uncompressed.
    pub fn n_bytes(&self) -> usize {
        self.images.len()
    }
}

/// One row before and after; columns that are not in the image are [`Datum::Unavailable`].
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Of updates and deletes.
    pub before: Option<Row>,
    /// Of inserts and updates.
    pub after: Option<Row>,
}

/// Ends after an error.
pub struct Images<'a> {
    rows: &'a Rows,
    shape: &'a Shape,
    cursor: Cursor,
    arena: BytesMut,
    is_over: bool,
    n_unresolved: u64,
}

impl Iterator for Images<'_> {
    type Item = Result<Image>;

    fn next(&mut self) -> Option<Result<Image>> {
        if self.is_over {
            return None;
        }
        let before = self.cursor.left();
        let image = self.image();
        // An insert of nothing but defaults may have an image of no columns and no bytes: it is one row then.
        self.is_over = image.is_err() || self.cursor.is_empty();
        if image.is_ok() && !self.is_over && self.cursor.left() == before {
            self.is_over = true;
            return Some(Err(BinlogError::malformed("row image", "it has bytes but no columns")));
        }
        Some(image)
    }
}

/// Bits of the partial update: whether any JSON column is partial is the lowest (`binlog_row_value_options`).
const PARTIAL_JSON: u64 = 1;

impl Images<'_> {
    /// JSON columns that were sent as changes of a value which was not sent: with `binlog_row_value_options=PARTIAL_JSON` the before image has
    /// to be full (`binlog_row_image=FULL`). They are unavailable in the image after, although they did change.
    pub fn n_unresolved(&self) -> u64 {
        self.n_unresolved
    }

    fn image(&mut self) -> Result<Image> {
        let rows = self.rows;
        let mut documents = Vec::new();
        let before = match &rows.before {
            Some(present) => Some(self.row(present, if rows.is_partial { Partial::Keep(&mut documents) } else { Partial::None })?),
            None => None,
        };
        let after = match &rows.after {
            Some(present) if rows.is_partial => {
                let bits = self.partial_bits()?;
                Some(self.row(present, Partial::Apply { documents: &documents, bits: &bits })?)
            }
            Some(present) => Some(self.row(present, Partial::None)?),
            None => None,
        };
        Ok(Image { before, after })
    }

    /// Which JSON columns of the table, in or outside of the image, are written as changes.
    fn partial_bits(&mut self) -> Result<Bytes> {
        let n_json = self.shape.codecs.iter().filter(|codec| matches!(codec, Codec::Json { .. })).count();
        match self.cursor.lenenc()? {
            0 => Ok(Bytes::new()),
            PARTIAL_JSON => self.cursor.take(n_json.div_ceil(8)),
            _ => Err(BinlogError::malformed("row image", "it is partial in a way that is not known")),
        }
    }

    fn row(&mut self, present: &Bytes, mut partial: Partial<'_>) -> Result<Row> {
        let n_columns = self.shape.codecs.len();
        if present.len() < n_columns.div_ceil(8) {
            return Err(BinlogError::malformed("row image", "its table has more columns than it was read with"));
        }
        let is_set = |bits: &[u8], i: usize| bits.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1);
        let n_present = (0..n_columns).filter(|i| is_set(present, *i)).count();
        let nulls = self.cursor.take(n_present.div_ceil(8))?;
        let mut row = Vec::with_capacity(n_columns);
        let (mut n_seen, mut n_json) = (0, 0);
        for (i, codec) in self.shape.codecs.iter().enumerate() {
            let json = matches!(codec, Codec::Json { .. }).then(|| {
                n_json += 1;
                n_json - 1
            });
            if !is_set(present, i) {
                row.push(Datum::Unavailable);
                partial.absent(json);
                continue;
            }
            n_seen += 1;
            if is_set(&nulls, n_seen - 1) {
                row.push(Datum::Null);
                partial.absent(json);
                continue;
            }
            row.push(match (&mut partial, codec, json) {
                (Partial::Keep(documents), Codec::Json { prefix }, _) => {
                    let document = document(&self.cursor, *prefix)?;
                    documents.push(Some(document));
                    codec.read(&mut self.cursor, &mut self.arena, self.rows.value_bytes_max)?
                }
                (Partial::Apply { documents, bits }, Codec::Json { prefix }, Some(n)) if is_set(bits, n) => {
                    let changes = document(&self.cursor, *prefix)?;
                    self.cursor.skip(usize::from(*prefix) + changes.len())?;
                    match documents.get(n).cloned().flatten() {
                        Some(before) => Datum::Json(json_diff::apply(before, changes)?),
                        None => {
                            self.n_unresolved += 1;
                            Datum::Unavailable
                        }
                    }
                }
                _ => codec.read(&mut self.cursor, &mut self.arena, self.rows.value_bytes_max)?,
            });
        }
        Ok(row)
    }
}

/// What is done with the JSON columns of an image.
enum Partial<'a> {
    None,
    /// The documents before are kept, for each JSON column of the table.
    Keep(&'a mut Vec<Option<Bytes>>),
    Apply {
        documents: &'a [Option<Bytes>],
        bits: &'a [u8],
    },
}

impl Partial<'_> {
    /// A column that has no document.
    fn absent(&mut self, json: Option<usize>) {
        if let (Self::Keep(documents), Some(_)) = (self, json) {
            documents.push(None);
        }
    }
}

/// The bytes of a JSON value, without reading on.
fn document(cursor: &Cursor, prefix: u8) -> Result<Bytes> {
    let mut ahead = cursor.clone();
    let n = ahead.uint(usize::from(prefix))? as usize;
    ahead.take(n)
}
