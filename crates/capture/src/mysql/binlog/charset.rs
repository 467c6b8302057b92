//! Charsets of columns: from the server's bytes to UTF-8, or a refusal; never a guess.

mod single_byte;

use bytes::{BufMut, Bytes, BytesMut};
use encoding_rs::{DecoderResult, Encoding};
use single_byte::{self as tables, Upper};
use std::borrow::Cow;

#[derive(Clone, Copy)]
pub struct Charset {
    /// The server's name.
    pub name: &'static str,
    /// Bytes of its longest character.
    pub width_max: u8,
    form: Form,
}

#[derive(Clone, Copy)]
enum Form {
    Binary,
    /// Also of `utf8mb4`.
    Utf8,
    Ascii,
    Upper(&'static Upper),
    Swe7,
    /// Two or four bytes, the highest first unless `is_little`.
    Wide {
        unit: u8,
        is_little: bool,
    },
    /// Of several bytes per character, by the tables of the WHATWG encoding standard, with what the server has otherwise.
    Encoding(&'static Encoding, &'static [Otherwise]),
}

impl PartialEq for Charset {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Charset {}

impl std::fmt::Debug for Charset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn charset(name: &'static str, width_max: u8, form: Form) -> Charset {
    Charset { name, width_max, form }
}

const fn upper(name: &'static str, table: &'static Upper) -> Charset {
    charset(name, 1, Form::Upper(table))
}

/// Every charset that MySQL 5.7 to 9 or MariaDB has, with the lowest and all other collations of it below 256. Those from 256 on are
/// in [`Charset::of_collation`].
static CHARSETS: &[(Charset, &[u16])] = &[
    (charset("utf8mb4", 4, Form::Utf8), &[45, 46]),
    (charset("utf8mb3", 3, Form::Utf8), &[33, 76, 83, 223]),
    (upper("latin1", &tables::LATIN1), &[5, 8, 15, 31, 47, 48, 49, 94]),
    (charset("binary", 1, Form::Binary), &[63]),
    (charset("ascii", 1, Form::Ascii), &[11, 65]),
    (charset("euckr", 2, Form::Encoding(encoding_rs::EUC_KR, &[])), &[19, 85]),
    (charset("big5", 2, Form::Encoding(encoding_rs::BIG5, BIG5_OTHERWISE)), &[1, 84]),
    (charset("gb2312", 2, Form::Encoding(encoding_rs::GBK, GB2312_OTHERWISE)), &[24, 86]),
    (charset("gbk", 2, Form::Encoding(encoding_rs::GBK, &[])), &[28, 87]),
    (charset("gb18030", 4, Form::Encoding(encoding_rs::GB18030, &[])), &[248, 249, 250]),
    (charset("sjis", 2, Form::Encoding(encoding_rs::SHIFT_JIS, SJIS_OTHERWISE)), &[13, 88]),
    (charset("cp932", 2, Form::Encoding(encoding_rs::SHIFT_JIS, &[])), &[95, 96]),
    (charset("ujis", 3, Form::Encoding(encoding_rs::EUC_JP, UJIS_OTHERWISE)), &[12, 91]),
    (charset("eucjpms", 3, Form::Encoding(encoding_rs::EUC_JP, EUCJPMS_OTHERWISE)), &[97, 98]),
    (charset("ucs2", 2, Form::Wide { unit: 2, is_little: false }), &[35, 90, 159]),
    (charset("utf16", 4, Form::Wide { unit: 2, is_little: false }), &[54, 55]),
    (charset("utf16le", 4, Form::Wide { unit: 2, is_little: true }), &[56, 62]),
    (charset("utf32", 4, Form::Wide { unit: 4, is_little: false }), &[60, 61]),
    (upper("armscii8", &tables::ARMSCII8), &[32, 64]),
    (upper("cp1250", &tables::CP1250), &[26, 34, 44, 66, 99]),
    (upper("cp1251", &tables::CP1251), &[14, 23, 50, 51, 52]),
    (upper("cp1256", &tables::CP1256), &[57, 67]),
    (upper("cp1257", &tables::CP1257), &[29, 58, 59]),
    (upper("cp850", &tables::CP850), &[4, 80]),
    (upper("cp852", &tables::CP852), &[40, 81]),
    (upper("cp866", &tables::CP866), &[36, 68]),
    (upper("dec8", &tables::DEC8), &[3, 69]),
    (upper("geostd8", &tables::GEOSTD8), &[92, 93]),
    (upper("greek", &tables::GREEK), &[25, 70]),
    (upper("hebrew", &tables::HEBREW), &[16, 71]),
    (upper("hp8", &tables::HP8), &[6, 72]),
    (upper("keybcs2", &tables::KEYBCS2), &[37, 73]),
    (upper("koi8r", &tables::KOI8R), &[7, 74]),
    (upper("koi8u", &tables::KOI8U), &[22, 75]),
    (upper("latin2", &tables::LATIN2), &[2, 9, 21, 27, 77]),
    (upper("latin5", &tables::LATIN5), &[30, 78]),
    (upper("latin7", &tables::LATIN7), &[20, 41, 42, 79]),
    (upper("macce", &tables::MACCE), &[38, 43]),
    (upper("macroman", &tables::MACROMAN), &[39, 53]),
    (charset("swe7", 1, Form::Swe7), &[10, 82]),
    (upper("tis620", &tables::TIS620), &[18, 89]),
];

/// The national letters of Swedish seven-bit ASCII.
const SWE7: [(u8, char); 10] =
    [(b'@', 'É'), (b'[', 'Ä'), (b'\\', 'Ö'), (b']', 'Å'), (b'^', 'Ü'), (b'`', 'é'), (b'{', 'ä'), (b'|', 'ö'), (b'}', 'å'), (b'~', 'ü')];

/// A character that the server has otherwise than the standard: found by comparing every code of one to three bytes with MariaDB 10.11
/// (`SELECT CONVERT(CHAR(seq USING sjis) USING utf32) FROM seq_33024_to_65535`). `euckr` and `gbk` are the same.
type Otherwise = (u32, char);

/// Means nothing to the server, or to one of its versions.
const UNDEFINED: char = char::REPLACEMENT_CHARACTER;

/// Beside [`BIG5_VENDORS`].
const BIG5_OTHERWISE: &[Otherwise] = &[
    (0xa145, '•'),
    (0xa14e, '､'),
    (0xa15a, UNDEFINED),
    (0xa1c2, '‾'),
    (0xa1c3, UNDEFINED),
    (0xa1c5, UNDEFINED),
    (0xa1e3, '∼'),
    (0xa1f2, '♁'),
    (0xa1f3, '☉'),
    (0xa1fe, UNDEFINED),
    (0xa240, UNDEFINED),
    (0xa241, '／'),
    (0xa242, '＼'),
    (0xa244, '¥'),
    (0xa246, '¢'),
    (0xa247, '£'),
    (0xa2cc, UNDEFINED),
    (0xa2ce, UNDEFINED),
];

/// Rows of Big5 that each vendor has filled in its own way.
const BIG5_VENDORS: std::ops::RangeInclusive<u32> = 0xc6a1..=0xc7fe;

/// Two signs.
const GB2312_OTHERWISE: &[Otherwise] = &[(0xa1a4, '・'), (0xa1aa, '―')];

/// Of the JIS standard, where `cp932` is as Windows has it.
const SJIS_OTHERWISE: &[Otherwise] =
    &[(0x815f, '\\'), (0x8160, '〜'), (0x8161, '‖'), (0x817c, '−'), (0x8191, '¢'), (0x8192, '£'), (0x81ca, '¬')];

/// As in `sjis`. Characters of the user-defined rows are refused.
const UJIS_OTHERWISE: &[Otherwise] =
    &[(0xa1c0, '\\'), (0xa1c1, '〜'), (0xa1c2, '‖'), (0xa1dd, '−'), (0xa1f1, '¢'), (0xa1f2, '£'), (0xa2cc, '¬'), (0x8fa2b7, '~')];

/// Characters of the user-defined rows and of NEC's rows in the third plane are refused.
const EUCJPMS_OTHERWISE: &[Otherwise] = &[(0x8fa2c3, '￤')];

impl Charset {
    /// By the number of a collation, as table maps and statements have it (`information_schema.collations.id`).
    pub fn of_collation(id: u16) -> Option<Self> {
        let name = match id {
            128..=151 => "ucs2",
            101..=124 => "utf16",
            160..=183 => "utf32",
            192..=215 => "utf8mb3",
            224..=247 | 255..=323 => "utf8mb4",
            // MariaDB's Croatian, Myanmar and Thai collations.
            576..=578 => "utf8mb3",
            608..=610 => "utf8mb4",
            640..=642 => "ucs2",
            672..=674 => "utf16",
            736..=738 => "utf32",
            // MariaDB's collations without padding are the padded ones' numbers and 1024.
            1024..=2047 => return Self::of_collation(id - 1024),
            // MariaDB's collations by the Unicode collation algorithm 14.0.0.
            2048..=2303 => "utf8mb3",
            2304..=2559 => "utf8mb4",
            2560..=2815 => "ucs2",
            2816..=3071 => "utf16",
            3072..=3327 => "utf32",
            _ => return CHARSETS.iter().find(|(_, ids)| ids.contains(&id)).map(|(charset, _)| *charset),
        };
        Self::named(name)
    }

