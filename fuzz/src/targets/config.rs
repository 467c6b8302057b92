//! The configuration: what a person wrote, down to the operators that it asks for.

use mulgil::config::{STOCKS, parse};
use mulgil::pipeline::plan::Plan;

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // A secret may be any file of the machine, which is no part of the input.
    if text.contains("file:") {
        return;
    }
    match parse(text) {
        Err(e) => assert!(!format!("{e:#}").trim().is_empty(), "an error without words"),
        Ok(checked) => match Plan::new(&checked) {
            Err(e) => assert!(!format!("{e:#}").trim().is_empty(), "an error without words"),
            Ok(plan) => {
                assert!(plan.streams.len() >= checked.streams.len());
                for shards in &plan.shards {
                    shards.operators(&checked).expect("operators that were made once can be made again");
                }
            }
        },
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let section = |head: &str| -> Vec<u8> {
        let from = STOCKS.find(head).unwrap_or(0);
        STOCKS[from..].lines().take(14).collect::<Vec<_>>().join("\n").into_bytes()
    };
    let small = "[stream.t]\nkind = \"trade\"\nbars = [\"1m\"]\n[feature.n]\nstream = \"t\"\nagg = \"count\"\nwindow = \"10s\"\n[rule.r]\nstream = \"t\"\nwhen = \"n > 3\"\n";
    vec![small.as_bytes().to_vec(), section("[log]"), section("[stream.trades]"), section("[feature."), section("[rule.large_amount]")]
}
