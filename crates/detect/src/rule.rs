//! A rule: a SQL condition over the row's columns and its features, or a value with levels.
//!
//! - A plain rule alerts on every row for which `when` is true, and then is silent for its key during `cooldown` (default 30 minutes).
//! - With `transitions_only` it alerts on a row for which `when` is true after a row of the key for which it was false, or none.
//! - With `value` and `levels` it alerts whenever the level changes: `levels = [0.5, 1.0, 2.0]` makes level 1 of values in [0.5, 1.0), level
//!   2 of [1.0, 2.0), level 3 of 2.0 and more, and level 0 of what is below; negative thresholds make levels -1, -2 … of values at or
//!   below them. A change away from zero is `raised`, towards zero `lowered`, to zero `cleared`. A key begins at level 0. `when`, if there is
//!   one, says which rows count.
//!
//! Null is not known: a plain rule stays silent, transitions and levels stay what they were. Transitions and levels have no cool-down
//! unless one is given; a change inside it is reported when it still holds afterwards.

use crate::alert::{Mode, score, version_of};
use crate::error::DetectError;
use crate::expression::Expression;
use crate::feature::Feature;
use crate::message::Template;
use crate::scope::Scope;
use crate::spelling;
use mulgil_model::schema::StreamSchema;
use mulgil_model::streams::Severity;
use mulgil_model::time::parse_duration;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// The cool-down of a plain rule.
pub const COOLDOWN_DEFAULT: &str = "30m";

/// The most levels of one rule.
pub const LEVELS_MAX: usize = 16;

/// What a message of ours repeats at most: characters of the condition, and values. The alert's other columns have all of it.
const MESSAGE_CONDITION_MAX: usize = 200;
const MESSAGE_VALUES_MAX: usize = 8;

/// A rule as it is written in the config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// The section's name: `[rule.volume_surge]`.
    #[serde(default)]
    pub name: String,
    pub stream: String,
    #[serde(default)]
    pub when: Option<String>,
    /// With `levels`: what is measured against them.
    #[serde(default)]
    pub value: Option<String>,
    #[serde(default)]
    pub levels: Option<Vec<f64>>,
    /// low, medium, high or critical; medium when not said.
    #[serde(default = "medium")]
    pub severity: String,
    /// Places the rule inside its severity's band of scores.
    #[serde(default = "one")]
    pub weight: f64,
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default)]
    pub cooldown: Option<String>,
    #[serde(default)]
    pub transitions_only: bool,
    #[serde(default)]
    pub mode: Mode,
}

fn medium() -> String {
    "medium".to_owned()
}

fn one() -> f64 {
    1.0
}

/// A rule, compiled for one stream.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: String,
    /// Under which its state is kept.
    pub id: u64,
    pub version: String,
    pub severity: Severity,
    pub score: f64,
    pub mode: Mode,
    /// Microseconds; 0 for none.
    pub cooldown: i64,
    pub test: Test,
    pub message: Template,
    pub condition: String,
    pub thresholds: String,
    /// What the evidence consists of: indices in the scope.
    pub columns: Vec<usize>,
}

// One per rule: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone)]
pub enum Test {
    Each { when: Expression },
    Transition { when: Expression },
    Levels { when: Option<Expression>, level: Expression, levels: Levels },
}

impl Rule {
    pub fn parse(spec: &RuleSpec, schema: &StreamSchema, features: &[Feature], scope: &Scope) -> Result<Self, DetectError> {
        Self::try_parse(spec, schema, features, scope).map_err(|reason| DetectError::Rule { rule: spec.name.clone(), reason })
    }

