//! Builds events as MySQL's documentation lays them out.

use crate::mysql::binlog::header::EventKind;
use bytes::Bytes;
use serde_json::Value;

/// Bytes put one after the other.
#[derive(Default, Clone)]
pub struct Put(pub Vec<u8>);

impl Put {
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub fn u8(self, n: u8) -> Self {
        self.bytes(&[n])
    }

    pub fn u16(self, n: u16) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    pub fn u32(self, n: u32) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    pub fn u64(self, n: u64) -> Self {
        self.bytes(&n.to_le_bytes())
    }

    pub fn lenenc(self, n: usize) -> Self {
        match n {
            0..=250 => self.u8(n as u8),
            251..=0xffff => self.u8(252).u16(n as u16),
            _ => self.u8(254).u64(n as u64),
        }
    }

    pub fn counted(self, bytes: &[u8]) -> Self {
        self.lenenc(bytes.len()).bytes(bytes)
    }

    /// MySQL's variable-length integer.
    pub fn varint(self, n: u64) -> Self {
        let bits = 64 - n.leading_zeros();
        let more = (bits.max(1).div_ceil(7) - 1).min(8);
        match more {
            8 => self.u8(0xff).u64(n),
            _ => {
                let all = (n << (more + 1)) | ((1 << more) - 1);
                self.bytes(&all.to_le_bytes()[..=more as usize])
            }
        }
    }
}

pub fn event(kind: EventKind, body: &[u8]) -> Bytes {
    flagged(kind, 0, body)
}

pub fn flagged(kind: EventKind, flags: u16, body: &[u8]) -> Bytes {
    let head = Put::default().u32(1_700_000_000).u8(kind.0).u32(7).u32(19 + body.len() as u32).u32(1000);
    head.u16(flags).bytes(body).0.into()
}

pub fn with_checksum(event: &Bytes) -> Bytes {
    let mut bytes = event.to_vec();
    let length = (bytes.len() + 4) as u32;
    bytes[9..13].copy_from_slice(&length.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    Put(bytes).u32(crc).0.into()
}

pub fn format(version: &str, algorithm: u8) -> Bytes {
    let mut name = version.as_bytes().to_vec();
    name.resize(50, 0);
    // Post-headers of MySQL 8.0.27, as it lists them.
    const POST_HEADERS: [u8; 41] = [
        56, 13, 0, 8, 0, 18, 0, 4, 4, 4, 4, 18, 0, 0, 92, 0, 4, 26, 8, 0, 0, 0, 8, 8, 8, 2, 0, 0, 0, 10, 10, 10, 25, 25, 0, 18, 52, 0, 10,
        40, 0,
    ];
    let body = Put::default().u16(4).bytes(&name).u32(0).u8(19).bytes(&POST_HEADERS).u8(algorithm);
    with_checksum(&event(EventKind::FORMAT_DESCRIPTION, &body.0))
}

/// Columns are types with their metadata; all may be null. Optional metadata is fields with their values.
pub fn table_map(id: u64, columns: &[(u8, &[u8])], optional: &[(u8, Vec<u8>)]) -> Bytes {
    let metadata: Vec<u8> = columns.iter().flat_map(|(_, metadata)| metadata.iter().copied()).collect();
    let kinds: Vec<u8> = columns.iter().map(|(kind, _)| *kind).collect();
    let mut body = Put::default().bytes(&id.to_le_bytes()[..6]).u16(1).u8(4).bytes(b"shop\0").u8(6).bytes(b"orders\0");
    body = body.counted(&kinds).counted(&metadata).bytes(&vec![0xff; columns.len().div_ceil(8)]);
    for (field, value) in optional {
        body = body.u8(*field).counted(value);
    }
    event(EventKind::TABLE_MAP, &body.0)
}

/// The bits of the columns in the image or images, and what follows them.
pub fn rows(kind: EventKind, id: u64, n_columns: usize, bits: &[u8], images: &[u8]) -> Bytes {
    let mut body = Put::default().bytes(&id.to_le_bytes()[..6]).u16(1);
    if kind.0 >= EventKind::WRITE_ROWS.0 {
        // Extra data of partitions, which is passed over.
        body = body.u16(5).bytes(&[1, 2, 3]);
    }
    event(kind, &body.lenenc(n_columns).bytes(bits).bytes(images).0)
}

/// A document as `json_binary::serialize` writes it; large forms where the small ones do not hold it, or wherever they are asked for.
pub fn json(value: &Value, is_large: bool) -> Vec<u8> {
    let (kind, data) = json_value(value, is_large);
    [vec![kind], data].concat()
}

fn json_value(value: &Value, is_large: bool) -> (u8, Vec<u8>) {
    match value {
        Value::Null => (4, vec![0]),
        Value::Bool(b) => (4, vec![if *b { 1 } else { 2 }]),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) if i16::try_from(n).is_ok() => (5, (n as i16).to_le_bytes().to_vec()),
            (Some(n), _) if u16::try_from(n).is_ok() => (6, (n as u16).to_le_bytes().to_vec()),
            (Some(n), _) if i32::try_from(n).is_ok() => (7, (n as i32).to_le_bytes().to_vec()),
            (Some(n), _) if u32::try_from(n).is_ok() => (8, (n as u32).to_le_bytes().to_vec()),
            (Some(n), _) => (9, n.to_le_bytes().to_vec()),
            (None, Some(n)) => (10, n.to_le_bytes().to_vec()),
            (None, None) => (11, n.as_f64().unwrap().to_le_bytes().to_vec()),
        },
        Value::String(text) => (12, [json_length(text.len()), text.as_bytes().to_vec()].concat()),
        Value::Array(items) => container(items.iter().map(|item| (None, item)).collect(), false, is_large),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().map(|(key, value)| (Some(key.as_bytes()), value)).collect();
            members.sort_by_key(|(key, _)| key.map(|key| (key.len(), key)));
            container(members, true, is_large)
        }
    }
}

pub fn json_length(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n > 0x7f {
        bytes.push(0x80 | (n & 0x7f) as u8);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn container(items: Vec<(Option<&[u8]>, &Value)>, is_object: bool, is_large: bool) -> (u8, Vec<u8>) {
    let width = if is_large { 4 } else { 2 };
    let number = |n: usize| n.to_le_bytes()[..width].to_vec();
    let keys: Vec<u8> = items.iter().filter_map(|(key, _)| *key).flatten().copied().collect();
    let mut key_at = 2 * width + items.len() * (1 + width + if is_object { width + 2 } else { 0 });
    let mut value_at = key_at + keys.len();
    let (mut key_entries, mut value_entries, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (key, item) in &items {
        if let Some(key) = key {
            key_entries.extend(number(key_at));
            key_entries.extend((key.len() as u16).to_le_bytes());
            key_at += key.len();
        }
        let (kind, data) = json_value(item, is_large);
        value_entries.push(kind);
        if matches!(kind, 4..=6) || is_large && matches!(kind, 7 | 8) {
            let mut inline = data;
            inline.resize(width, 0);
            value_entries.extend(inline);
        } else {
            value_entries.extend(number(value_at));
            value_at += data.len();
            values.extend(data);
        }
    }
    if value_at > 0xffff && !is_large {
        return container(items, is_object, true);
    }
    let data = [number(items.len()), number(value_at), key_entries, value_entries, keys, values].concat();
    (if is_object { 0 } else { 2 } + u8::from(is_large), data)
}
