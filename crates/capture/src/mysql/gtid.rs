//! Names of transactions that hold on every server of a replication topology: MySQL's sets of GTIDs and MariaDB's GTID positions.

use super::binlog::cursor::Cursor;
use super::binlog::error::{BinlogError, Result as BinlogResult};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Gaps of a set. A set with more is not one that a server would have by its normal work, and would cost more than 16 MB.
pub const N_RANGES_MAX: usize = 1 << 20;
/// Replication domains of a MariaDB position.
pub const N_DOMAINS_MAX: usize = 1 << 16;
const TAG_BYTES_MAX: usize = 32;
/// One past the highest number that MySQL gives (`GNO_END`, control_events.h).
const NUMBER_END: u64 = i64::MAX as u64;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GtidError {
    #[error("{text:?} is not a GTID: {why}")]
    Malformed { text: String, why: &'static str },
    #[error("the GTID set has more than {N_RANGES_MAX} gaps")]
    TooManyRanges,
    #[error("the GTID position has more than {N_DOMAINS_MAX} domains")]
    TooManyDomains,
}

/// Never more than this much of a foreign text goes into an error.
const SHOWN_CHARS_MAX: usize = 80;

fn malformed(text: &str, why: &'static str) -> GtidError {
    GtidError::Malformed { text: text.chars().take(SHOWN_CHARS_MAX).collect(), why }
}

/// The server that first executed a transaction, by its `server_uuid`, and since MySQL 8.3 a tag that divides its numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    pub uuid: [u8; 16],
    /// Empty: none.
    pub tag: Arc<str>,
}

impl Source {
    pub fn new(uuid: [u8; 16], tag: &str) -> Result<Self, GtidError> {
        let fits = tag.len() <= TAG_BYTES_MAX
            && !tag.starts_with(|c: char| c.is_ascii_digit())
            && tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        match fits {
            true => Ok(Self { uuid, tag: tag.to_ascii_lowercase().into() }),
            false => Err(malformed(tag, "a tag is a letter or underscore, then letters, digits or underscores, 32 at most")),
        }
    }
}

/// One transaction: `3e11fa47-71ca-11e1-9e33-c80aa9429562:23`, or with a tag `3e11fa47-71ca-11e1-9e33-c80aa9429562:blue:23`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gtid {
    pub source: Source,
    pub number: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(f, &self.source.uuid)?;
        if !self.source.tag.is_empty() {
            write!(f, ":{}", self.source.tag)?;
        }
        write!(f, ":{}", self.number)
    }
}

impl FromStr for Gtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let set: GtidSet = text.parse()?;
        let mut sources = set.sources.into_iter();
        match (sources.next(), sources.next()) {
            (Some((source, ranges)), None) if ranges.len() == 1 && ranges[0].end == ranges[0].start + 1 => {
                Ok(Self { source, number: ranges[0].start })
            }
            _ => Err(malformed(text, "it names more or fewer than one transaction")),
        }
    }
}

/// Numbers from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
}

/// A set of MySQL transactions, such as `gtid_executed`.
///
/// The ranges of a source are in order and neither overlap nor touch, and none is empty; nor is the list of any source. So equal sets are equal
/// values, and print alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GtidSet {
    sources: BTreeMap<Source, Vec<Range>>,
    /// Of all sources together: counting them at each transaction would take as long as there are sources.
    n_ranges: usize,
}

impl GtidSet {
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// How many transactions are in it.
    pub fn n_transactions(&self) -> u64 {
        self.sources.values().flatten().map(|r| r.end - r.start).fold(0, u64::saturating_add)
    }

    pub fn contains_gtid(&self, gtid: &Gtid) -> bool {
        self.covers(&gtid.source, Range { start: gtid.number, end: gtid.number.saturating_add(1) })
    }

    pub fn contains(&self, other: &Self) -> bool {
        other.sources.iter().all(|(source, ranges)| ranges.iter().all(|r| self.covers(source, *r)))
    }

