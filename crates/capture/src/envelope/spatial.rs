//! Points and geometries as Debezium's structs `io.debezium.data.geometry.Point` and `Geometry`: well-known binary (OGC 06-103r4, section
//! 8.2) in base64, and the spatial reference where the database has one.

use super::text::{push_float, push_int};
use super::value::push_base64;

/// `(1.5,-2)` of PostgreSQL. False, with nothing appended, if it is not a point.
pub(crate) fn push_point_text(out: &mut Vec<u8>, text: &str) -> bool {
    let inner = text.strip_prefix('(').and_then(|t| t.strip_suffix(')'));
    let Some((x, y)) = inner.and_then(|t| t.split_once(',')).and_then(|(x, y)| Some((x.parse().ok()?, y.parse().ok()?))) else {
        return false;
    };
    push_point(out, x, y, None, &wkb_point(x, y));
    true
}

fn wkb_point(x: f64, y: f64) -> Vec<u8> {
    [&[1, 1, 0, 0, 0][..], &x.to_le_bytes(), &y.to_le_bytes()].concat()
}

fn push_point(out: &mut Vec<u8>, x: f64, y: f64, srid: Option<u32>, wkb: &[u8]) {
    out.extend_from_slice(b"{\"x\":");
    push_json_float(out, x);
    out.extend_from_slice(b",\"y\":");
    push_json_float(out, y);
    out.push(b',');
    push_wkb_fields(out, srid, wkb);
}

fn push_wkb_fields(out: &mut Vec<u8>, srid: Option<u32>, wkb: &[u8]) {
    out.extend_from_slice(b"\"wkb\":");
    push_base64(out, wkb);
    out.extend_from_slice(b",\"srid\":");
    match srid {
        Some(srid) => push_int(out, u64::from(srid)),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

/// A number, or a quoted `NaN` or `Infinity`: JSON has no word for them, and this is what Debezium's converter writes.
pub(crate) fn push_json_float(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        push_float(out, value);
    } else {
        out.push(b'"');
        push_float(out, value);
        out.push(b'"');
    }
}

/// Well-known binary, or MySQL's internal form: four bytes of the spatial reference, little endian, before it (MySQL 8.4 Reference Manual,
/// 13.4.3). False, with nothing appended, if it is neither, or not a point where one is asked for.
pub(crate) fn push_geometry(out: &mut Vec<u8>, bytes: &[u8], as_point: bool) -> bool {
    let (srid, wkb) = match bytes.split_first_chunk::<4>() {
        _ if is_wkb(bytes) => (None, bytes),
        Some((srid, wkb)) if is_wkb(wkb) => (Some(u32::from_le_bytes(*srid)).filter(|s| *s != 0), wkb),
        _ => return false,
    };
    if !as_point {
        out.push(b'{');
        push_wkb_fields(out, srid, wkb);
        return true;
    }
    let Some((order, rest)) = wkb.split_first() else { return false };
    let number = |at: usize| {
        let bytes: [u8; 8] = rest.get(at..at + 8)?.try_into().ok()?;
        Some(if *order == 1 { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
    };
    match (number(4), number(12)) {
        (Some(x), Some(y)) if rest.len() == 20 => push_point(out, x, y, srid, wkb),
        _ => return false,
    }
    true
}

/// Whether the frame is that of a geometry: byte order and one of the seven types. A point's length tells it from MySQL's form of one
/// without a spatial reference, whose first five bytes are the same.
fn is_wkb(bytes: &[u8]) -> bool {
    let kind = match bytes {
        [1, rest @ ..] => rest.first_chunk::<4>().map(|b| u32::from_le_bytes(*b)),
        [0, rest @ ..] => rest.first_chunk::<4>().map(|b| u32::from_be_bytes(*b)),
        _ => None,
    };
    match kind {
        Some(1) => bytes.len() == 21,
        Some(2..=7) => true,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn points_of_both_databases() {
        let point = |write: &dyn Fn(&mut Vec<u8>) -> bool| {
            let mut out = Vec::new();
            write(&mut out).then(|| String::from_utf8(out).unwrap())
        };
        let want = r#"{"x":1.5,"y":-2.0,"wkb":"AQEAAAAAAAAAAAD4PwAAAAAAAADA","srid":null}"#;
        let wkb = wkb_point(1.5, -2.0);
        let internal = |srid: u32| [&srid.to_le_bytes()[..], &wkb].concat();
        assert_eq!(point(&|out| push_point_text(out, "(1.5,-2)")).unwrap(), want);
        assert_eq!(point(&|out| push_geometry(out, &wkb, true)).unwrap(), want);
        assert_eq!(point(&|out| push_geometry(out, &internal(0), true)).unwrap(), want);
        assert_eq!(point(&|out| push_geometry(out, &internal(4326), true)).unwrap(), want.replace("null", "4326"));
        assert_eq!(point(&|out| push_point_text(out, "(NaN,1)")).unwrap()[..16], *r#"{"x":"NaN","y":1"#);
        for bad in ["", "()", "(1)", "(1,2,3)", "1,2"] {
            assert_eq!(point(&|out| push_point_text(out, bad)), None, "{bad}");
        }
        for end in 0..wkb.len() {
            assert_eq!(point(&|out| push_geometry(out, &wkb[..end], true)), None);
        }
    }
}
