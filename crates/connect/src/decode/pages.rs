//! The pages of a Parquet file, walked before any is decoded: each is as large as it may be.
//! The Parquet reader takes memory for what a page's head claims, some gigabytes if it says so, and an allocation that fails ends the
//! process. Format: <https://parquet.apache.org/docs/file-format/>, heads in Thrift's compact protocol,
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.

use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::ChunkReader;
use std::io::Read;

/// The largest page, unpacked. Writers make pages of a megabyte.
pub(crate) const PAGE_BYTES_MAX: u64 = 32 << 20;
/// The largest pages of all columns of a row group together: those are in memory at the same time.
const PAGES_BYTES_MAX: u64 = 256 << 20;
/// Values of one page.
const PAGE_VALUES_MAX: i64 = 4 << 20;
/// The most bytes of a page's head, statistics included.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Values inside values of a page's head.
const DEPTH_MAX: usize = 8;

/// Checks every page; an error says which is not what it may be. Gives how many bytes one row may have at most by values that stand in the
/// file once and are repeated in any number of rows.
pub(crate) fn check(input: &impl ChunkReader, metadata: &ParquetMetaData) -> Result<u64, String> {
    let mut repeated = 0;
    for (group, columns) in metadata.row_groups().iter().map(|g| g.columns()).enumerate() {
        let mut sum = Largest::default();
        for (column, chunk) in columns.iter().enumerate() {
            let (start, n_bytes) = chunk.byte_range();
            let found = check_chunk(input, start, n_bytes).map_err(|e| format!("row group {group}, column {column}: {e}"))?;
            sum = Largest { any: sum.any + found.any, repeated: sum.repeated + found.repeated };
        }
        if sum.any > PAGES_BYTES_MAX {
            return Err(format!("row group {group}: its columns need {} bytes at a time, and may need {PAGES_BYTES_MAX}", sum.any));
        }
        repeated = repeated.max(sum.repeated);
    }
    Ok(repeated)
}

/// Bytes of the largest page, and of the largest whose values may be repeated.
#[derive(Debug, Default, Clone, Copy)]
struct Largest {
    any: u64,
    repeated: u64,
}

fn check_chunk(input: &impl ChunkReader, start: u64, n_bytes: u64) -> Result<Largest, String> {
    let end = start.checked_add(n_bytes).filter(|end| *end <= input.len()).ok_or("it lies behind the file's end")?;
    let (mut at, mut largest) = (start, Largest::default());
    while at < end {
        let n_head = HEAD_BYTES_MAX.min(usize::try_from(end - at).unwrap_or(HEAD_BYTES_MAX));
        let mut head = Vec::with_capacity(HEAD_READ_BYTES);
        let page = read_head(input, at, n_head, &mut head)?;
        if page.unpacked > PAGE_BYTES_MAX || page.packed > PAGE_BYTES_MAX {
            return Err(format!("a page of {} bytes; a page may have {PAGE_BYTES_MAX}", page.unpacked.max(page.packed)));
        }
        if page.n_values > PAGE_VALUES_MAX {
            return Err(format!("a page of {} values; a page may have {PAGE_VALUES_MAX}", page.n_values));
        }
        largest.any = largest.any.max(page.unpacked);
        largest.repeated = largest.repeated.max(if page.repeats { page.unpacked } else { 0 });
        at += page.head_bytes + page.packed;
    }
    Ok(largest)
}

/// Bytes of a head read at first; most are some tens of bytes long.
const HEAD_READ_BYTES: usize = 256;

fn read_head(input: &impl ChunkReader, at: u64, n_max: usize, head: &mut Vec<u8>) -> Result<Page, String> {
    let mut n = HEAD_READ_BYTES.min(n_max);
    loop {
        head.clear();
        let reader = input.get_read(at).map_err(|e| e.to_string())?;
        reader.take(n as u64).read_to_end(head).map_err(|e| e.to_string())?;
        match Head(head).page() {
            Ok((page, rest)) => return Ok(Page { head_bytes: (head.len() - rest) as u64, ..page }),
            // Longer than what was read of it, or damaged.
            Err(Damage::Short) if n < n_max => n = n_max.min(n * 8),
            Err(Damage::Short) => return Err("a page's head has no end".to_owned()),
            Err(Damage::Wrong(what)) => return Err(format!("a page's head {what}")),
        }
    }
}

/// What the head of a page claims.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Page {
    unpacked: u64,
    packed: u64,
    n_values: i64,
    /// A dictionary, or values written as what differs from the one before: a row's value may be as long as the page.
    repeats: bool,
    head_bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Damage {
    Short,
    Wrong(&'static str),
}

/// Thrift's compact protocol, as far as heads of pages need it.
struct Head<'a>(&'a [u8]);

const BOOLS: [u8; 2] = [1, 2];
const BYTE: u8 = 3;
const STRUCT: u8 = 12;
/// The encoding whose values are a part of the one before and some bytes more.
const DELTA_BYTE_ARRAY: i64 = 7;

