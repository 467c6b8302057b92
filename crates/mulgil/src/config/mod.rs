//! The configuration, in two stages: what was written (`written.rs`), and what it means once checked (`checked.rs`).

pub mod captured;
pub mod checked;
pub mod filtered;
pub mod nearest;
pub mod units;
pub mod written;

use crate::cli::Where;
use anyhow::{Context, Result, anyhow};
use checked::Checked;
use std::path::Path;
use written::Written;

/// What `mulgil` runs when no configuration is given.
pub const STOCKS: &str = include_str!("../../../../examples/stocks.toml");

/// Reads and checks the configuration that the command line names.
pub fn load(at: &Where) -> Result<Checked> {
    let mut checked = match &at.config {
        Some(file) => read(file)?,
        None => parse(STOCKS).context("in the built-in stocks example")?,
    };
    if let Some(dir) = &at.data {
        checked.log.dir.clone_from(dir);
    }
    Ok(checked)
}

fn read(file: &Path) -> Result<Checked> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the configuration {}", file.display()))?;
    parse(&text).with_context(|| format!("in {}", file.display()))
}

pub fn parse(text: &str) -> Result<Checked> {
    let written: Written = toml::from_str(text).map_err(|error| located(text, &error))?;
    Checked::new(&written)
}

/// A TOML error with its line, and with the nearest known name where a key is unknown.
fn located(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let what = nearest::explain(error.message());
    match error.span() {
        Some(span) => anyhow!("line {}: {what}", 1 + text[..span.start.min(text.len())].matches('\n').count()),
        None => anyhow!("{what}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, want: Expect) {
        let said = parse(text).map_or_else(|e| format!("{e:#}"), |_| "ok".to_owned());
        want.assert_eq(&said);
    }

    #[test]
    fn the_built_in_example_is_right() {
        check(STOCKS, expect!["ok"]);
        check("", expect!["ok"]);
    }

    #[test]
    fn mistakes_are_named() {
        check("[strema.trades]", expect!["line 1: unknown key 'strema': did you mean 'stream'?"]);
        check("[stream.t]\nkind = \"trade\"\ntimezome = \"UTC\"", expect!["line 3: unknown key 'timezome': did you mean 'timezone'?"]);
        check("[stream.t]\nkind = \"trad\"", expect!["[stream.t] kind 'trad' is not known: use trade or plain"]);
        check(
            "[stream.T]\nkind = \"trade\"",
            expect!["[stream.T]: 'T' is not a valid stream name: use 1 to 200 of a-z, 0-9, '.', '_' and '-', not starting with '.'"],
        );
        check(
            "[stream.t]\nkind = \"trade\"\nallowed_lateness = \"1 hour\"",
            expect![
                "in 't.allowed_lateness': '1 hour' is not a duration: write a whole number and a unit, such as 500ms, 10s, 5m, 1h or 7d"
            ],
        );
        check("[stream.t]\nkind = \"trade\"\npartitions = 0", expect!["[stream.t] partitions must be 1 to 1024"]);
        check(
            "[stream.t]\nkind = \"trade\"\ntimezone = \"Asia/Soul\"",
            expect!["[stream.t] time zone 'Asia/Soul' is not known: did you mean 'Asia/Seoul'?"],
        );
        check(
            "[source.s]\ntype = \"simulator\"\nstream = \"trades\"",
            expect!["[source.s] feeds the stream 'trades', which is not configured: add [stream.trades]"],
        );
        check(
            "[source.s]\ntype = \"posgres\"",
            expect!["[source.s] type 'posgres' is not known here: use postgres, mysql or simulator (HTTP ingest and files need no source)"],
        );
        check(
            "[source.s]\ntype = \"simulator\"\nslot = \"a\"",
            expect!["[source.s] slot is a key of a captured database, not of the simulator"],
        );
        check(
            "[source.s]\ntype = \"postgres\"\nrate = 1.0",
            expect!["[source.s] rate is a key of the simulator, not of a captured database"],
        );
        check(
            "[source.s]\ntype = \"postgres\"\nurl = \"postgres://a:b@c\"",
            expect!["'source.s.url' must refer to a secret as env:NAME or file:PATH, not contain it"],
        );
        check(
            "[source.s]\ntype = \"mysql\"\nurl = \"env:U\"\ntables = [\"orders\"]",
            expect![[r#"[source.s] tables: 'orders' has no schema: write "shop.orders" (database and table)"#]],
        );
        check(
            "[source.s]\ntype = \"mysql\"\nurl = \"env:U\"\ntables = [\"shop.orders\"]\nslot = \"x\"",
            expect![[r#"[source.s] slot is a key of type = "postgres""#]],
        );
        check(
            "[source.s]\ntype = \"simulator\"\nstream = \"trades\"\nallow_generate = true",
            expect!["[source.s] allow_generate is a key of a captured database, not of the simulator"],
        );
        check(
            "[source.s]\ntype = \"postgres\"\nurl = \"env:U\"\ntables = [\"public.t\"]\n[stream.t]\nfrom = \"x.public.t\"",
            expect!["[stream.t] from 'x.public.t': there is no captured database 'x': there are s"],
        );
        check(
            "[[serve.keys]]\nname = \"a\"\nscopes = [\"read\"]\nkey = \"secret\"",
            expect!["'serve.keys.a' must refer to a secret as env:NAME or file:PATH, not contain it"],
        );
        check(
            "[log]\nsegment = \"64 parsecs\"",
            expect!["'64 parsecs' in 'log.segment' is not a size: write a whole number and a unit, such as 512MB or 20GB"],
        );
    }
}