    /// By the server's name.
    pub fn named(name: &str) -> Option<Self> {
        let name = if name == "utf8" { "utf8mb3" } else { name };
        CHARSETS.iter().find(|(charset, _)| charset.name == name).map(|(charset, _)| *charset)
    }

    pub fn is_binary(&self) -> bool {
        matches!(self.form, Form::Binary)
    }

    /// The text in UTF-8, as a slice of what came wherever it is the same, else from `arena`; none where a byte means nothing in this
    /// charset.
    pub(crate) fn decode(&self, raw: Bytes, arena: &mut BytesMut) -> Option<Bytes> {
        match self.form {
            Form::Binary => return Some(raw),
            Form::Utf8 => return std::str::from_utf8(&raw).is_ok().then_some(raw),
            Form::Ascii => return raw.is_ascii().then_some(raw),
            Form::Upper(_) | Form::Encoding(..) if raw.is_ascii() => return Some(raw),
            _ => {}
        }
        let is_whole = match self.form {
            Form::Upper(table) => put_all(arena, raw.iter().map(|b| from_upper(table, *b))),
            Form::Swe7 => put_all(arena, raw.iter().map(|b| from_swe7(*b))),
            Form::Wide { unit: 2, is_little } => {
                let units = raw
                    .chunks_exact(2)
                    .map(|c| if is_little { u16::from_le_bytes([c[0], c[1]]) } else { u16::from_be_bytes([c[0], c[1]]) });
                raw.len().is_multiple_of(2) && put_all(arena, char::decode_utf16(units).map(Result::ok))
            }
            Form::Wide { .. } => {
                let units = raw.chunks_exact(4).map(|c| char::from_u32(u32::from_be_bytes([c[0], c[1], c[2], c[3]])));
                raw.len().is_multiple_of(4) && put_all(arena, units)
            }
            Form::Encoding(encoding, otherwise) => put_encoded(arena, &raw, encoding, otherwise),
            Form::Binary | Form::Utf8 | Form::Ascii => false,
        };
        let text = arena.split().freeze();
        is_whole.then_some(text)
    }