    fn covers(&self, source: &Source, range: Range) -> bool {
        let ranges = self.sources.get(source).map_or(&[][..], Vec::as_slice);
        let behind = ranges.partition_point(|r| r.start <= range.start);
        behind > 0 && range.end <= ranges[behind - 1].end
    }

    /// Says whether it is new. Costs nothing when transactions come in order.
    pub fn add(&mut self, gtid: &Gtid) -> Result<bool, GtidError> {
        if self.contains_gtid(gtid) {
            return Ok(false);
        }
        self.insert(&gtid.source, Range { start: gtid.number, end: gtid.number.saturating_add(1) })?;
        Ok(true)
    }

    pub fn union(&mut self, other: &Self) -> Result<(), GtidError> {
        for (source, ranges) in &other.sources {
            for range in ranges {
                self.insert(source, *range)?;
            }
        }
        Ok(())
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (source, ranges) in &self.sources {
            let taken = other.sources.get(source).map_or(&[][..], Vec::as_slice);
            let ranges = subtract(ranges, taken);
            if !ranges.is_empty() {
                left.n_ranges += ranges.len();
                left.sources.insert(source.clone(), ranges);
            }
        }
        left
    }

    fn insert(&mut self, source: &Source, range: Range) -> Result<(), GtidError> {
        if range.start >= range.end {
            return Ok(());
        }
        let is_full = self.n_ranges >= N_RANGES_MAX;
        let Some(ranges) = self.sources.get_mut(source) else {
            if is_full {
                return Err(GtidError::TooManyRanges);
            }
            self.sources.insert(source.clone(), vec![range]);
            self.n_ranges += 1;
            return Ok(());
        };
        let first = ranges.partition_point(|r| r.end < range.start);
        let behind = ranges.partition_point(|r| r.start <= range.end);
        if first < behind {
            let joined = Range { start: range.start.min(ranges[first].start), end: range.end.max(ranges[behind - 1].end) };
            ranges.splice(first..behind, [joined]);
            self.n_ranges -= behind - first - 1;
        } else if is_full {
            return Err(GtidError::TooManyRanges);
        } else {
            ranges.insert(first, range);
            self.n_ranges += 1;
        }
        Ok(())
    }

    /// As `COM_BINLOG_DUMP_GTID` and `PREVIOUS_GTIDS_LOG_EVENT` have it: number of sources 8, then for each uuid 16, [tag,] number of ranges 8,
    /// and for each start 8 and end 8. With tags the first number is shifted by a byte and has a 1 in its lowest and highest
    /// (`encode_nsids_format`, rpl_gtid_set.cc); a tag's length is then a variable-length integer, one byte for all lengths that occur.
    pub fn encode(&self) -> Vec<u8> {
        let is_tagged = self.sources.keys().any(|s| !s.tag.is_empty());
        let n = self.sources.len() as u64;
        let mut out = if is_tagged { 1 << 56 | n << 8 | 1 } else { n }.to_le_bytes().to_vec();
        for (source, ranges) in &self.sources {
            out.extend(source.uuid);
            if is_tagged {
                out.push((source.tag.len() as u8) << 1);
                out.extend(source.tag.as_bytes());
            }
            out.extend((ranges.len() as u64).to_le_bytes());
            for range in ranges {
                out.extend(range.start.to_le_bytes());
                out.extend(range.end.to_le_bytes());
            }
        }
        out
    }

