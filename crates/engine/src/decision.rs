//! Decisions: what a shard cannot know from its rows (the partition went idle, a bounded input has ended, rules were reloaded).
//!
//! The binary commits each decision with the shard's outputs, under the position at which it was taken, and hands it back at the same
//! position when it replays. As JSON: `{"at":[17,0],"decision":"advance_watermark","to":1561309495124000}` (with `"at_most":50000` where the rest is
//! owed), `"decision":"close_ahead","to":1561309495124000,"at_most":50000`, `"decision":"finish"`, or `"decision":"tell","operator":"rules","message":"…"`; `at` is [input offset, ordinal at that offset], times are microseconds.

use mulgil_model::position::Position;
use mulgil_model::time::EventTime;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case", deny_unknown_fields)]
pub enum Decision {
    /// The partition is idle: the watermark moves without a row.
    AdvanceWatermark {
        #[serde(with = "micros")]
        to: EventTime,
        /// Windows to close now. The others are owed: the next decision goes on with them, and no row is taken before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_most: Option<usize>,
    },
    /// The next row will move the watermark to `to` and close many windows: so many of them now, the earliest ones. The watermark stays.
    CloseAhead {
        #[serde(with = "micros")]
        to: EventTime,
        at_most: usize,
    },
    /// A bounded input has ended: every window closes. Rows that come later are late.
    Finish,
    /// Something for one operator, in its own words: new rules, a switched mode.
    Tell { operator: String, message: String },
}

/// A decision and where it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// The shard's position just before the decision.
    #[serde(with = "position")]
    pub at: Position,
    #[serde(flatten)]
    pub decision: Decision,
}

mod micros {
    use super::EventTime;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(time: &EventTime, to: S) -> Result<S::Ok, S::Error> {
        time.micros().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<EventTime, D::Error> {
        i64::deserialize(from).map(EventTime)
    }
}

mod position {
    use super::Position;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(at: &Position, to: S) -> Result<S::Ok, S::Error> {
        [at.commit, at.ordinal].serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Position, D::Error> {
        <[u64; 2]>::deserialize(from).map(|[commit, ordinal]| Position::new(commit, ordinal))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn json_round_trip() {
        let check = |decision: Decision, json: &str| {
            let decided = Decided { at: Position::new(17, 2), decision };
            assert_eq!(serde_json::to_string(&decided).unwrap(), json);
            assert_eq!(serde_json::from_str::<Decided>(json).unwrap(), decided);
        };
        let advance = |at_most| Decision::AdvanceWatermark { to: EventTime(-5), at_most };
        check(advance(None), r#"{"at":[17,2],"decision":"advance_watermark","to":-5}"#);
        check(advance(Some(9)), r#"{"at":[17,2],"decision":"advance_watermark","to":-5,"at_most":9}"#);
        check(Decision::CloseAhead { to: EventTime(-5), at_most: 9 }, r#"{"at":[17,2],"decision":"close_ahead","to":-5,"at_most":9}"#);
        check(Decision::Finish, r#"{"at":[17,2],"decision":"finish"}"#);
        check(
            Decision::Tell { operator: "rules".into(), message: "{}".into() },
            r#"{"at":[17,2],"decision":"tell","operator":"rules","message":"{}"}"#,
        );
        assert!(serde_json::from_str::<Decided>(r#"{"at":[17,2],"decision":"explode"}"#).is_err());
    }
}
