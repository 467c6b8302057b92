//! What may leave a captured database, as it is configured: columns, rows, operations, keys, disguises.

use super::units::{looked_up, reference};
use super::written::SourceSection;
use anyhow::{Context, Result, bail};
use mulgil_capture::change::Op;
use mulgil_capture::filter::{Comparison, Condition, Disguise, FilterOptions, Pattern, Salt};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default)]
pub struct FilterPlan {
    /// Without the hashed columns, whose salt is looked up when they are needed.
    options: FilterOptions,
    hashed: Vec<Pattern>,
    salt: Option<String>,
}

impl FilterPlan {
    pub fn new(name: &str, s: &SourceSection) -> Result<Self> {
        let key = |what: &str| format!("[source.{name}] {what}");
        let columns = |texts: &[String], what: &str| -> Result<Vec<Pattern>> {
            texts.iter().map(|t| Pattern::column(t).with_context(|| key(what))).collect()
        };
        let mut options = FilterOptions {
            include_columns: columns(&s.include_columns, "include_columns")?,
            exclude_columns: columns(&s.exclude_columns, "exclude_columns")?,
            ..FilterOptions::default()
        };
        for (column, n_chars) in &s.mask {
            options.disguises.push((Pattern::column(column).with_context(|| key("mask"))?, Disguise::Mask { n_chars: *n_chars }));
        }
        for (column, n_chars) in &s.truncate {
            options.disguises.push((Pattern::column(column).with_context(|| key("truncate"))?, Disguise::Truncate { n_chars: *n_chars }));
        }
        for text in &s.skip_operations {
            options.skip_operations.push(operation(text).with_context(|| key("skip_operations"))?);
        }
        for (table, names) in &s.keys {
            options.keys.push((Pattern::table(table).with_context(|| key("keys"))?, names.clone()));
        }
        for (table, conditions) in &s.rows {
            let conditions = conditions.iter().map(|(column, text)| Condition { column: column.clone(), comparison: comparison(text) });
            options.rows.push((Pattern::table(table).with_context(|| key("rows"))?, conditions.collect()));
        }
        let hashed = columns(&s.hash, "hash")?;
        if let Some(salt) = &s.salt {
            reference(&format!("source.{name}.salt"), salt)?;
        } else if !hashed.is_empty() {
            bail!("{} needs salt = \"env:NAME\" or \"file:PATH\": without one, short values can be found out by trying", key("hash"));
        }
        Ok(Self { options, hashed, salt: s.salt.clone() })
    }

    /// None: everything may leave as it is.
    pub fn options(&self, source: &str) -> Result<Option<FilterOptions>> {
        let o = &self.options;
        let is_empty =
            o.include_columns.is_empty() && o.exclude_columns.is_empty() && o.disguises.is_empty() && o.skip_operations.is_empty();
        if is_empty && o.keys.is_empty() && o.rows.is_empty() && self.hashed.is_empty() {
            return Ok(None);
        }
        let mut options = o.clone();
        if let Some(salt) = self.salt.as_ref().filter(|_| !self.hashed.is_empty()) {
            let key = format!("source.{source}.salt");
            let salt = Salt::new(looked_up(&key, salt)?.as_bytes())
                .with_context(|| format!("the salt that '{key}' refers to is too short: use 16 bytes or more"))?;
            options.disguises.extend(self.hashed.iter().map(|p| (p.clone(), Disguise::Hash { salt: salt.clone() })));
        }
        Ok(Some(options))
    }
}

fn operation(text: &str) -> Result<Op> {
    Ok(match text {
        "create" => Op::Create,
        "read" => Op::Read,
        "update" => Op::Update,
        "delete" => Op::Delete,
        "truncate" => Op::Truncate,
        "message" => Op::Message,
        other => bail!("'{other}' is not known: use create, read, update, delete, truncate and message"),
    })
}

/// A list is any of its values; a text is a value, or begins with `>=`, `<=`, `>`, `<`, `!=`, or is `null` or `not null`.
fn comparison(written: &super::written::ConditionText) -> Comparison {
    use super::written::ConditionText;
    let text = match written {
        ConditionText::Any(values) => return Comparison::In(values.clone()),
        ConditionText::One(text) => text.trim(),
    };
    let behind = |sign: &str| text.strip_prefix(sign).map(|rest| rest.trim().to_owned());
    match text {
        "null" => Comparison::IsNull,
        "not null" => Comparison::IsNotNull,
        _ => None
            .or_else(|| behind(">=").map(Comparison::AtLeast))
            .or_else(|| behind("<=").map(Comparison::AtMost))
            .or_else(|| behind("!=").map(|value| Comparison::NotIn(vec![value])))
            .or_else(|| behind(">").map(Comparison::Greater))
            .or_else(|| behind("<").map(Comparison::Less))
            .unwrap_or_else(|| Comparison::In(vec![text.to_owned()])),
    }
}

/// What was written of it, for telling a simulator's section from a captured database's.
pub fn keys_written(s: &SourceSection) -> Vec<&'static str> {
    let is_written = |map: &BTreeMap<String, usize>| !map.is_empty();
    let written = [
        ("include_columns", !s.include_columns.is_empty()),
        ("exclude_columns", !s.exclude_columns.is_empty()),
        ("mask", is_written(&s.mask)),
        ("truncate", is_written(&s.truncate)),
        ("hash", !s.hash.is_empty()),
        ("salt", s.salt.is_some()),
        ("skip_operations", !s.skip_operations.is_empty()),
        ("keys", !s.keys.is_empty()),
        ("rows", !s.rows.is_empty()),
    ];
    written.into_iter().filter(|(_, is)| *is).map(|(key, _)| key).collect()
}