    /// The text in UTF-8, with replacement characters; for people and for reading a statement's first words.
    pub(crate) fn lossy<'a>(&self, raw: &'a Bytes) -> Cow<'a, str> {
        match self.decode(raw.clone(), &mut BytesMut::new()) {
            Some(text) => Cow::Owned(String::from_utf8_lossy(&text).into_owned()),
            None => String::from_utf8_lossy(raw),
        }
    }
}

fn from_upper(table: &Upper, byte: u8) -> Option<char> {
    match byte {
        0..0x80 => Some(char::from(byte)),
        _ => char::from_u32(u32::from(table[usize::from(byte) - 0x80])).filter(|c| *c != char::REPLACEMENT_CHARACTER),
    }
}

fn from_swe7(byte: u8) -> Option<char> {
    match SWE7.iter().find(|(b, _)| *b == byte) {
        Some((_, c)) => Some(*c),
        None => (byte < 0x7f).then_some(char::from(byte)),
    }
}

fn put_all(arena: &mut BytesMut, mut chars: impl Iterator<Item = Option<char>>) -> bool {
    chars.all(|c| c.map(|c| put(arena, c)).is_some())
}

fn put(arena: &mut BytesMut, c: char) {
    arena.put_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Character by character where the standard's tables are not the server's for a few of them.
fn put_encoded(arena: &mut BytesMut, raw: &[u8], encoding: &'static Encoding, otherwise: &[Otherwise]) -> bool {
    if otherwise.is_empty() {
        return put_run(arena, raw, encoding);
    }
    let mut rest = raw;
    while !rest.is_empty() {
        let (character, behind) = rest.split_at(character_bytes(encoding, rest).min(rest.len()));
        let code = character.iter().fold(0, |code, byte| code << 8 | u32::from(*byte));
        let is_put = match otherwise.iter().find(|(c, _)| *c == code) {
            Some((_, UNDEFINED)) => false,
            _ if encoding == encoding_rs::BIG5 && BIG5_VENDORS.contains(&code) => false,
            Some((_, c)) => {
                put(arena, *c);
                true
            }
            None => put_run(arena, character, encoding),
        };
        if !is_put {
            return false;
        }
        rest = behind;
    }
    true
}

/// How many bytes the character at the start has, by its first ones.
fn character_bytes(encoding: &'static Encoding, raw: &[u8]) -> usize {
    match raw[0] {
        0..0x80 => 1,
        0x8f if encoding == encoding_rs::EUC_JP => 3,
        0xa0..=0xdf if encoding == encoding_rs::SHIFT_JIS => 1,
        0x80 if encoding != encoding_rs::EUC_KR && encoding != encoding_rs::BIG5 => 1,
        _ if encoding == encoding_rs::GB18030 && raw.get(1).is_some_and(u8::is_ascii_digit) => 4,
        _ => 2,
    }
}

fn put_run(arena: &mut BytesMut, raw: &[u8], encoding: &'static Encoding) -> bool {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let Some(room) = decoder.max_utf8_buffer_length_without_replacement(raw.len()) else { return false };
    let start = arena.len();
    arena.resize(start + room, 0);
    let (result, read, written) = decoder.decode_to_utf8_without_replacement(raw, &mut arena[start..], true);
    arena.truncate(start + written);
    result == DecoderResult::InputEmpty && read == raw.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(name: &str, raw: &'static [u8]) -> Option<String> {
        let text = Charset::named(name).unwrap().decode(Bytes::from_static(raw), &mut BytesMut::new())?;
        Some(String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn bytes_become_text() {
        let cases: [(&str, &'static [u8], &str); 27] = [
            ("utf8mb4", "물길 🌊".as_bytes(), "물길 🌊"),
            ("utf8", "é".as_bytes(), "é"),
            ("latin1", b"\x80 caf\xe9 \x81\x9d", "€ café \u{81}\u{9d}"),
            ("ascii", b"plain", "plain"),
            ("euckr", b"\xb9\xb0\xb1\xe6 ok", "물길 ok"),
            ("big5", b"\xa4\xa4\xa4\xe5", "中文"),
            ("gbk", b"\xd6\xd0\xce\xc4", "中文"),
            ("gb2312", b"\xd6\xd0", "中"),
            ("gb18030", b"\xd6\xd0\x81\x30\x81\x30\x94\x39\xda\x33", "中\u{80}💩"),
            ("sjis", b"\x93\xfa\x96{\xb1", "日本ｱ"),
            ("cp932", b"\x93\xfa\x87\x40", "日①"),
            ("ujis", b"\xc6\xfc\xcb\xdc\x8e\xb1", "日本ｱ"),
            ("eucjpms", b"\xc6\xfc\x8f\xb0\xa1", "日丂"),
            ("sjis", b"\x81\x5fa\x81\x60", "\\a〜"),
            ("cp932", b"\x81\x5fa\x81\x60", "＼a～"),
            ("ujis", b"\xa1\xc0\x8f\xa2\xb7", "\\~"),
            ("gb2312", b"\xa1\xa4", "・"),
            ("big5", b"\xa1\x45", "•"),
            ("ucs2", b"\x00a\xbb\x3c", "a물"),
            ("utf16", b"\xd8\x3c\xdf\x0a", "🌊"),
            ("utf16le", b"\x3c\xd8\x0a\xdf", "🌊"),
            ("utf32", b"\x00\x01\xf3\x0a", "🌊"),
            ("koi8r", b"\xd7\xcf\xc4\xc1", "вода"),
            ("cp1251", b"\xe2\xee\xe4\xe0", "вода"),
            ("greek", b"\xed\xe5\xf1\xfc", "νερό"),
            ("swe7", b"\\l }r ]", "Öl år Å"),
            ("tis620", b"\xb9\xe9\xd3", "น้ำ"),
        ];
        for (name, raw, want) in cases {
            assert_eq!(decode(name, raw).as_deref(), Some(want), "{name}");
        }
    }

    #[test]
    fn what_means_nothing_is_not_guessed() {
        let cases: [(&str, &'static [u8]); 12] = [
            ("utf8mb4", b"\xff"),
            ("utf8mb3", b"a\xed\xa0\x80"),
            ("ascii", b"\x80"),
            ("tis620", b"\xff"),
            ("swe7", b"\x7f"),
            ("euckr", b"\xb9"),
            ("utf16", b"\xd8\x3c"),
            ("utf16", b"\x00"),
            ("utf32", b"\x00\x11\x00\x00"),
            ("gb18030", b"\x81\x30\x81"),
            ("big5", b"\xa1\xc3"),
            ("big5", b"\xc6\xa1"),
        ];
        for (name, raw) in cases {
            assert_eq!(decode(name, raw), None, "{name}");
        }
    }

    #[test]
    fn collations_name_their_charset() {
        let cases = [
            (8, "latin1"),
            (33, "utf8mb3"),
            (45, "utf8mb4"),
            (63, "binary"),
            (255, "utf8mb4"),
            (309, "utf8mb4"),
            (250, "gb18030"),
            (19, "euckr"),
            (1043, "euckr"),
            (1248, "utf8mb4"),
            (2304, "utf8mb4"),
            (2048, "utf8mb3"),
            (608, "utf8mb4"),
            (120, "utf16"),
        ];
        for (id, want) in cases {
            assert_eq!(Charset::of_collation(id).map(|c| c.name), Some(want), "{id}");
        }
        assert_eq!(Charset::of_collation(5000), None);
        assert_eq!(Charset::named("klingon"), None);
    }

    #[test]
    fn text_that_is_the_same_in_utf8_is_a_slice_of_what_came() {
        let raw = Bytes::from_static(b"same");
        for name in ["utf8mb4", "latin1", "euckr", "ascii"] {
            let text = Charset::named(name).unwrap().decode(raw.clone(), &mut BytesMut::new()).unwrap();
            assert_eq!(text.as_ptr(), raw.as_ptr(), "{name}");
        }
    }
}
