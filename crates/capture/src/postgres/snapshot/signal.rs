//! Words to a running source, in Debezium's notation: a row in the signal table (`id`, `type`, `data`), or a logical message with the prefix
//! [`SIGNAL_PREFIX`] and the content `{"type": …, "data": …}`.

use crate::change::{Change, Op, What};
use crate::datum::Datum;
use serde::Deserialize;

pub const SIGNAL_PREFIX: &str = "mulgil.signal";
/// More than any list of tables; a longer signal is refused.
const SIGNAL_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// `execute-snapshot`: these tables, each with its condition.
    Execute(Vec<(String, Option<String>)>),
    /// `stop-snapshot`: these tables, all if none is named.
    Stop(Vec<String>),
    /// `pause-snapshot`
    Pause,
    /// `resume-snapshot`
    Resume,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Data {
    data_collections: Vec<String>,
    r#type: Option<String>,
    additional_conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Condition {
    data_collection: String,
    filter: String,
}

#[derive(Deserialize)]
struct Message {
    r#type: String,
    #[serde(default)]
    data: serde_json::Value,
}

impl Signal {
    /// Of a row that was put into the signal table; `None` for every other change of it. The error says what is wrong with the signal.
    pub fn of_change(change: &Change) -> Option<Result<Self, String>> {
        let What::Row { table, after: Some(row), .. } = &change.what else { return None };
        if change.op != Op::Create {
            return None;
        }
        let column = |name: &str| match row.get(table.position(name)?)? {
            Datum::Text(text) | Datum::Json(text) => std::str::from_utf8(text).ok(),
            _ => None,
        };
        let Some(kind) = column("type") else { return Some(Err("a row of the signal table has no text in the column type".to_owned())) };
        Some(Self::parse(kind, column("data").unwrap_or("{}")))
    }

    /// Of a logical message with the prefix [`SIGNAL_PREFIX`].
    pub fn of_message(content: &[u8]) -> Result<Self, String> {
        if content.len() > SIGNAL_BYTES_MAX {
            return Err(format!("a signal is longer than {SIGNAL_BYTES_MAX} bytes"));
        }
        let message: Message = serde_json::from_slice(content).map_err(|e| format!("a signal is not {{\"type\": …, \"data\": …}}: {e}"))?;
        match message.data {
            serde_json::Value::Null => Self::parse(&message.r#type, "{}"),
            serde_json::Value::String(data) => Self::parse(&message.r#type, &data),
            data => Self::parse(&message.r#type, &data.to_string()),
        }
    }

    pub fn parse(kind: &str, data: &str) -> Result<Self, String> {
        if data.len() > SIGNAL_BYTES_MAX {
            return Err(format!("a signal is longer than {SIGNAL_BYTES_MAX} bytes"));
        }
        let data = if data.trim().is_empty() { "{}" } else { data };
        let data: Data = serde_json::from_str(data).map_err(|e| format!("the data of a signal {kind} cannot be read: {e}"))?;
        if let Some(other) = data.r#type.as_deref().filter(|t| !t.eq_ignore_ascii_case("incremental")) {
            return Err(format!("a snapshot of type {other} cannot be asked for while streaming: only incremental"));
        }
        match kind {
            "execute-snapshot" if data.data_collections.is_empty() => Err("execute-snapshot names no table in data-collections".to_owned()),
            "execute-snapshot" => {
                let condition =
                    |table: &str| data.additional_conditions.iter().find(|c| c.data_collection == table).map(|c| c.filter.clone());
                Ok(Self::Execute(data.data_collections.iter().map(|t| (t.clone(), condition(t))).collect()))
            }
            "stop-snapshot" => Ok(Self::Stop(data.data_collections)),
            "pause-snapshot" => Ok(Self::Pause),
            "resume-snapshot" => Ok(Self::Resume),
            other => Err(format!("a signal {other} is not known: execute-snapshot, stop-snapshot, pause-snapshot, resume-snapshot")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_debeziums() {
        let execute = r#"{"data-collections": ["public.a", "public.b"], "type": "incremental",
            "additional-conditions": [{"data-collection": "public.b", "filter": "price > 10"}]}"#;
        let expected = vec![("public.a".to_owned(), None), ("public.b".to_owned(), Some("price > 10".to_owned()))];
        assert_eq!(Signal::parse("execute-snapshot", execute), Ok(Signal::Execute(expected)));
        assert_eq!(Signal::parse("stop-snapshot", r#"{"data-collections": ["public.a"]}"#), Ok(Signal::Stop(vec!["public.a".to_owned()])));
        assert_eq!(Signal::parse("stop-snapshot", ""), Ok(Signal::Stop(vec![])));
        assert_eq!(Signal::of_message(br#"{"type": "pause-snapshot"}"#), Ok(Signal::Pause));
        assert_eq!(Signal::of_message(br#"{"type": "resume-snapshot", "data": "{}"}"#), Ok(Signal::Resume));
    }

    #[test]
    fn what_is_no_signal_says_why() {
        for (kind, data, why) in [
            ("execute-snapshot", "{}", "names no table"),
            ("execute-snapshot", r#"{"data-collections": ["a"], "type": "blocking"}"#, "only incremental"),
            ("execute-snapshot", "[", "cannot be read"),
            ("drop-everything", "{}", "is not known"),
        ] {
            assert!(Signal::parse(kind, data).unwrap_err().contains(why), "{kind} {data}");
        }
        assert!(Signal::of_message(b"\xff").is_err());
    }
}
