//! Detectors by what they raise, and the errors of their configs.

use crate::harness::{bar_schema, run, show, trade_rows, trade_schema};
use expect_test::expect;
use mulgil_detect::detectors::{DETECTORS, DetectorConfig, build};

fn config(text: &str) -> DetectorConfig {
    toml::from_str(&format!("name = 'pumps'\nstream = 'trades'\n{text}")).unwrap()
}

/// Six quiet minutes, then a burst of buys in few milliseconds with a rising price.
fn pump() -> String {
    let mut rows = String::new();
    for minute in 0..6 {
        rows += &format!("ADX {} 100 1 BUY\nADX {} 100 1 BUY\nADX {} 100 1 SELL\n", minute * 60, minute * 60, minute * 60 + 20);
    }
    for i in 0..12 {
        rows += &format!("ADX {:.3} {} 5 BUY\n", 365.0 + f64::from(i / 4) / 1000.0, 104 + i);
    }
    rows + "ADX 366 90 1 SELL\nADX 367 130 1 BUY\nADX 367 130 1 BUY\n"
}

#[test]
fn rush_orders() {
    let schema = trade_schema();
    let settings = config("type = 'rush_order'\nmin_obs = 5\nz_min = 8\nseverity = 'critical'");
    let make = || build(&settings, &schema).unwrap();
    let columns = ["rule", "key", "event_time", "severity", "message", "evidence", "thresholds", "input_offset", "first_offset"];
    let rows = trade_rows(&pump());
    let whole = show(&run(&make, &rows, &[], false), &columns);
    let cuts: Vec<usize> = (0..rows.len()).collect();
    assert_eq!(whole, show(&run(&make, &rows, &cuts, true), &columns));
    expect![[r#"
        pumps | ADX | "2026-01-01T00:06:05.002Z" | critical | ADX: 11 rush orders within 60 s, 9.0 sigma above the usual (threshold 8), price 1.102 x its recent mean | {"rush_orders":11,"z":9.0,"mean":2.0,"sigma":1.0,"mean_price":103.41379310344827,"price":114} | {"z":8.0,"rush_orders":10,"price_ratio":1.03} | 128 | 118
    "#]].assert_eq(&whole);
    // Before its warm-up it says nothing; nor does a burst without a rising price.
    let quiet = |text: &str, table: &str| show(&run(&|| build(&config(text), &schema).unwrap(), &trade_rows(table), &[], false), &["rule"]);
    assert_eq!(quiet("type = 'rush_order'\nmin_obs = 7\nz_min = 8", &pump()), "");
    assert_eq!(quiet("type = 'rush_order'\nmin_obs = 5\nz_min = 8\nprice_ratio = 1.5", &pump()), "");
    assert_eq!(quiet("type = 'rush_order'\nmin_obs = 5\nz_min = 8\nmode = 'off'", &pump()), "");
    assert_eq!(quiet("type = 'rush_order'", &pump()), "");
}

#[test]
fn errors_name_the_detector() {
    let error = |text: &str| build(&config(text), &trade_schema()).err().map_or_else(|| "ok".to_owned(), |e| e.to_string()) + "\n";
    let cases = [
        "type = 'rush_orders'",
        "type = 'rush_order'\nzmin = 3",
        "type = 'rush_order'\nz_min = 'high'",
        "type = 'rush_order'\nz_min = -1",
        "type = 'rush_order'\nbucket = 60",
        "type = 'rush_order'\nbucket = '1ms'",
        "type = 'rush_order'\nwindow = '400d'",
        "type = 'rush_order'\nmin_obs = 5000",
        "type = 'rush_order'\nseverity = 'loud'",
        "type = 'rush_order'\nbucket = '10s'\nz_min = 30\ncount_min = 5\nmode = 'shadow'",
    ];
    expect![[r#"
        there is no detector 'rush_orders': did you mean 'rush_order'?; known detectors: rush_order
        detector 'pumps': there is no parameter 'zmin': did you mean 'z_min'? (there are bucket, window, price_window, min_obs, z_min, count_min, price_ratio, sigma_floor, cooldown)
        detector 'pumps': z_min must be a number above 0, it is Text("high")
        detector 'pumps': z_min must be above 0, it is -1
        detector 'pumps': bucket must be a duration such as "60s", it is Int(60)
        detector 'pumps': bucket must be 1s or more, and window and price_window 2 to 10000 buckets
        detector 'pumps': bucket must be 1s or more, and window and price_window 2 to 10000 buckets
        detector 'pumps': min_obs must be 1 to 1440 buckets, as many as the window has
        detector 'pumps': there is no severity 'loud': did you mean 'low'? (there are low, medium, high, critical)
        ok
    "#]].assert_eq(&cases.map(error).concat());
    let error = build(&config("type = 'rush_order'"), &bar_schema()).err().unwrap().to_string();
    assert_eq!(error, "detector 'pumps': it needs a stream of trades (kind = \"trade\"), 'trades.bars.1m' is none");
    assert_eq!(DETECTORS.iter().map(|d| d.name).collect::<Vec<_>>(), ["rush_order"]);
}