    pub(crate) fn decode(cursor: &mut Cursor) -> BinlogResult<Self> {
        let what = cursor.what();
        let bad = |_: GtidError| BinlogError::malformed(what, "its GTID set is not one");
        let head = cursor.u64()?;
        let (is_tagged, n_sources) = match head >> 56 {
            0 => (false, head),
            1 => (true, head << 8 >> 16),
            _ => return Err(BinlogError::malformed(what, "its GTID set has a format that is not known")),
        };
        let mut set = Self::default();
        for _ in 0..n_sources {
            let uuid = cursor.array()?;
            let tag = if is_tagged { tag(cursor)? } else { String::new() };
            let source = Source::new(uuid, &tag).map_err(bad)?;
            let mut last = 0;
            for _ in 0..cursor.u64()? {
                let (start, end) = (cursor.u64()?, cursor.u64()?);
                // In order, as servers write them (`Gtid_set::add_gtid_encoding` refuses others): so each goes behind the last.
                if start <= last || end <= start || end > NUMBER_END {
                    return Err(BinlogError::malformed(what, "its GTID set has a number out of range or order"));
                }
                set.insert(&source, Range { start, end }).map_err(bad)?;
                last = end;
            }
        }
        set.sources.retain(|_, ranges| !ranges.is_empty());
        Ok(set)
    }
}

fn tag(cursor: &mut Cursor) -> BinlogResult<String> {
    let n = usize::from(cursor.u8()?);
    if n & 1 == 1 || n >> 1 > TAG_BYTES_MAX {
        return Err(BinlogError::malformed(cursor.what(), "a GTID tag is longer than 32 bytes"));
    }
    Ok(String::from_utf8_lossy(cursor.slice(n >> 1)?).into_owned())
}

/// Both in order and without overlap.
fn subtract(from: &[Range], taken: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    let mut taken = taken.iter().copied().peekable();
    for range in from {
        let mut start = range.start;
        while let Some(t) = taken.peek().copied().filter(|t| t.start < range.end) {
            if t.start > start {
                left.push(Range { start, end: t.start });
            }
            start = start.max(t.end);
            if t.end > range.end {
                break;
            }
            taken.next();
        }
        if start < range.end {
            left.push(Range { start, end: range.end });
        }
    }
    left
}

/// As the server prints it, but on one line: `3e11…:1-5:7:blue:1-3,4f22…:1`.
impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last: Option<&Source> = None;
        for (source, ranges) in &self.sources {
            if last.is_none_or(|last| last.uuid != source.uuid) {
                f.write_str(if last.is_some() { "," } else { "" })?;
                write_uuid(f, &source.uuid)?;
            }
            if !source.tag.is_empty() {
                write!(f, ":{}", source.tag)?;
            }
            for Range { start, end } in ranges {
                match end - start {
                    1 => write!(f, ":{start}")?,
                    _ => write!(f, ":{start}-{}", end - 1)?,
                }
            }
            last = Some(source);
        }
        Ok(())
    }
}

fn write_uuid(f: &mut fmt::Formatter<'_>, uuid: &[u8; 16]) -> fmt::Result {
    for (i, byte) in uuid.iter().enumerate() {
        f.write_str(if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" })?;
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

/// As `SET @@gtid_purged` takes it: white space between the parts is of no meaning, and so are empty parts and upper case.
impl FromStr for GtidSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut found = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let uuid = fields.next().and_then(parse_uuid).ok_or_else(|| malformed(part, "it does not begin with a UUID"))?;
            let mut source = Source { uuid, tag: "".into() };
            let mut n_ranges = 0;
            for field in fields {
                if field.starts_with(|c: char| c.is_ascii_digit()) {
                    found.push((source.clone(), parse_range(field)?));
                    n_ranges += 1;
                } else {
                    source =
                        Source::new(uuid, field).ok().filter(|s| !s.tag.is_empty()).ok_or_else(|| malformed(part, "its tag is not one"))?;
                    n_ranges = 0;
                }
            }
            if n_ranges == 0 {
                return Err(malformed(part, "its UUID or last tag has no numbers"));
            }
        }
        // In order, so that each goes behind the last, however they were written.
        found.sort_by(|(a, x), (b, y)| (a, x.start).cmp(&(b, y.start)));
        let mut set = Self::default();
        found.iter().try_for_each(|(source, range)| set.insert(source, *range))?;
        Ok(set)
    }
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    let mut digits = text.bytes().filter(|b| *b != b'-');
    for byte in &mut uuid {
        let (high, low) = (char::from(digits.next()?).to_digit(16)?, char::from(digits.next()?).to_digit(16)?);
        *byte = (high << 4 | low) as u8;
    }
    (digits.next().is_none() && matches!(text.len(), 32 | 36)).then_some(uuid)
}

