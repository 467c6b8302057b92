"""Random questions to mulgil and to DuckDB over the same Parquet files, compared exactly.

usage: agree.py MULGIL CONFIG DATA FOLDER N SEED      prints {"ok": …, "detail": …}

Each question is a SELECT with filters, groups, an order and a limit over the columns of the stream `trades` or its minute bars. Rows are
compared as bags, so an order is asked for only where a limit makes it matter, and then a total one. Sums, counts, smallest and largest
values are exact in both; averages are left out, as DuckDB's are floating point.
"""
import json
import os
import random
import subprocess
import sys

import duckdb

binary, config, data, folder, n, seed = sys.argv[1:7]
os.makedirs(folder, exist_ok=True)
chance = random.Random(int(seed))
db = duckdb.connect()
db.execute("SET threads = 2")
db.execute("SET TimeZone = 'UTC'")

TABLES = {"trades": "trades", "bars": "trades.bars.1m"}
NAMES = {"trades": "trades", "bars": '"trades.bars.1m"'}
TEXTS = {"trades": ["symbol", "side", "market", "currency"], "bars": ["symbol"]}
EXACT = {"trades": ["price", "quantity"], "bars": ["open", "high", "low", "close", "volume", "count"]}
# Together they name one row.
ROW = ["symbol", "event_time", "_partition", "_offset"]
UNITS = ["microsecond", "millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year"]

for view, stream in TABLES.items():
    pattern = os.path.join(data, "history", stream, "**", "*.parquet")
    db.execute(f"CREATE VIEW {view} AS SELECT * FROM read_parquet('{pattern}', hive_partitioning = false, union_by_name = true)")


def sampled(view):
    # Times as text: DuckDB needs another package to make Python's of them.
    columns = TEXTS[view] + EXACT[view] + ["strftime(event_time, '%Y-%m-%dT%H:%M:%S.%fZ') AS event_time"]
    found = db.execute(f"SELECT {', '.join(columns)} FROM {view} USING SAMPLE reservoir(500 ROWS) REPEATABLE (1)")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row)) for row in found.fetchall()]


samples = {view: sampled(view) for view in TABLES}


def literal(value):
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)


def condition(view, depth=0):
    row = chance.choice(samples[view])
    kind = chance.randrange(9 if depth < 2 else 6)
    if kind == 0:
        column = chance.choice(TEXTS[view])
        return f"{column} {chance.choice(['=', '<>', '<', '>='])} {literal(row[column])}" if row[column] is not None else f"{column} IS NULL"
    if kind == 1:
        column = chance.choice(EXACT[view])
        return f"{column} {chance.choice(['=', '<', '>', '<=', '>='])} {literal(row[column])}"
    if kind == 2:
        return f"event_time {chance.choice(['<', '>', '<=', '>='])} {literal(row['event_time'])}"
    if kind == 3:
        first, last = sorted([row["event_time"], chance.choice(samples[view])["event_time"]])
        return f"event_time BETWEEN {literal(first)} AND {literal(last)}"
    if kind == 4:
        symbols = {chance.choice(samples[view])["symbol"] for _ in range(chance.randint(1, 4))}
        return f"symbol {chance.choice(['', 'NOT '])}IN ({', '.join(sorted(map(literal, symbols)))})"
    if kind == 5:
        column = chance.choice(TEXTS[view] + EXACT[view])
        return f"{column} IS {chance.choice(['', 'NOT '])}NULL"
    if kind == 6:
        return f"NOT ({condition(view, depth + 1)})"
    return f"({condition(view, depth + 1)} {chance.choice(['AND', 'OR'])} {condition(view, depth + 1)})"


def where(view):
    conditions = [condition(view) for _ in range(chance.choice([0, 1, 1, 2, 3]))]
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def rows(view):
    columns = chance.sample([c for c in TEXTS[view] + EXACT[view] if c not in ROW], chance.randint(1, 3))
    by = chance.sample(ROW[:2] + columns[:1], chance.randint(1, 2))
    order = [f"{c} {chance.choice(['ASC', 'DESC'])} NULLS {chance.choice(['FIRST', 'LAST'])}" for c in by]
    order += [f"{c} {chance.choice(['ASC', 'DESC'])}" for c in ROW if c not in by]
    limit = f" LIMIT {chance.choice([1, 10, 1000, 5000])}" + (f" OFFSET {chance.randint(0, 2000)}" if chance.random() < 0.3 else "")
    return f"SELECT {', '.join(columns + ROW)} FROM {{{view}}}{where(view)} ORDER BY {', '.join(order)}{limit}"


def groups(view):
    keys = chance.sample(TEXTS[view] + [f"date_trunc('{chance.choice(UNITS[2:] if chance.random() < 0.9 else UNITS)}', event_time)"], chance.randint(0, 2))
    number = chance.choice(EXACT[view])
    measures = ["count(*)", f"count(DISTINCT {chance.choice(TEXTS[view])})", f"min({number})", f"max({number})", f"sum({number})", "min(event_time)", "max(event_time)",
                f"sum(CASE WHEN {condition(view, 2)} THEN {number} END)", "max(symbol)"]
    chosen = chance.sample(measures, chance.randint(1, 4))
    columns = [f"{k} AS k{i}" for i, k in enumerate(keys)] + [f"{m} AS m{i}" for i, m in enumerate(chosen)]
    sql = f"SELECT {', '.join(columns)} FROM {{{view}}}{where(view)}"
    if not keys:
        return sql
    sql += f" GROUP BY {', '.join(keys)}"
    if chance.random() < 0.3:
        sql += f" HAVING count(*) > {chance.choice([1, 10, 1000])}"
    if chance.random() < 0.5:
        sql += f" ORDER BY {', '.join(f'k{i} NULLS LAST' for i in range(len(keys)))} LIMIT {chance.choice([1, 5, 100])}"
    return sql


asked = [chance.choice([rows, groups])(chance.choice(list(TABLES))) for _ in range(int(n))]
statements = os.path.join(folder, "questions.sql")
with open(statements, "w") as file:
    file.write("\n".join(q.format(**NAMES) for q in asked) + "\n")
command = [binary, "bench", "query", statements, "--answers", folder, "--config", config, "--data", data]
ran = subprocess.run(command, capture_output=True, text=True)
if ran.returncode != 0:
    print(json.dumps({"ok": False, "detail": ran.stderr.strip()[-1000:]}))
    sys.exit()

n_rows, n_refused, wrong = 0, 0, []
for at, question in enumerate(asked):
    if os.path.exists(os.path.join(folder, f"{at}.refused")):
        n_refused += 1
        continue
    db.execute(f"CREATE OR REPLACE TEMP TABLE theirs AS {question.format(trades='trades', bars='bars')}")
    db.execute(f"CREATE OR REPLACE TEMP TABLE ours AS SELECT * FROM read_parquet('{os.path.join(folder, str(at))}.parquet')")
    here, there = (db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("ours", "theirs"))
    differ = db.execute("SELECT count(*) FROM ((FROM ours EXCEPT ALL FROM theirs) UNION ALL (FROM theirs EXCEPT ALL FROM ours))").fetchone()[0]
    n_rows += here
    if here != there or differ > 0:
        wrong.append(f"{differ} rows differ ({here} here, {there} in DuckDB): {question}")
if n_refused > len(asked) // 20:
    wrong.append(f"{n_refused} of {len(asked)} questions were refused for want of memory")
detail = wrong[0] if wrong else f"{len(asked)} questions of seed {seed}, {n_rows} rows, {n_refused} refused for want of memory"
print(json.dumps({"ok": not wrong, "detail": detail, "n_wrong": len(wrong)}))
