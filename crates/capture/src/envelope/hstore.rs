//! PostgreSQL's `hstore` text as a JSON object: `"a"=>"1", "b"=>NULL`. PostgreSQL documentation, appendix F, hstore.

use super::text::push_json_string;

/// Appends the object; false, with nothing appended, if the text is not an hstore.
pub(crate) fn push_hstore(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let before = out.len();
    let is_read = push_pairs(out, text).is_some();
    if !is_read {
        out.truncate(before);
    }
    is_read
}

fn push_pairs(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    let mut rest = text.trim_ascii();
    let mut scratch = Vec::new();
    out.push(b'{');
    while !rest.is_empty() {
        rest = unquote(rest, &mut scratch)?.trim_ascii_start();
        push_json_string(out, &scratch);
        out.push(b':');
        rest = rest.strip_prefix(b"=>")?.trim_ascii_start();
        if let Some(behind) = rest.strip_prefix(b"NULL") {
            out.extend_from_slice(b"null");
            rest = behind;
        } else {
            rest = unquote(rest, &mut scratch)?;
            push_json_string(out, &scratch);
        }
        rest = rest.trim_ascii_start();
        match rest.split_first() {
            Some((b',', behind)) if !behind.trim_ascii().is_empty() => {
                out.push(b',');
                rest = behind.trim_ascii_start();
            }
            Some(_) => return None,
            None => {}
        }
    }
    out.push(b'}');
    Some(())
}

/// Takes `"…"` off the front: a backslash stands before a quote and a backslash.
fn unquote<'a>(text: &'a [u8], into: &mut Vec<u8>) -> Option<&'a [u8]> {
    into.clear();
    let mut bytes = text.strip_prefix(b"\"")?.iter();
    loop {
        match bytes.next()? {
            b'"' => return Some(bytes.as_slice()),
            b'\\' => into.push(*bytes.next()?),
            byte => into.push(*byte),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::push_hstore;

    #[test]
    fn as_an_object() {
        let check = |text: &str, want: Option<&str>| {
            let mut out = b"before".to_vec();
            let got = push_hstore(&mut out, text.as_bytes()).then(|| String::from_utf8(out[6..].to_vec()).unwrap());
            assert_eq!(got.as_deref(), want, "{text}");
            assert!(want.is_some() || out == b"before");
        };
        check("", Some("{}"));
        check(r#""a"=>"1", "b"=>NULL"#, Some(r#"{"a":"1","b":null}"#));
        check(r#""q\"\\"=>"물, =>""#, Some(r#"{"q\"\\":"물, =>"}"#));
        for bad in ["a=>1", r#""a""#, r#""a"=>"#, r#""a"=>"1","#, r#""a"=>"1" "b"=>"2""#, r#""a"#, r#""a\"#] {
            check(bad, None);
        }
    }
}
