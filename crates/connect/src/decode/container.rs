//! The frame of an Avro object container file, walked before any row is decoded: every block holds the rows and bytes it claims.
//! The Avro reader trusts these counts, and a block that holds more bytes than rows keeps it waiting for ever.
//! Format: <https://avro.apache.org/docs/1.12.0/specification/#object-container-files>.

use super::value::shorten;
use serde_json::Value;
use std::collections::HashMap;

pub(crate) const MAGIC: &[u8] = b"Obj\x01";
const SYNC_BYTES: usize = 16;
/// Types inside types, in a schema and in a value.
const MAX_DEPTH: usize = 32;
/// Types of a schema, where one that is named again counts again: the Avro reader copies it to every such place, and ten types that name
/// each other ten times would be ten thousand million.
const MAX_TYPES: usize = 4_096;
/// Values in a file that need no byte of it (nulls, empty records and fixed values), beyond one for each of its bytes.
const MAX_EMPTY_VALUES: usize = 1 << 20;

pub(crate) type Checked<T> = Result<T, String>;

/// Checks a whole file and counts its rows; an error says which block is not what it claims.
pub(crate) fn check(bytes: &[u8], rows_max: usize) -> Checked<usize> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin with 'Obj' and a 1")?;
    let (shapes, sync) = header(&mut rest)?;
    let (mut n_rows, mut budget) = (0usize, Budget::of(bytes));
    for block in 1.. {
        if rest.is_empty() {
            break;
        }
        let count = check_block(&shapes, &mut rest, sync, rows_max - n_rows, &mut budget).map_err(|e| format!("block {block}: {e}"))?;
        n_rows += count;
    }
    Ok(n_rows)
}

fn check_block(shapes: &Shapes, rest: &mut &[u8], sync: &[u8], rows_max: usize, budget: &mut Budget) -> Checked<usize> {
    let count = length(rest)?;
    if count > rows_max {
        return Err(format!("it claims {count} rows, and {rows_max} more are allowed in one request"));
    }
    let mut data = sized(rest)?;
    for row in 1..=count {
        shapes.skip_one(&mut data, budget).map_err(|e| format!("row {row} of {count}: {e}"))?;
    }
    if !data.is_empty() {
        return Err(format!("{} bytes are left behind its {count} rows", data.len()));
    }
    if take(rest, SYNC_BYTES)? != sync {
        return Err("its sync marker is not the file's".to_owned());
    }
    Ok(count)
}

fn header<'a>(rest: &mut &'a [u8]) -> Checked<(Shapes, &'a [u8])> {
    let mut schema = None;
    loop {
        let n_entries = block_items(rest)?;
        if n_entries == 0 {
            break;
        }
        for _ in 0..n_entries {
            let (key, value) = (sized(rest)?, sized(rest)?);
            match key {
                b"avro.schema" => schema = Some(value),
                b"avro.codec" if !matches!(value, b"null" | b"") => {
                    let codec = String::from_utf8_lossy(value);
                    return Err(format!("its blocks are compressed with '{}': write it without a codec", shorten(&codec)));
                }
                _ => {}
            }
        }
    }
    let schema: Value = serde_json::from_slice(schema.ok_or("its header has no schema")?).map_err(|e| format!("its schema: {e}"))?;
    Ok((Shapes::of(&schema)?, take(rest, SYNC_BYTES)?))
}

/// How many values may still be looked at. Without it a few bytes could stand for any number of empty values.
pub(crate) struct Budget(usize);

impl Budget {
    pub fn of(bytes: &[u8]) -> Self {
        // A value that takes bytes takes one at least, and stands in a record or list that is a value too.
        Self(bytes.len().saturating_mul(4).saturating_add(MAX_EMPTY_VALUES))
    }

    fn take(&mut self) -> Checked<()> {
        self.0 = self.0.checked_sub(1).ok_or("it has far more values than bytes")?;
        Ok(())
    }
}

