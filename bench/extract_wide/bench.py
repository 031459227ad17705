"""A wide table, most of it texts and JSON, from PostgreSQL to zstd Parquet."""

from harness import checksum, postgres
from harness.benchmark import BENCH, OUT, Benchmark, peer, pipeline

HERE = BENCH / "extract_wide"
#: JSON may be written with other spaces and in another order of keys: of it, values are compared.
JSON = {"tags": "CAST(tags AS JSON)->>1", "payload": "CAST(payload AS JSON)->'nested'->>'a'"}
COLUMNS = {name: kind for name, (_, _, kind) in postgres.WIDE.items() if name not in JSON}


def out(name):
    return OUT / "extract_wide" / name


def answer(folder):
    """The types are left out: ConnectorX makes doubles of decimals, and of time zones what it likes."""
    found = checksum.parquet(folder / "wide" / "**" / "*.parquet", COLUMNS, expressions=JSON)
    found.pop("types")
    return found


BENCHMARK = Benchmark(
    name="extract_wide",
    about=f"a table of {len(postgres.WIDE)} columns and {postgres.WIDE_ROWS:,} rows from PostgreSQL to zstd Parquet",
    prepare=postgres.wide,
    contenders=[
        pipeline(HERE, out=out("gristmill"), env={"WIDE_URL": postgres.URL}, answer=answer, sized="wide"),
        peer(
            "connectorx", BENCH / "extract" / "connectorx_extract.py", postgres.URL, out("connectorx") / "wide", "wide", "id",
            out=out("connectorx"), answer=answer,
        ),
    ],
    goals="at least 1.5 times faster than ConnectorX",
)