fn parse_range(text: &str) -> Result<Range, GtidError> {
    let number = |text: &str| text.trim().parse::<u64>().ok().filter(|n| (1..NUMBER_END).contains(n));
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    match (number(start), number(end)) {
        // A range that ends before it begins is empty, as the server has it.
        (Some(start), Some(last)) => Ok(Range { start, end: last + 1 }),
        _ => Err(malformed(text, "its numbers are not numbers from 1 to 2^63 - 2")),
    }
}

/// One MariaDB transaction: `0-1-270`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MariadbGtid {
    pub domain: u32,
    pub server: u32,
    pub number: u64,
}

impl fmt::Display for MariadbGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.number)
    }
}

impl FromStr for MariadbGtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut fields = text.trim().split('-');
        let mut next = || fields.next().filter(|f| f.starts_with(|c: char| c.is_ascii_digit()));
        let gtid = (|| {
            let domain = next()?.parse().ok()?;
            let server = next()?.parse().ok()?;
            Some(Self { domain, server, number: next()?.parse().ok()? })
        })();
        gtid.filter(|_| fields.next().is_none()).ok_or_else(|| malformed(text, "it is not three numbers with dashes between them"))
    }
}

/// The last transaction of each domain, as `gtid_slave_pos` has it: `0-1-270,7-2-3`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MariadbPosition {
    domains: BTreeMap<u32, (u32, u64)>,
}

impl MariadbPosition {
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = MariadbGtid> + '_ {
        self.domains.iter().map(|(domain, (server, number))| MariadbGtid { domain: *domain, server: *server, number: *number })
    }

    pub fn last(&self, domain: u32) -> Option<MariadbGtid> {
        self.domains.get(&domain).map(|(server, number)| MariadbGtid { domain, server: *server, number: *number })
    }

    /// Moves the transaction's domain to it, whatever it was before: the order of a domain is the order of its binlog.
    pub fn add(&mut self, gtid: MariadbGtid) -> Result<(), GtidError> {
        if self.domains.len() >= N_DOMAINS_MAX && !self.domains.contains_key(&gtid.domain) {
            return Err(GtidError::TooManyDomains);
        }
        self.domains.insert(gtid.domain, (gtid.server, gtid.number));
        Ok(())
    }

    /// Whether every domain is at least as far as in the other. Numbers of a domain grow whichever server writes it.
    pub fn contains(&self, other: &Self) -> bool {
        other.domains.iter().all(|(domain, (_, number))| self.domains.get(domain).is_some_and(|(_, have)| have >= number))
    }

    pub fn contains_gtid(&self, gtid: MariadbGtid) -> bool {
        self.domains.get(&gtid.domain).is_some_and(|(_, have)| *have >= gtid.number)
    }

    /// The further one of each domain.
    pub fn union(&mut self, other: &Self) -> Result<(), GtidError> {
        other.iter().filter(|gtid| !self.contains_gtid(*gtid)).collect::<Vec<_>>().into_iter().try_for_each(|gtid| self.add(gtid))
    }
}