    fn try_parse(spec: &RuleSpec, schema: &StreamSchema, features: &[Feature], scope: &Scope) -> Result<Self, String> {
        check_name(&spec.name)?;
        let severity = parse_severity(&spec.severity)?;
        if !(spec.weight >= 0.0 && spec.weight.is_finite()) {
            return Err(format!("weight must be 0 or more, it is {}", spec.weight));
        }
        let test = parse_test(spec, scope)?;
        let cooldown = parse_cooldown(spec, &test)?;
        let columns = test.columns();
        let condition = test.condition(spec, scope)?;
        let message = Template::parse(&spec.message.clone().unwrap_or_else(|| test.default_message(scope, schema)), scope)?;
        let version = version_of(&version_text(spec, &test, cooldown, &columns, features, scope.first_feature(schema)));
        Ok(Self {
            name: spec.name.clone(),
            id: xxh3_64(spec.name.as_bytes()),
            version,
            severity,
            score: score(severity, spec.weight),
            mode: spec.mode,
            cooldown,
            thresholds: test.thresholds(),
            test,
            message,
            condition,
            columns,
        })
    }

    /// Scope indices that must be there for the rule and its message.
    pub fn needs(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().copied().chain(self.message.columns())
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
    if valid { Ok(()) } else { Err("a rule's name is made of a-z, 0-9, '_' and '-' and begins with a letter".to_owned()) }
}

pub(crate) fn parse_severity(text: &str) -> Result<Severity, String> {
    Severity::parse(text).ok_or_else(|| {
        let known = Severity::ALL.map(Severity::as_str);
        format!("there is no severity '{}'{} (there are {})", spelling::shown(text), spelling::hint(text, known), known.join(", "))
    })
}

fn parse_test(spec: &RuleSpec, scope: &Scope) -> Result<Test, String> {
    let when = spec.when.as_deref().map(|text| Expression::condition(text, scope)).transpose()?;
    match (&spec.value, &spec.levels, when) {
        (None, None, Some(when)) if spec.transitions_only => Ok(Test::Transition { when }),
        (None, None, Some(when)) => Ok(Test::Each { when }),
        (None, None, None) => Err("it needs a condition: when = \"…\"".to_owned()),
        (Some(value), Some(levels), when) => {
            let levels = Levels::new(levels)?;
            // Alone first, so that its errors speak of what the user wrote.
            let measured = Expression::value(value, scope)?;
            if !measured.is_number() {
                return Err(format!("value '{}' is not a number", measured.text()));
            }
            let level = Expression::value(&levels.sql(value), scope)?;
            Ok(Test::Levels { when, level, levels })
        }
        (Some(_), None, _) => Err("value needs levels = [0.5, 1.0, …]".to_owned()),
        (None, Some(_), _) => Err("levels need a value = \"…\" to measure".to_owned()),
    }
}

fn parse_cooldown(spec: &RuleSpec, test: &Test) -> Result<i64, String> {
    match (&spec.cooldown, test) {
        (Some(text), _) if text == "0" => Ok(0),
        (Some(text), _) => parse_duration(text).map_err(|e| format!("cooldown: {e}")),
        (None, Test::Each { .. }) => Ok(parse_duration(COOLDOWN_DEFAULT).expect("invariant: the default is a duration")),
        (None, _) => Ok(0),
    }
}

/// All that changes what the rule says when; not how it says it.
fn version_text(spec: &RuleSpec, test: &Test, cooldown: i64, columns: &[usize], features: &[Feature], first_feature: usize) -> String {
    let expressions: Vec<&str> = test.expressions().map(Expression::text).collect();
    let used = columns.iter().filter_map(|i| features.get(i.checked_sub(first_feature)?)).map(|f| f.text.as_str());
    let used: Vec<&str> = used.collect();
    format!("{}\n{cooldown} {} {} {}\n{}", expressions.join("\n"), spec.transitions_only, spec.severity, spec.weight, used.join("\n"))
}

impl Test {
    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let (first, second) = match self {
            Self::Each { when } | Self::Transition { when } => (Some(when), None),
            Self::Levels { when, level, .. } => (when.as_ref(), Some(level)),
        };
        first.into_iter().chain(second)
    }

    fn columns(&self) -> Vec<usize> {
        let mut columns = Vec::new();
        for index in self.expressions().flat_map(|e| e.columns()) {
            if !columns.contains(index) {
                columns.push(*index);
            }
        }
        columns
    }

