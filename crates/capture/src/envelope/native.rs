//! A column's type in the database's own words, taken apart: `numeric(15,2)`, `timestamp(3) without time zone`, `int unsigned`,
//! `enum('BUY','SELL')`.

/// More members than an enum or a set can have (MySQL 8.4 Reference Manual, 13.3.6: 65,535).
const MEMBERS_MAX: usize = 65_535;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Native {
    /// Lower case, without what stands in parentheses: `timestamp without time zone`.
    pub name: String,
    /// The first number in the parentheses.
    pub length: Option<u32>,
    /// Of `enum('…')` and `set('…')`.
    pub members: Vec<String>,
}

impl Native {
    pub fn of(text: &str) -> Self {
        let open = text.find('(');
        let close = text.rfind(')');
        let (name, inner) = match (open, close) {
            (Some(open), Some(close)) if open < close => (format!("{}{}", &text[..open], &text[close + 1..]), &text[open + 1..close]),
            _ => (text.to_owned(), ""),
        };
        let name = name.trim().to_ascii_lowercase();
        let length = inner.split(',').next().and_then(|n| n.trim().parse().ok());
        let members = if inner.starts_with('\'') { members(inner) } else { Vec::new() };
        Self { name, length, members }
    }
}

/// `'BUY','it''s'`: a quote inside is doubled.
fn members(inner: &str) -> Vec<String> {
    let (mut members, mut rest) = (Vec::new(), inner);
    while let Some(quoted) = rest.trim_start_matches([',', ' ']).strip_prefix('\'') {
        let (mut member, mut chars) = (String::new(), quoted.char_indices());
        let mut end = quoted.len();
        while let Some((at, c)) = chars.next() {
            if c == '\'' && !quoted[at + 1..].starts_with('\'') {
                end = at + 1;
                break;
            }
            if c == '\'' {
                chars.next();
            }
            member.push(c);
        }
        members.push(member);
        rest = &quoted[end..];
        if members.len() == MEMBERS_MAX {
            break;
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_apart() {
        let check = |text: &str, name: &str, length: Option<u32>, members: &[&str]| {
            let native = Native::of(text);
            assert_eq!((native.name.as_str(), native.length), (name, length), "{text}");
            assert_eq!(native.members, members, "{text}");
        };
        check("numeric(15,2)", "numeric", Some(15), &[]);
        check("timestamp(3) without time zone", "timestamp without time zone", Some(3), &[]);
        check("bit varying(12)", "bit varying", Some(12), &[]);
        check("INT unsigned", "int unsigned", None, &[]);
        check("enum('BUY','it''s, (odd)','')", "enum", None, &["BUY", "it's, (odd)", ""]);
        check("set('a', 'b')", "set", None, &["a", "b"]);
        check("enum('a", "enum('a", None, &[]);
        check("", "", None, &[]);
        check(")(", ")(", None, &[]);
    }
}