impl fmt::Display for MariadbPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, gtid) in self.iter().enumerate() {
            write!(f, "{}{gtid}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// Of a domain that is named more than once, as in `gtid_binlog_state`, the last counts: the server lists the latest last.
impl FromStr for MariadbPosition {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut position = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            position.add(part.parse()?)?;
        }
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4350f323-7565-4e59-8763-4b1b83a0ce0e";

    fn set(text: &str) -> GtidSet {
        text.replace('A', A).replace('B', B).parse().unwrap()
    }

    #[test]
    fn sets_print_as_the_server_prints_them() {
        let cases = [
            ("", ""),
            ("A:1", "A:1"),
            ("A:1-5:7-9:6", "A:1-9"),
            (" A:5-9:1-3 ,\nB:4", "A:1-3:5-9,B:4"),
            ("B:4,A:1,A:3", "A:1:3,B:4"),
            ("A:1-3:blue:2-4:7:green:1", "A:1-3:blue:2-4:7:green:1"),
            ("A:green:1:blue:2,A:9", "A:9:blue:2:green:1"),
            ("A:Green:1", "A:green:1"),
            ("A:7-3:9", "A:9"),
            ("A:1-9223372036854775806", "A:1-9223372036854775806"),
        ];
        for (text, want) in cases {
            assert_eq!(set(text).to_string(), want.replace('A', A).replace('B', B), "{text}");
        }
        assert_eq!("3E11FA4771CA11E19E33C80AA9429562:1".parse::<GtidSet>(), Ok(set("A:1")));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let long = format!("{A}:{}:1", "x".repeat(33));
        let cases =
            ["A", "A:", "A:0", "A:x", "A:1-", "A:-1", "A:1:blue", "A:9223372036854775807", "A:1b", "A:b-c:1", "x:1", &long, "A1:1", "A:+1"];
        for text in cases {
            assert!(text.replace('A', A).parse::<GtidSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn sets_are_sets() {
        // left, right, left without right, both together, left contains right
        let cases = [
            ("A:1-10", "A:3-4", "A:1-2:5-10", "A:1-10", true),
            ("A:1-10", "A:5-20", "A:1-4", "A:1-20", false),
            ("A:1-3:7-9", "A:4-6", "A:1-3:7-9", "A:1-9", false),
            ("A:1-3:7-9", "A:2-8", "A:1:9", "A:1-9", false),
            ("A:1-3:7-9:12", "A:3:7:12", "A:1-2:8-9", "A:1-3:7-9:12", true),
            ("A:1-3", "A:blue:1-3", "A:1-3", "A:1-3:blue:1-3", false),
            ("A:1,B:2", "B:2", "A:1", "A:1,B:2", true),
            ("A:5", "", "A:5", "A:5", true),
            ("", "A:5", "", "A:5", false),
        ];
        for (left, right, minus, both, contains) in cases {
            let (l, r) = (set(left), set(right));
            assert_eq!(l.subtract(&r), set(minus), "{left} minus {right}");
            let mut union = l.clone();
            union.union(&r).unwrap();
            assert_eq!(union, set(both), "{left} and {right}");
            assert_eq!(l.contains(&r), contains, "{left} contains {right}");
        }
    }

    #[test]
    fn a_transaction_is_added_once() {
        let mut executed = set("A:1-3");
        for (gtid, is_new, want) in
            [("A:4", true, "A:1-4"), ("A:2", false, "A:1-4"), ("A:9", true, "A:1-4:9"), ("A:b:1", true, "A:1-4:9:b:1")]
        {
            let gtid: Gtid = gtid.replace('A', A).parse().unwrap();
            assert_eq!(executed.add(&gtid), Ok(is_new), "{gtid}");
            assert!(executed.contains_gtid(&gtid));
            assert_eq!(executed, set(want));
        }
        assert_eq!(executed.n_transactions(), 6);
        assert!("A:1-2".replace('A', A).parse::<Gtid>().is_err());
    }

    #[test]
    fn the_encoding_without_tags_is_the_documented_one() {
        let bytes = set("A:1-5").encode();
        let mut want = vec![1, 0, 0, 0, 0, 0, 0, 0];
        want.extend(set("A:1").sources.keys().next().unwrap().uuid);
        want.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        want.extend([1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, want);
    }

    #[test]
    fn the_encoding_with_tags_marks_itself_at_both_ends() {
        let bytes = set("A:1:blue:2").encode();
        assert_eq!(bytes[..8], [1, 2, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[24], 0, "no tag");
        assert_eq!(bytes[8 + 16 + 1 + 8 + 16 + 16..][..5], *b"\x08blue");
    }

    #[test]
    fn encoded_sets_that_are_none_are_refused() {
        let good = set("A:1-5").encode();
        let mut format = good.clone();
        format[7] = 2;
        let mut many = good.clone();
        many[3] = 255;
        let mut zero = good.clone();
        zero[32] = 0;
        for bytes in [format, many, zero, good[..40].to_vec()] {
            assert!(GtidSet::decode(&mut Cursor::new("test", bytes.into())).is_err());
        }
    }

    #[test]
    fn too_many_gaps_are_refused() {
        let mut full = GtidSet::default();
        let source = Source::new([1; 16], "").unwrap();
        full.sources.insert(source.clone(), (0..N_RANGES_MAX as u64).map(|i| Range { start: 2 * i + 1, end: 2 * i + 2 }).collect());
        full.n_ranges = N_RANGES_MAX;
        let far = Gtid { source: source.clone(), number: 1 << 40 };
        assert_eq!(full.add(&far), Err(GtidError::TooManyRanges));
        assert_eq!(full.add(&Gtid { source, number: 2 }), Ok(true), "what closes a gap is taken");
    }

    #[test]
    fn mariadb_positions() {
        let mut position: MariadbPosition = "0-1-270, 7-2-3".parse().unwrap();
        position.add("0-2-271".parse().unwrap()).unwrap();
        assert_eq!(position.to_string(), "0-2-271,7-2-3");
        let at = |text: &str| text.parse::<MariadbPosition>().unwrap();
        assert!(position.contains(&at("0-1-270")) && position.contains(&at("")));
        assert!(!position.contains(&at("0-1-272")) && !position.contains(&at("1-1-1")));
        assert_eq!(at("0-1-5,0-2-4").to_string(), "0-2-4");
        let mut both = at("0-1-5,1-1-9");
        both.union(&at("0-2-7,1-2-3,2-2-2")).unwrap();
        assert_eq!(both.to_string(), "0-2-7,1-1-9,2-2-2");
        for bad in ["0-1", "0-1-2-3", "a-1-2", "0-1-+2", "4294967296-1-1", "-1-1-1", "0-1-18446744073709551616"] {
            assert!(bad.parse::<MariadbPosition>().is_err(), "{bad}");
        }
    }

    /// Against the plainest set there is: one of single transactions.
    fn some_set() -> impl Strategy<Value = (GtidSet, std::collections::BTreeSet<(u8, u64)>)> {
        prop::collection::vec((0u8..3, 1u64..40, 0u64..6), 0..12).prop_map(|parts| {
            let (mut set, mut plain) = (GtidSet::default(), std::collections::BTreeSet::new());
            for (source, start, n) in parts {
                let named = Source::new([source / 2; 16], ["", "t"][usize::from(source % 2)]).unwrap();
                set.insert(&named, Range { start, end: start + n }).unwrap();
                plain.extend((start..start + n).map(|i| (source, i)));
            }
            (set, plain)
        })
    }

    fn plain(set: &GtidSet) -> std::collections::BTreeSet<(u8, u64)> {
        let all = set.sources.iter().flat_map(|(s, ranges)| ranges.iter().map(move |r| (s.uuid[0] * 2 + u8::from(!s.tag.is_empty()), r)));
        all.flat_map(|(source, r)| (r.start..r.end).map(move |i| (source, i))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sets_behave_as_plain_sets((a, pa) in some_set(), (b, pb) in some_set()) {
            let mut union = a.clone();
            union.union(&b).unwrap();
            prop_assert_eq!(plain(&union), &pa | &pb);
            prop_assert_eq!(plain(&a.subtract(&b)), &pa - &pb);
            prop_assert_eq!(a.contains(&b), pa.is_superset(&pb));
            prop_assert_eq!(&union.to_string().parse::<GtidSet>().unwrap(), &union);
            let decoded = GtidSet::decode(&mut Cursor::new("test", Bytes::from(union.encode())));
            prop_assert_eq!(decoded, Ok(union));
        }
    }
}
