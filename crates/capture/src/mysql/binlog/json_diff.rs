//! Partial updates of JSON columns (`binlog_row_value_options=PARTIAL_JSON`): the document before, and what was done to it.
//!
//! A change is an operation 1 (replace, insert, remove), a path with its length before it, and, but for a removal, a value with its length
//! (`Json_diff_vector::read_binary`, json_diff.cc).

use super::cursor::Cursor;
use super::error::{BinlogError, Result};
use super::json::{Container, DEPTH_MAX, Text};
use bytes::Bytes;

const WHAT: &str = "JSON difference";

fn bad<T>(why: &'static str) -> Result<T> {
    Err(BinlogError::malformed(WHAT, why))
}

/// A value that is opened only on the way to what changes.
enum Node {
    Closed {
        kind: u8,
        data: Bytes,
    },
    Array(Vec<Node>),
    /// In the server's order: shorter keys first, then by their bytes.
    Object(Vec<(Bytes, Node)>),
}

/// A step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Leg {
    Member(String),
    Cell(usize),
}

/// The text of the document after its changes.
pub fn apply(before: Bytes, changes: Bytes) -> Result<Bytes> {
    let bytes = before.len() + changes.len();
    // Every element takes more than a byte of a document that does not overlap itself.
    let mut budget = bytes;
    let mut root = Node::of(before)?;
    let mut cursor = Cursor::new(WHAT, changes);
    while !cursor.is_empty() {
        let operation = cursor.u8()?;
        let path = path(&cursor.lenenc_bytes()?)?;
        let value = if operation == 2 { None } else { Some(Node::of(cursor.lenenc_bytes()?)?) };
        match (operation, value) {
            (0, Some(value)) => *root.find(&path, &mut budget)? = value,
            (1, Some(value)) => root.insert(&path, value, &mut budget)?,
            (2, None) => root.remove(&path, &mut budget)?,
            _ => return bad("its operation is not known"),
        }
    }
    let mut text = Text::new(bytes);
    root.write(&mut text, 0)?;
    Ok(text.finish())
}

impl Node {
    fn of(document: Bytes) -> Result<Self> {
        match document.first() {
            Some(kind) => Ok(Self::Closed { kind: *kind, data: document.slice(1..) }),
            None => bad("a value is empty"),
        }
    }

    fn open(&mut self, budget: &mut usize) -> Result<()> {
        let Self::Closed { kind, data } = self else { return Ok(()) };
        let Some(container) = Container::open(*kind, data)? else { return bad("its path goes into a scalar") };
        *budget = budget.checked_sub(container.n).ok_or(BinlogError::malformed(WHAT, "the parts of its document overlap"))?;
        let element = |i| container.value(i).map(|(kind, part)| Self::Closed { kind, data: data.slice_ref(part) });
        let opened = match container.is_object {
            true => Self::Object((0..container.n).map(|i| Ok((data.slice_ref(container.key(i)?), element(i)?))).collect::<Result<_>>()?),
            false => Self::Array((0..container.n).map(element).collect::<Result<_>>()?),
        };
        *self = opened;
        Ok(())
    }

    fn find(&mut self, path: &[Leg], budget: &mut usize) -> Result<&mut Self> {
        let mut node = self;
        for leg in path {
            node.open(budget)?;
            let next = match (node, leg) {
                (Self::Object(members), Leg::Member(key)) => members.iter_mut().find(|(k, _)| k == key.as_bytes()).map(|(_, node)| node),
                (Self::Array(cells), Leg::Cell(i)) => cells.get_mut(*i),
                _ => None,
            };
            node = next.ok_or(BinlogError::malformed(WHAT, "its path leads to nothing"))?;
        }
        Ok(node)
    }

    /// The object or array that the last step of a path is taken in.
    fn parent<'a>(&mut self, path: &'a [Leg], budget: &mut usize) -> Result<(&mut Self, &'a Leg)> {
        let Some((last, way)) = path.split_last() else { return bad("the whole document cannot be inserted or removed") };
        let node = self.find(way, budget)?;
        node.open(budget)?;
        Ok((node, last))
    }

    fn insert(&mut self, path: &[Leg], value: Self, budget: &mut usize) -> Result<()> {
        match self.parent(path, budget)? {
            (Self::Array(cells), Leg::Cell(i)) => cells.insert((*i).min(cells.len()), value),
            (Self::Object(members), Leg::Member(key)) => {
                let order = |k: &[u8]| (k.len(), k.to_vec());
                match members.binary_search_by_key(&order(key.as_bytes()), |(k, _)| order(k)) {
                    Ok(_) => return bad("it inserts a key that is there"),
                    Err(at) => members.insert(at, (Bytes::from(key.clone()), value)),
                }
            }
            _ => return bad("its path leads to nothing"),
        }
        Ok(())
    }

    fn remove(&mut self, path: &[Leg], budget: &mut usize) -> Result<()> {
        match self.parent(path, budget)? {
            (Self::Array(cells), Leg::Cell(i)) if *i < cells.len() => drop(cells.remove(*i)),
            (Self::Object(members), Leg::Member(key)) => match members.iter().position(|(k, _)| k == key.as_bytes()) {
                Some(at) => drop(members.remove(at)),
                None => return bad("its path leads to nothing"),
            },
            _ => return bad("its path leads to nothing"),
        }
        Ok(())
    }

    fn write(&self, text: &mut Text, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return bad("the document is nested deeper than 100 levels");
        }
        match self {
            Self::Closed { kind, data } => text.value(*kind, data, depth),
            Self::Array(cells) => {
                text.put(b"[")?;
                for (i, node) in cells.iter().enumerate() {
                    text.put(if i > 0 { b", " } else { b"" })?;
                    node.write(text, depth + 1)?;
                }
                text.put(b"]")
            }
            Self::Object(members) => {
                text.put(b"{")?;
                for (i, (key, node)) in members.iter().enumerate() {
                    text.put(if i > 0 { b", " } else { b"" })?;
                    text.string(key)?;
                    text.put(b": ")?;
                    node.write(text, depth + 1)?;
                }
                text.put(b"}")
            }
        }
    }
}

/// `$`, `.key`, `."quoted key"`, `[3]`: the server writes no wildcards here.
fn path(raw: &[u8]) -> Result<Vec<Leg>> {
    let Some(mut rest) = std::str::from_utf8(raw).ok().and_then(|text| text.strip_prefix('$')) else { return bad("its path is not one") };
    let mut legs = Vec::new();
    while !rest.is_empty() {
        let (leg, n) = leg(rest).ok_or(BinlogError::malformed(WHAT, "its path is not one"))?;
        legs.push(leg);
        rest = &rest[n..];
        if legs.len() > DEPTH_MAX {
            return bad("its path has more than 100 steps");
        }
    }
    Ok(legs)
}

/// The first step and how many bytes it takes.
fn leg(text: &str) -> Option<(Leg, usize)> {
    if let Some(inside) = text.strip_prefix('[') {
        let end = inside.find(']')?;
        return Some((Leg::Cell(inside[..end].trim().parse().ok()?), end + 2));
    }
    let key = text.strip_prefix('.')?;
    if !key.starts_with('"') {
        let end = key.find(['.', '[']).unwrap_or(key.len());
        return (end > 0).then(|| (Leg::Member(key[..end].to_owned()), end + 1));
    }
    let mut is_escaped = false;
    let end = key.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        ends
    })?;
    Some((Leg::Member(serde_json::from_str(&key[..=end.0]).ok()?), end.0 + 2))
}