/// How the values of a type lie in bytes. Composite types name their parts by index, so that a type may contain itself.
enum Shape {
    Nothing,
    Varint,
    Fixed(usize),
    Sized,
    Items { key: bool, item: usize },
    Union(Vec<usize>),
    Record(Vec<usize>),
}

pub(crate) struct Shapes {
    list: Vec<Shape>,
    /// Of each shape: how many types it is made of, itself included; None while it is being read.
    n_types: Vec<Option<usize>>,
    named: HashMap<String, usize>,
    root: usize,
}

impl Shapes {
    fn of(schema: &Value) -> Checked<Self> {
        let mut shapes = Self { list: Vec::new(), n_types: Vec::new(), named: HashMap::new(), root: 0 };
        shapes.root = shapes.add(schema, 0).map_err(|e| format!("its schema: {e}"))?;
        Ok(shapes)
    }

    /// The schema of messages, as its JSON text.
    pub fn parse(json: &str) -> Checked<Self> {
        Self::of(&serde_json::from_str(json).map_err(|e| format!("its schema: {e}"))?)
    }

    fn push(&mut self, shape: Shape) -> Checked<usize> {
        self.list.push(Shape::Nothing);
        self.n_types.push(None);
        let index = self.list.len() - 1;
        self.set(index, shape)?;
        Ok(index)
    }

    fn set(&mut self, index: usize, shape: Shape) -> Checked<()> {
        let parts = match &shape {
            Shape::Items { item, .. } => std::slice::from_ref(item),
            Shape::Union(parts) | Shape::Record(parts) => parts,
            _ => &[],
        };
        let mut n_types = 1;
        for part in parts {
            n_types += self.n_types[*part].ok_or("a type contains itself")?;
            if n_types > MAX_TYPES {
                return Err(format!("it is made of more than {MAX_TYPES} types"));
            }
        }
        self.list[index] = shape;
        self.n_types[index] = Some(n_types);
        Ok(())
    }

    fn add(&mut self, schema: &Value, depth: usize) -> Checked<usize> {
        if depth > MAX_DEPTH {
            return Err(format!("types are nested deeper than {MAX_DEPTH}"));
        }
        match schema {
            Value::String(name) => self.primitive(name),
            Value::Array(branches) => {
                let branches = branches.iter().map(|b| self.add(b, depth + 1)).collect::<Checked<_>>()?;
                self.push(Shape::Union(branches))
            }
            Value::Object(_) => self.complex(schema, depth),
            _ => Err(format!("{} is not a type", shorten(&schema.to_string()))),
        }
    }

    fn primitive(&mut self, name: &str) -> Checked<usize> {
        let shape = match name {
            "null" => Shape::Nothing,
            "boolean" => Shape::Fixed(1),
            "int" | "long" => Shape::Varint,
            "float" => Shape::Fixed(4),
            "double" => Shape::Fixed(8),
            "bytes" | "string" => Shape::Sized,
            named => return self.named.get(short(named)).copied().ok_or_else(|| format!("type '{}' is not known", shorten(named))),
        };
        self.push(shape)
    }

    fn complex(&mut self, schema: &Value, depth: usize) -> Checked<usize> {
        let kind = &schema["type"];
        let index = match kind.as_str() {
            Some("record" | "error") => {
                let index = self.push(Shape::Nothing)?;
                self.n_types[index] = None;
                self.name(schema, index)?;
                let fields = schema["fields"].as_array().ok_or("a record has no fields")?;
                let fields = fields.iter().map(|f| self.add(&f["type"], depth + 1)).collect::<Checked<_>>()?;
                self.set(index, Shape::Record(fields))?;
                return Ok(index);
            }
            Some("enum") => self.push(Shape::Varint)?,
            Some("fixed") => {
                let size = schema["size"].as_u64().and_then(|n| usize::try_from(n).ok()).ok_or("a fixed type has no size")?;
                self.push(Shape::Fixed(size))?
            }
            Some(composite @ ("array" | "map")) => {
                let key = composite == "map";
                let item = self.add(&schema[if key { "values" } else { "items" }], depth + 1)?;
                return self.push(Shape::Items { key, item });
            }
            _ => return self.add(kind, depth + 1),
        };
        self.name(schema, index)?;
        Ok(index)
    }

