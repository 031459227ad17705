"""lineitem from a SQLite file to zstd Parquet."""

from harness import checksum, sqlite, tpch
from harness.benchmark import BENCH, OUT, Benchmark, peer, pipeline

HERE = BENCH / "extract_sqlite"


def out(name):
    return OUT / "extract_sqlite" / name


def answer(folder):
    """The types are left out: ConnectorX makes doubles of decimals. Their values are compared as decimals."""
    found = checksum.parquet(folder / "lineitem" / "**" / "*.parquet", tpch.COLUMNS)
    found.pop("types")
    return found


BENCHMARK = Benchmark(
    name="extract_sqlite",
    about="lineitem from a SQLite file (6,001,215 rows, WAL mode) to zstd Parquet",
    prepare=sqlite.lineitem,
    contenders=[
        pipeline(HERE, out=out("gristmill"), env={"LINEITEM_FILE": str(sqlite.FILE)}, answer=answer, sized="lineitem"),
        peer(
            "connectorx", HERE / "connectorx_extract.py", f"sqlite://{sqlite.FILE}", out("connectorx") / "lineitem",
            out=out("connectorx"), answer=answer,
        ),
    ],
)
