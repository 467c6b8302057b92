"""Scores alerts against the labelled pump events, by the protocol of shared/data/README.md.

usage: score.py prepare TRADES_DIR OUT.csv.zst      the trades of all files, each once, in time order; prints {"rows": …, "dropped": …, "symbol_days": …}
       score.py score LABELS.csv ALERTS.csv DAYS    prints {"events", "hits", "false_alerts", "precision", "recall", "f1", "false_per_symbol_day"}

Two files of one symbol may cover the same days. For bars the truth is all rows of all files; for scoring it is the market, where a trade
happened once: rows of a later file up to the end of an earlier one are left out.
"""
import csv
import json
import sys
from datetime import datetime

import duckdb

BEFORE_US = 3 * 60_000_000
AFTER_US = 2 * 60_000_000
NEAR_US = 30 * 60_000_000
COOLDOWN_US = 30 * 60_000_000


def prepare(folder, out):
    db = duckdb.connect()
    db.execute(f"""
        CREATE TABLE raw AS SELECT symbol, timestamp::BIGINT AS ts, side, price, amount, filename
        FROM read_csv('{folder}/*.csv.zst', header = true, all_varchar = true, filename = true)""")
    db.execute("""
        CREATE TABLE spans AS WITH s AS (SELECT filename, symbol, min(ts) AS first, max(ts) AS last FROM raw GROUP BY ALL)
        SELECT filename, max(last) OVER (PARTITION BY symbol ORDER BY first, filename ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS covered FROM s""")
    db.execute("""
        CREATE TABLE market AS SELECT raw.rowid AS n, raw.* EXCLUDE (filename) FROM raw JOIN spans USING (filename)
        WHERE covered IS NULL OR ts > covered""")
    db.execute(f"COPY (SELECT symbol, ts AS timestamp, side, price, amount FROM market ORDER BY ts, n) TO '{out}' (HEADER, COMPRESSION zstd)")
    rows, days = db.execute("SELECT count(*), count(DISTINCT symbol || '/' || (ts // 86400000)) FROM market").fetchone()
    everything = db.execute("SELECT count(*) FROM raw").fetchone()[0]
    print(json.dumps({"rows": rows, "dropped": everything - rows, "symbol_days": days}))


def micros(text):
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1_000_000)


def cooled(times):
    """Alerts of one symbol that its 30 minutes of cool-down let through."""
    kept = []
    for at in sorted(times):
        if not kept or at - kept[-1] >= COOLDOWN_US:
            kept.append(at)
    return kept


def score(labels, alerts, symbol_days, onset="onset_5s"):
    events = [(row["file"], row["symbol"], micros(row[onset])) for row in csv.DictReader(open(labels))]
    by_symbol = {}
    for row in csv.DictReader(open(alerts)):
        by_symbol.setdefault(row["symbol"], []).append(int(row["at"]))
    hit, n_false = set(), 0
    for symbol, times in by_symbol.items():
        own = [(file, at) for file, s, at in events if s == symbol]
        for at in cooled(times):
            hits = [file for file, event in own if event - BEFORE_US <= at <= event + AFTER_US]
            hit.update(hits)
            if not hits and not any(abs(at - event) <= NEAR_US for _, event in own):
                n_false += 1
    precision = len(hit) / max(1, len(hit) + n_false)
    recall = len(hit) / max(1, len(events))
    return {
        "events": len(events),
        "hits": len(hit),
        "false_alerts": n_false,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hit else 0.0,
        "false_per_symbol_day": n_false / symbol_days,
    }


if sys.argv[1] == "prepare":
    prepare(sys.argv[2], sys.argv[3])
else:
    print(json.dumps(score(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