    fn condition(&self, spec: &RuleSpec, scope: &Scope) -> Result<String, String> {
        let Self::Levels { when, levels, .. } = self else {
            return Ok(self.expressions().map(Expression::text).collect());
        };
        let value = Expression::value(spec.value.as_deref().unwrap_or_default(), scope)?;
        let gate = when.as_ref().map_or_else(String::new, |w| format!(" where {}", w.text()));
        Ok(format!("{} at levels {}{gate}", value.text(), levels.text()))
    }

    fn thresholds(&self) -> String {
        if let Self::Levels { levels, .. } = self {
            return format!("{{\"levels\":[{}]}}", levels.text());
        }
        self.expressions().map(Expression::thresholds).collect()
    }

    /// `{key}: quantity {quantity} is {quantity / ema:1} x ema (threshold 50 x)` where the condition is of that form, else the condition
    /// with the values of everything in it.
    fn default_message(&self, scope: &Scope, schema: &StreamSchema) -> String {
        let columns = self.columns();
        let named = columns.iter().filter(|i| **i != schema.key).map(|i| format!("{0} {{{0}}}", scope.name(*i)));
        let values: Vec<String> = named.take(MESSAGE_VALUES_MAX).collect();
        let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
        match self {
            Self::Each { when } | Self::Transition { when } => match when.as_multiple() {
                Some((x, k, of)) => format!("{{key}}: {x} {{{x}}} is {{{x} / {of}:1}} x {of} (threshold {k} x)"),
                None => format!("{{key}}: {}{values}", braced(&spelling::shown_within(when.text(), MESSAGE_CONDITION_MAX))),
            },
            Self::Levels { .. } => format!("{{key}}: level {{level}} {{state}}{values}"),
        }
    }
}

fn braced(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// The thresholds of a rule with levels, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels(Vec<f64>);

impl Levels {
    fn new(levels: &[f64]) -> Result<Self, String> {
        let mut sorted = levels.to_vec();
        sorted.sort_by(f64::total_cmp);
        let distinct = sorted.windows(2).all(|w| w[0] < w[1]);
        let usable = sorted.iter().all(|l| l.is_finite() && *l != 0.0);
        if levels.is_empty() || levels.len() > LEVELS_MAX || !distinct || !usable {
            return Err(format!("levels must be 1 to {LEVELS_MAX} different numbers other than 0"));
        }
        Ok(Self(sorted))
    }

    /// One SQL expression that gives the level, so that decimals are compared exactly and by column.
    fn sql(&self, value: &str) -> String {
        let up = self.0.iter().filter(|l| **l > 0.0).enumerate();
        let down = self.0.iter().rev().filter(|l| **l < 0.0).enumerate();
        let mut cases: Vec<String> = up.map(|(i, l)| format!("WHEN ({value}) >= {l} THEN {}", i + 1)).collect();
        cases.reverse();
        let mut falls: Vec<String> = down.map(|(i, l)| format!("WHEN ({value}) <= {l} THEN -{}", i + 1)).collect();
        falls.reverse();
        format!("CASE {} {} WHEN ({value}) IS NOT NULL THEN 0 END", cases.join(" "), falls.join(" "))
    }

    /// The threshold that `level` stands for; `0` for none.
    pub fn name(&self, level: i32) -> String {
        let nth = |mut of: Box<dyn Iterator<Item = &f64> + '_>| {
            of.nth(level.unsigned_abs() as usize - 1).map_or_else(String::new, f64::to_string)
        };
        match level {
            0 => "0".to_owned(),
            1.. => nth(Box::new(self.0.iter().filter(|l| **l > 0.0))),
            _ => nth(Box::new(self.0.iter().rev().filter(|l| **l < 0.0))),
        }
    }

    fn text(&self) -> String {
        let all: Vec<String> = self.0.iter().map(f64::to_string).collect();
        all.join(", ")
    }
}

/// What to call a change of level.
pub fn change(from: i32, to: i32) -> &'static str {
    match to {
        0 => "cleared",
        _ if from.signum() == to.signum() && to.abs() < from.abs() => "lowered",
        _ => "raised",
    }
}
