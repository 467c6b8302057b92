"""Computes bars and summaries of random trades with DuckDB and compares them value for value with what mulgil says.

usage: bars_duckdb.py TRADES.csv ZONE BOUND_US LATENESS_US GOT_DIR

TRADES.csv: event_time (microseconds),symbol,price,quantity,side; rows in order of arrival. GOT_DIR: one NAME.csv per table below, times
in microseconds, and late.csv. DuckDB cuts the windows and adds up whole numbers of 10^-8; quotients and roots are taken here, in whole
numbers too. Prints one JSON object: {"ok": …, "detail": …}.
"""
import json
import sys
from decimal import Decimal, getcontext

import duckdb

getcontext().prec = 120
SCALE = 8
SECOND = 1_000_000
# Bars: name, interval as DuckDB writes it, microseconds where windows are multiples of them in UTC as well.
BARS = [("1s", None, SECOND), ("1m", None, 60 * SECOND), ("15m", None, 900 * SECOND), ("1h", None, 3600 * SECOND),
        ("4h", "4 hours", None), ("1d", "1 day", None)]
SUMMARIES = ["by_hour", "by_hop", "by_session"]
HOP, SIZE, GAP = 30 * SECOND, 90 * SECOND, 600 * SECOND
SHOWN_MAX = 5


def load(db, trades, zone, bound, lateness):
    unscaled = lambda name, digits: f"({name}::DECIMAL({digits},{SCALE}) * 100000000::DECIMAL(10,0))::HUGEINT"
    db.execute(f"""
        CREATE TABLE arrived AS
        SELECT rowid AS n, event_time::BIGINT AS ts, symbol, {unscaled('price', 28)} AS p, {unscaled('quantity', 28)} AS q,
            nullif(side, '') AS side
        FROM (SELECT * FROM read_csv('{trades}', header = true, all_varchar = true, parallel = false))""" .replace("rowid AS n", "row_number() OVER () AS n"))
    # A row is late when it is older than the watermark it finds, the latest time before it less the bound, by more than the lateness.
    db.execute(f"""
        CREATE TABLE judged AS SELECT *, coalesce(ts < max(ts) OVER (ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
            - {bound} - {lateness}, false) AS late FROM arrived""")
    db.execute("CREATE TABLE trades AS SELECT * EXCLUDE (late), timezone(?, make_timestamptz(ts)) AS local FROM judged WHERE NOT late", [zone])


def windows(db, zone):
    """Per table: every trade with the window it is in, and the group columns."""
    at_zone = lambda local: f"epoch_us(timezone('{zone}', {local}))"
    for name, interval, us in BARS:
        if us:
            start, end = f"ts - ((ts % {us}) + {us}) % {us}", f"ts - ((ts % {us}) + {us}) % {us} + {us}"
        else:
            floor = f"time_bucket(INTERVAL '{interval}', local, TIMESTAMP '2000-01-01')"
            start, end = at_zone(floor), at_zone(f"{floor} + INTERVAL '{interval}'")
        yield f"bars.{name}", f"SELECT *, NULL AS grp, {start} AS start, {end} AS w_end FROM trades"
    hour = 3600 * SECOND
    yield "by_hour", f"SELECT *, side AS grp, ts - ((ts % {hour}) + {hour}) % {hour} AS start, start + {hour} AS w_end FROM trades"
    yield "by_hop", f"""SELECT *, NULL AS grp, start + {SIZE} AS w_end FROM (
        SELECT *, ts - ((ts % {HOP}) + {HOP}) % {HOP} - k * {HOP} AS start FROM trades, range({SIZE // HOP}) r(k)) WHERE start + {SIZE} > ts"""
    yield "by_session", f"""SELECT * EXCLUDE (fresh, island), NULL AS grp, min(ts) OVER w AS start, max(ts) OVER w + {GAP} AS w_end FROM (
        SELECT *, sum(fresh) OVER (PARTITION BY symbol ORDER BY ts, n) AS island FROM (
            SELECT *, coalesce(ts - lag(ts) OVER (PARTITION BY symbol ORDER BY ts, n) > {GAP}, true)::INT AS fresh FROM trades))
        WINDOW w AS (PARTITION BY symbol, island)"""


SUMS = """
    SELECT symbol, grp, start, w_end, count(*) AS n, count(side) AS n_sides, sum(q)::HUGEINT AS volume, sum(p * q)::HUGEINT AS amount,
        sum(p)::HUGEINT AS total, sum(p * p)::HUGEINT AS squares, max(p) AS high, min(p) AS low,
        arg_min(p, ts::HUGEINT * 1000000000 + n) AS open, arg_max(p, ts::HUGEINT * 1000000000 + n) AS close,
        arg_max(side, ts::HUGEINT * 1000000000 + n) FILTER (side IS NOT NULL) AS last_side,
        coalesce(sum(q) FILTER (side = 'BUY'), 0)::HUGEINT AS buy, coalesce(sum(q) FILTER (side = 'SELL'), 0)::HUGEINT AS sell
    FROM ({}) GROUP BY symbol, grp, start, w_end"""


