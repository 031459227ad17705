"""lineitem from zstd Parquet into tables of PostgreSQL."""

from harness import postgres, tpch
from harness.benchmark import BENCH, DATA, OUT, PYTHON, Benchmark, Contender, gristmill, peer

HERE = BENCH / "load"
#: The rows as `COPY … (FORMAT binary)` writes them.
READY = DATA / "lineitem.binary"
SCHEMAS = ["append", "replace", "yardstick", "adbc", "dlt"]


def prepare():
    tpch.parquet()
    postgres.lineitem()
    if not READY.exists():
        postgres.psql(f"\\copy lineitem TO '{READY}' (FORMAT binary)")
    for schema in SCHEMAS:
        postgres.psql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    print(f"the server: fsync {postgres.psql('SHOW fsync')}, wal_level {postgres.psql('SHOW wal_level')}, tables are logged", flush=True)


def fresh(schema):
    """A schema with an empty table, and nothing of the run before left to be written by the server."""

    def before():
        postgres.psql(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; DROP SCHEMA IF EXISTS {schema}_staging CASCADE")
        if schema != "dlt":
            postgres.psql(f"CREATE TABLE {schema}.lineitem (LIKE public.lineitem)")
        postgres.psql("CHECKPOINT")

    return before


def filled(schema):
    """As `fresh`, and the table holds the rows already."""

    def before():
        fresh(schema)()
        postgres.psql(f"INSERT INTO {schema}.lineitem SELECT * FROM public.lineitem")
        postgres.psql(f"VACUUM (ANALYZE) {schema}.lineitem")
        postgres.psql("CHECKPOINT")

    return before


def answer(schema):
    def found(_):
        texts = ", ".join(f"{name}::{'numeric(15,2)' if kind.startswith('DECIMAL') else kind}" for name, kind in tpch.COLUMNS.items())
        query = f"SELECT count(*) || ' ' || sum(hashtextextended(ROW({texts})::text, 0)::numeric) FROM {schema}.lineitem"
        rows, checksum = postgres.psql(query).split()
        return {"rows": int(rows), "row checksum": checksum}

    return found


def ours(name, before):
    state = [HERE / ".gristmill"]
    return gristmill(
        "run", HERE, "--pipeline", name, "--date", "2024-01-01", name=f"gristmill {name}", also_wipe=state,
        env={"LOAD_URL": postgres.URL}, before=before, answer=answer(name),
    )


BENCHMARK = Benchmark(
    name="load",
    about="lineitem (Parquet, 6,001,215 rows) into a logged table of PostgreSQL",
    prepare=prepare,
    contenders=[
        ours("append", fresh("append")),
        ours("replace", filled("replace")),
        # Not a peer: the rows are there in the server's own format, and one connection sends them.
        Contender(
            "yardstick", [PYTHON, str(HERE / "yardstick.py"), postgres.URL, str(READY)],
            before=fresh("yardstick"), answer=answer("yardstick"),
        ),
        peer("adbc", HERE / "adbc_load.py", postgres.URL, tpch.PARQUET, before=fresh("adbc"), answer=answer("adbc")),
        peer(
            "dlt", HERE / "dlt_load.py", postgres.URL, tpch.PARQUET, OUT / "load" / "dlt", out=OUT / "load" / "dlt",
            before=fresh("dlt"), answer=answer("dlt"), runs=1,
        ),
    ],
    goals="append and replace at most 1.15 times the yardstick; faster than ADBC; at least 3 times dlt",
)
