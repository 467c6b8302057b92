"""Computes bars of the real trades with DuckDB, in integers only, and compares them row for row with what mulgil says.

usage: bars.py TRADES_DIR INTERVAL_SECONDS GOT.csv

GOT.csv: symbol,start,event_time,open,high,low,close,volume,amount,vwap,count,buy_volume,sell_volume; times in microseconds.
Prints one JSON object: {"ok": …, "detail": …}. Prices and quantities have 8 decimals, amounts 16, vwap 12 (half to even).
"""
import json
import sys
from decimal import Decimal

import duckdb

SCALES = {"open": 8, "high": 8, "low": 8, "close": 8, "volume": 8, "amount": 16, "vwap": 12, "buy_volume": 8, "sell_volume": 8}
PLAIN = ["event_time", "count"]
SHOWN_MAX = 5


def load_trades(db, folder):
    """All rows of all files, in the order of the files' names and of their rows: rowid then orders trades of one millisecond."""
    db.execute(f"""
        CREATE TABLE raw AS SELECT symbol, timestamp, side, price, amount
        FROM read_csv('{folder}/*.csv.zst', header = true, all_varchar = true)""")
    db.execute("""
        CREATE TABLE trades AS SELECT rowid AS n, symbol, timestamp::BIGINT AS ts, side,
            (price::DECIMAL(18,8) * 100000000)::HUGEINT AS p, (amount::DECIMAL(20,8) * 100000000)::HUGEINT AS q
        FROM raw""")


def check_casts(db):
    """DuckDB reads '1.348e-05' as a decimal exactly, and Python's decimal agrees on every distinct spelling in the files."""
    for text_column, number in (("price", "p"), ("amount", "q")):
        rows = db.execute(f"SELECT DISTINCT raw.{text_column}, trades.{number} FROM raw JOIN trades ON raw.rowid = trades.n").fetchall()
        for text, integer in rows:
            if Decimal(text).scaleb(8) != integer:
                raise SystemExit(f"DuckDB read {text_column} {text} as {integer} / 10^8")


def compute(db, seconds):
    db.execute(f"""
        CREATE TABLE sums AS SELECT symbol, ts - ts % {seconds * 1000} AS start_ms,
            arg_min(p, ts::HUGEINT * 1000000000 + n) AS open, max(p) AS high, min(p) AS low,
            arg_max(p, ts::HUGEINT * 1000000000 + n) AS close,
            sum(q)::HUGEINT AS volume, sum(p * q)::HUGEINT AS amount, count(*) AS count,
            coalesce(sum(q) FILTER (side = 'buy'), 0)::HUGEINT AS buy_volume,
            coalesce(sum(q) FILTER (side = 'sell'), 0)::HUGEINT AS sell_volume
        FROM trades GROUP BY ALL""")
    # amount has 16 decimals, volume 8, so amount * 10^4 // volume has 12; the remainder decides about rounding.
    db.execute(f"""
        CREATE TABLE expected AS
        WITH divided AS (SELECT *, amount * 10000 // nullif(volume, 0) AS whole, amount * 10000 % nullif(volume, 0) AS rest FROM sums)
        SELECT symbol, start_ms * 1000 AS start, (start_ms + {seconds * 1000}) * 1000 AS event_time, * EXCLUDE (symbol, start_ms, whole, rest),
            whole + CASE WHEN rest * 2 > volume OR (rest * 2 = volume AND whole % 2 = 1) THEN 1 ELSE 0 END AS vwap
        FROM divided""")


def load_got(db, path):
    """Decimals as integers at their declared scale, by their digits; more decimals than declared make the cast fail on purpose."""
    def unscaled(name, scale):
        fraction = f"split_part({name}, '.', 2)"
        digits = f"split_part({name}, '.', 1) || rpad({fraction}, {scale}, '0')"
        return f"CASE WHEN length({fraction}) > {scale} THEN error('{name} has more than {scale} decimals: ' || {name}) ELSE ({digits})::HUGEINT END AS {name}"
    columns = [unscaled(name, scale) for name, scale in SCALES.items()] + [f"{name}::BIGINT AS {name}" for name in PLAIN]
    db.execute(f"""
        CREATE TABLE got AS SELECT symbol, start::BIGINT AS start, {', '.join(columns)}
        FROM read_csv('{path}', header = true, all_varchar = true)""")


def differences(db):
    found = []
    twice = db.execute("SELECT symbol, start, count(*) FROM got GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT 5").fetchall()
    found += [f"{symbol} {start}: {n} rows for one bar" for symbol, start, n in twice]
    for name, first, second in (("missing", "expected", "got"), ("not expected", "got", "expected")):
        side = f"FROM {first} ANTI JOIN {second} USING (symbol, start)"
        n = db.execute(f"SELECT count(*) {side}").fetchone()[0]
        if n:
            shown = db.execute(f"SELECT symbol, start {side} ORDER BY ALL LIMIT {SHOWN_MAX}").fetchall()
            found.append(f"{n} bars {name}, for example {shown}")
    for column in PLAIN + list(SCALES):
        pairs = f"FROM expected e JOIN got g USING (symbol, start) WHERE e.{column} IS DISTINCT FROM g.{column}"
        n = db.execute(f"SELECT count(*) {pairs}").fetchone()[0]
        if n:
            shown = db.execute(f"SELECT symbol, start, e.{column}, g.{column} {pairs} ORDER BY ALL LIMIT {SHOWN_MAX}").fetchall()
            lines = "".join(f"\n  {symbol} {start}: expected {wanted}, got {had}" for symbol, start, wanted, had in shown)
            found.append(f"{n} bars with another {column}:{lines}")
    return found


def main():
    folder, seconds, got = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    db = duckdb.connect()
    load_trades(db, folder)
    check_casts(db)
    compute(db, seconds)
    load_got(db, got)
    found = differences(db)
    n_bars = db.execute("SELECT count(*) FROM expected").fetchone()[0]
    print(json.dumps({"ok": not found, "detail": "\n".join(found) or f"{n_bars} bars equal in {len(SCALES) + len(PLAIN)} columns"}))


main()