def quotient(n, d, decimals):
    """n / d in units of 10^-decimals of theirs, half to even, as a decimal; None for d = 0."""
    if d == 0:
        return None
    scaled = n * 10**decimals
    whole, rest = divmod(scaled, d)
    if rest * 2 > abs(d) or (rest * 2 == abs(d) and whole % 2):
        whole += 1
    return whole


def bar(row):
    scaled = lambda n, scale: Decimal(n).scaleb(-scale)
    vwap = quotient(row["amount"], row["volume"], 4)
    prices = [scaled(row[c], SCALE) for c in ("open", "high", "low", "close", "volume")]
    return prices + [scaled(row["amount"], 2 * SCALE), None if vwap is None else scaled(vwap, SCALE + 4), row["n"],
                     scaled(row["buy"], SCALE), scaled(row["sell"], SCALE)]


def summary(row):
    n, scaled = row["n"], lambda v, scale=SCALE: Decimal(v).scaleb(-scale)
    spread = None if n < 2 else (Decimal(n * row["squares"] - row["total"] ** 2) / (n * (n - 1))).sqrt().scaleb(-SCALE)
    return [n, row["n_sides"], scaled(row["volume"]), scaled(quotient(row["total"], n, 4), SCALE + 4), scaled(row["low"]), scaled(row["high"]),
            scaled(row["open"]), scaled(row["close"]), row["last_side"], spread]


def expected(db, sql, make):
    cursor = db.execute(SUMS.format(sql))
    names = [c[0] for c in cursor.description]
    rows = [dict(zip(names, values)) for values in cursor.fetchall()]
    return {(r["symbol"], r["grp"], r["start"]): [r["w_end"]] + make(r) for r in rows}


BAR_COLUMNS = ["event_time", "open", "high", "low", "close", "volume", "amount", "vwap", "count", "buy_volume", "sell_volume"]
SUMMARY_COLUMNS = ["event_time", "n", "n_sides", "volume", "mean", "low", "high", "first_price", "last_price", "last_side", "spread"]


def got(db, path, columns, group):
    """The last revision of each window, and whether revisions count from 0."""
    grp = "nullif(side, '')" if group else "NULL"
    rows = db.execute(f"""SELECT symbol, {grp}, start::BIGINT, revision::BIGINT, {', '.join(columns)}
        FROM read_csv('{path}', header = true, all_varchar = true) ORDER BY revision::BIGINT""").fetchall()
    last = {}
    for symbol, side, start, revision, *values in rows:
        text = {"last_side", "side"}
        last[(symbol, side, start)] = (revision, [v if c in text else None if v is None or v == "" else Decimal(v) for c, v in zip(columns, values)])
    return last


def without_swallowed(sessions):
    """Sessions that a later row joined into a longer one stay as they were published; only the longer one is compared."""
    def swallowed(key):
        revision, values = sessions[key]
        inside = lambda other, o: other[0] == key[0] and other[2] <= key[2] and o[1][0] >= values[0] and other != key and o[0] > revision
        return any(inside(other, o) for other, o in sessions.items())
    return {key: v for key, v in sessions.items() if not swallowed(key)}


def is_same(column, wanted, had):
    if wanted is None or had is None:
        return wanted is None and had is None
    if column == "spread":
        return abs(wanted - had) <= Decimal("1e-12") * max(abs(wanted), Decimal("1e-8"))
    return wanted == had


def compare(name, columns, want, have):
    found = [f"{name}: {key} is missing" for key in want.keys() - have.keys()] + [f"{name}: {key} is not expected" for key in have.keys() - want.keys()]
    for key in want.keys() & have.keys():
        for column, wanted, had in zip(columns, want[key], have[key]):
            if not is_same(column, wanted, had):
                found.append(f"{name}: {column} of {key} is {had}, not {wanted}")
    return found


def main():
    trades, zone, bound, lateness, folder = sys.argv[1:]
    db = duckdb.connect()
    load(db, trades, zone, int(bound), int(lateness))
    found, n = [], 0
    for name, sql in windows(db, zone):
        is_bar = name.startswith("bars.")
        columns = BAR_COLUMNS if is_bar else SUMMARY_COLUMNS
        want = expected(db, sql, bar if is_bar else summary)
        have = got(db, f"{folder}/{name}.csv", columns, name == "by_hour")
        have = without_swallowed(have) if name == "by_session" else have
        found += compare(name, columns, want, {key: values for key, (_, values) in have.items()})
        n += len(want)
    late = db.execute("SELECT symbol, ts, p FROM judged WHERE late ORDER BY n").fetchall()
    told = db.execute(f"""SELECT symbol, event_time::BIGINT, (price::DECIMAL(28,8) * 100000000::DECIMAL(10,0))::HUGEINT
        FROM read_csv('{folder}/late.csv', header = true, all_varchar = true)""").fetchall()
    if sorted(late) != sorted(told):
        found.append(f"late rows: {len(told)}, not {len(late)}")
    print(json.dumps({"ok": not found, "detail": "\n".join(sorted(found)[:SHOWN_MAX]) or f"{n} windows, {len(late)} late rows"}))


main()
