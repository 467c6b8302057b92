"""Times one SQL statement in DuckDB over the Parquet files of one stream: one warm-up run, then N timed ones, in one process.

usage: query.py PARQUET_GLOB SQL N       SQL asks the table `rows`; prints {"rows": …, "seconds": […]}
"""
import json
import sys
import time

import duckdb

db = duckdb.connect()
db.execute("SET threads = 2")
db.execute("SET TimeZone = 'UTC'")
db.execute(f"CREATE VIEW rows AS SELECT * FROM read_parquet('{sys.argv[1]}', hive_partitioning = false, union_by_name = true)")
seconds = []
for run in range(int(sys.argv[3]) + 1):
    started = time.perf_counter()
    # Into columns in memory, as mulgil's answer is: turning rows into Python objects would be measured otherwise.
    db.execute(f"CREATE OR REPLACE TEMP TABLE answer AS {sys.argv[2]}")
    if run > 0:
        seconds.append(time.perf_counter() - started)
n_rows = db.execute("SELECT count(*) FROM answer").fetchone()[0]
print(json.dumps({"rows": n_rows, "seconds": seconds}))
