"""A key range that holds nearly all rows, because statistics are old: divided among four connections, or not.

The rows are documents that the server has to write out, so that it is the server that is waited for: on few cores, one
connection keeps busy whoever only passes rows on.
"""

from harness import checksum, postgres
from harness.benchmark import BENCH, OUT, Benchmark, pipeline

HERE = BENCH / "skew"
ROWS = 1_000_000
KNOWN = 50_000
COLUMNS = {"id": "BIGINT", "payload": "VARCHAR"}


def prepare():
    postgres.ready()
    if postgres.psql("SELECT to_regclass('undivided') IS NOT NULL") == "t":
        return
    # An index lets a range be divided by what is in it; without one it is read as it was planned.
    for table, key in [("skewed", "PRIMARY KEY"), ("undivided", "")]:
        fields = ", ".join(f"'field_{i}', n * {i} % 1000, 'on_{i}', n % {i + 2} = 0" for i in range(20))
        rows = f"INSERT INTO {table} SELECT n, jsonb_build_object({fields}) FROM generate_series"
        postgres.psql(
            f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id bigint {key}, payload jsonb) WITH (autovacuum_enabled = off); "
            f"{rows}(1, {KNOWN}) n; ANALYZE {table}; {rows}({KNOWN + 1}, {ROWS}) n"
        )


def contender(name):
    out = OUT / "skew" / name

    def answer(folder):
        return checksum.parquet(folder / "rows" / "**" / "*.parquet", COLUMNS)

    return pipeline(
        HERE, "--param", f"table={name}", name=name, out=out, env={"SKEW_URL": postgres.URL}, answer=answer, sized="rows"
    )


BENCHMARK = Benchmark(
    name="skew",
    about=f"a key range with {ROWS - KNOWN:,} of {ROWS:,} rows, PostgreSQL to zstd Parquet on four connections",
    prepare=prepare,
    contenders=[contender("skewed"), contender("undivided")],
    goals="`skewed` is divided, `undivided` is read by one connection: the ratio is what dividing gives",
)