impl Head<'_> {
    /// The page, and how many bytes are left behind its head.
    fn page(mut self) -> Result<(Page, usize), Damage> {
        let mut page = Page::default();
        let mut field = 0;
        while let Some(kind) = self.field(&mut field)? {
            match (field, kind) {
                (2, 5) => page.unpacked = self.size()?,
                (3, 5) => page.packed = self.size()?,
                // Data of version 1, a dictionary, data of version 2: each begins with its number of values.
                (5, STRUCT) => self.values(&mut page, 2)?,
                (7, STRUCT) => {
                    self.values(&mut page, 2)?;
                    page.repeats = true;
                }
                (8, STRUCT) => self.values(&mut page, 4)?,
                _ => self.skip(kind, 0)?,
            }
        }
        Ok((page, self.0.len()))
    }

    /// The number of values, and how they are encoded, which stands in the field `encoding`.
    fn values(&mut self, page: &mut Page, encoding: i64) -> Result<(), Damage> {
        let mut field = 0;
        while let Some(kind) = self.field(&mut field)? {
            match (field, kind) {
                (1, 5) => page.n_values = self.number()?.max(page.n_values),
                (n, 5) if n == encoding => page.repeats |= self.number()? == DELTA_BYTE_ARRAY,
                _ => self.skip(kind, 1)?,
            }
        }
        Ok(())
    }

    /// The type of the next field; None behind the last.
    fn field(&mut self, field: &mut i64) -> Result<Option<u8>, Damage> {
        let byte = self.byte()?;
        let (step, kind) = (byte >> 4, byte & 0x0f);
        if kind == 0 {
            return Ok(None);
        }
        *field = if step == 0 { self.number()? } else { field.saturating_add(i64::from(step)) };
        Ok(Some(kind))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Result<(), Damage> {
        if depth > DEPTH_MAX {
            return Err(Damage::Wrong("is nested too deep"));
        }
        match kind {
            1 | 2 => {}
            BYTE => self.pass(1)?,
            4..=6 => self.number().map(|_| ())?,
            7 => self.pass(8)?,
            8 => {
                let n = self.unsigned()?;
                self.pass(n)?;
            }
            9 | 10 => self.skip_list(depth)?,
            STRUCT => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            _ => return Err(Damage::Wrong("has a field of an unknown type")),
        }
        Ok(())
    }

    /// Truth values take a byte in a list, and none as a field.
    fn skip_list(&mut self, depth: usize) -> Result<(), Damage> {
        let byte = self.byte()?;
        let n = if byte >> 4 == 15 { self.unsigned()? } else { u64::from(byte >> 4) };
        let kind = byte & 0x0f;
        for _ in 0..n {
            let kind = if BOOLS.contains(&kind) { BYTE } else { kind };
            self.skip(kind, depth + 1)?;
        }
        Ok(())
    }

    fn size(&mut self) -> Result<u64, Damage> {
        u64::try_from(self.number()?).map_err(|_| Damage::Wrong("claims a negative size"))
    }

    fn number(&mut self) -> Result<i64, Damage> {
        let raw = self.unsigned()?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    fn unsigned(&mut self) -> Result<u64, Damage> {
        let mut raw = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            raw |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(raw);
            }
        }
        Err(Damage::Wrong("has a number without end"))
    }

    fn byte(&mut self) -> Result<u8, Damage> {
        let (first, rest) = self.0.split_first().ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    fn pass(&mut self, n: u64) -> Result<(), Damage> {
        let n = usize::try_from(n).map_err(|_| Damage::Short)?;
        self.0 = self.0.get(n..).ok_or(Damage::Short)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 1 = 0 (a data page), 2 = 100, 3 = 50, 5 = {1 = 7, 2 = 0, 3 = 0, 4 = 0}.
    const PLAIN: [u8; 17] = [0x15, 0, 0x15, 200, 1, 0x15, 100, 0x2c, 0x15, 14, 0x15, 0, 0x15, 0, 0x15, 0, 0];

    #[test]
    fn a_head_is_read_to_its_end() {
        let bytes: Vec<u8> = PLAIN.iter().copied().chain([0, 9, 9]).collect();
        assert_eq!(Head(&bytes).page(), Ok((Page { unpacked: 100, packed: 50, n_values: 7, ..Page::default() }, 2)));
        for n in 0..PLAIN.len() + 1 {
            assert_eq!(Head(&bytes[..n]).page(), Err(Damage::Short), "{n}");
        }
        assert_eq!(Head(&[0x15, 0, 0x15, 1, 0]).page(), Err(Damage::Wrong("claims a negative size")));
        assert_eq!(Head(&[0x1d]).page(), Err(Damage::Wrong("has a field of an unknown type")));
        assert_eq!(Head(&[0x1c; 20]).page(), Err(Damage::Wrong("is nested too deep")));
    }
}
