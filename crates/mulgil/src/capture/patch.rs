//! What has changed of a JSON value since it was written last: of a map its members, of a list of the same length its items, so that notes of
//! five hundred tables cost a few bytes where one of them goes on.
//!
//! ```text
//! {"=": value}                          it is another value now
//! {"in": {"name": patch, …}, "-": […]}  members of a map, and those that are gone; items of a list by their place
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Deeper values are written whole.
const DEPTH_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Patch {
    Is {
        #[serde(rename = "=")]
        value: Value,
    },
    Within {
        #[serde(rename = "in")]
        members: BTreeMap<String, Patch>,
        #[serde(rename = "-", default, skip_serializing_if = "Vec::is_empty")]
        gone: Vec<String>,
    },
}

impl Patch {
    /// `None`: nothing has changed.
    pub fn between(old: &Value, new: &Value) -> Option<Self> {
        Self::below(old, new, 0)
    }

    fn below(old: &Value, new: &Value, depth: usize) -> Option<Self> {
        let is = || Some(Self::Is { value: new.clone() });
        match (old, new) {
            (Value::Object(old), Value::Object(new)) if depth < DEPTH_MAX => {
                let changed = new.iter().filter_map(|(name, new)| {
                    let patch = match old.get(name) {
                        Some(old) => Self::below(old, new, depth + 1)?,
                        None => Self::Is { value: new.clone() },
                    };
                    Some((name.clone(), patch))
                });
                let members: BTreeMap<String, Self> = changed.collect();
                let gone: Vec<String> = old.keys().filter(|name| !new.contains_key(*name)).cloned().collect();
                (!members.is_empty() || !gone.is_empty()).then_some(Self::Within { members, gone })
            }
            (Value::Array(old), Value::Array(new)) if depth < DEPTH_MAX && old.len() == new.len() => {
                let pairs = old.iter().zip(new).enumerate();
                let members: BTreeMap<String, Self> =
                    pairs.filter_map(|(at, (old, new))| Some((at.to_string(), Self::below(old, new, depth + 1)?))).collect();
                (!members.is_empty()).then_some(Self::Within { members, gone: Vec::new() })
            }
            (old, new) if old == new => None,
            _ => is(),
        }
    }

    /// Makes the new value of the old one. `false`: it is not of that value.
    #[must_use]
    pub fn apply(self, value: &mut Value) -> bool {
        match (self, value) {
            (Self::Is { value: new }, value) => *value = new,
            (Self::Within { members, gone }, Value::Object(map)) => return within(map, members, &gone),
            (Self::Within { members, gone }, Value::Array(items)) if gone.is_empty() => {
                for (at, patch) in members {
                    let item = at.parse().ok().and_then(|at: usize| items.get_mut(at));
                    if !item.is_some_and(|item| patch.apply(item)) {
                        return false;
                    }
                }
            }
            _ => return false,
        }
        true
    }
}

fn within(map: &mut Map<String, Value>, members: BTreeMap<String, Patch>, gone: &[String]) -> bool {
    for name in gone {
        map.remove(name);
    }
    members.into_iter().all(|(name, patch)| match patch {
        Patch::Is { value } => {
            map.insert(name, value);
            true
        }
        patch => map.get_mut(&name).is_some_and(|value| patch.apply(value)),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Through text, as it is stored.
    fn check(old: Value, new: Value, expected: Value) {
        let patch = Patch::between(&old, &new).unwrap();
        let stored = serde_json::to_string(&patch).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&stored).unwrap(), expected);
        let mut value = old;
        assert!(serde_json::from_str::<Patch>(&stored).unwrap().apply(&mut value));
        assert_eq!(value, new);
    }

    #[test]
    fn what_changed_is_written_and_nothing_else() {
        check(json!({"a": [1], "b": [2]}), json!({"a": [1, 3], "b": [2]}), json!({"in": {"a": {"=": [1, 3]}}}));
        check(json!({"a": 1, "b": 2}), json!({"b": 2, "c": null}), json!({"in": {"c": {"=": null}}, "-": ["a"]}));
        check(json!([{"n": 1, "t": "x"}, {"n": 2}]), json!([{"n": 1, "t": "x"}, {"n": 9}]), json!({"in": {"1": {"in": {"n": {"=": 9}}}}}));
        check(json!({"a": {"in": 1}}), json!({"a": {"in": 2, "=": 3}}), json!({"in": {"a": {"in": {"in": {"=": 2}, "=": {"=": 3}}}}}));
        check(json!({}), json!([]), json!({"=": []}));
        check(json!({"a": {"b": 1}}), json!({"a": {}}), json!({"in": {"a": {"in": {}, "-": ["b"]}}}));
        assert_eq!(Patch::between(&json!({"a": [{"b": 1}]}), &json!({"a": [{"b": 1}]})), None);
    }

    #[test]
    fn what_is_nested_deeper_is_written_whole() {
        let nested = |n: i32| (0..20).fold(json!(n), |inner, _| json!({"a": inner, "b": 1}));
        let patch = Patch::between(&nested(1), &nested(2)).unwrap();
        let mut value = nested(1);
        assert!(patch.apply(&mut value));
        assert_eq!(value, nested(2));
    }

    #[test]
    fn a_patch_of_another_value_is_refused() {
        for (patch, mut value) in [
            (json!({"in": {"a": {"in": {}}}}), json!({})),
            (json!({"in": {"7": {"=": 1}}}), json!([1])),
            (json!({"in": {"x": {"=": 1}}}), json!([1])),
            (json!({"in": {}, "-": ["a"]}), json!([1])),
            (json!({"in": {}}), json!(1)),
        ] {
            assert!(!serde_json::from_value::<Patch>(patch.clone()).unwrap().apply(&mut value), "{patch}");
        }
    }
}