    /// Two types of one name would be told apart by their namespaces, whose rules the Avro reader reads in its own way: refused, so that
    /// what is walked here is what is decoded there.
    fn name(&mut self, schema: &Value, index: usize) -> Checked<()> {
        let Some(name) = schema["name"].as_str() else { return Ok(()) };
        match self.named.insert(short(name).to_owned(), index) {
            Some(_) => Err(format!("two types have the name '{}'", shorten(short(name)))),
            None => Ok(()),
        }
    }

    /// Passes over one value of the schema.
    pub fn skip_one(&self, data: &mut &[u8], budget: &mut Budget) -> Checked<()> {
        self.skip(self.root, data, 0, budget)
    }

    fn skip(&self, shape: usize, data: &mut &[u8], depth: usize, budget: &mut Budget) -> Checked<()> {
        budget.take()?;
        if depth > MAX_DEPTH {
            return Err(format!("values are nested deeper than {MAX_DEPTH}"));
        }
        match &self.list[shape] {
            Shape::Nothing => {}
            Shape::Varint => drop(varint(data)?),
            Shape::Fixed(n) => drop(take(data, *n)?),
            Shape::Sized => drop(sized(data)?),
            Shape::Items { key, item } => self.skip_items(*key, *item, data, depth, budget)?,
            Shape::Union(branches) => {
                let branch = length(data)?;
                let shape = branches.get(branch).ok_or_else(|| format!("a union has no branch {branch}"))?;
                self.skip(*shape, data, depth + 1, budget)?;
            }
            Shape::Record(fields) => {
                for field in fields {
                    self.skip(*field, data, depth + 1, budget)?;
                }
            }
        }
        Ok(())
    }

    fn skip_items(&self, key: bool, item: usize, data: &mut &[u8], depth: usize, budget: &mut Budget) -> Checked<()> {
        loop {
            let n_items = block_items(data)?;
            if n_items == 0 {
                return Ok(());
            }
            for _ in 0..n_items {
                if key {
                    sized(data)?;
                }
                self.skip(item, data, depth + 1, budget)?;
            }
        }
    }
}

/// A type is found again by its last name.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The count of an array's or map's next block. A negative one is followed by the block's bytes.
fn block_items(data: &mut &[u8]) -> Checked<u64> {
    let count = varint(data)?;
    if count < 0 {
        varint(data)?;
    }
    Ok(count.unsigned_abs())
}

fn sized<'a>(data: &mut &'a [u8]) -> Checked<&'a [u8]> {
    let n = length(data)?;
    take(data, n)
}

fn length(data: &mut &[u8]) -> Checked<usize> {
    let n = varint(data)?;
    usize::try_from(n).map_err(|_| format!("a length or count of {n}"))
}

fn take<'a>(data: &mut &'a [u8], n: usize) -> Checked<&'a [u8]> {
    let taken = data.get(..n).ok_or_else(|| format!("it ends {} bytes too early", n.saturating_sub(data.len())))?;
    *data = &data[n..];
    Ok(taken)
}

/// A zig-zag number of at most ten bytes.
fn varint(data: &mut &[u8]) -> Checked<i64> {
    let mut raw = 0u64;
    for (i, byte) in data.iter().take(10).enumerate() {
        raw |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *data = &data[i + 1..];
            return Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed());
        }
    }
    Err(if data.len() < 10 { "it ends in the middle of a number".to_owned() } else { "a number longer than ten bytes".to_owned() })
}
