"""lineitem from MariaDB to zstd Parquet."""

from harness import checksum, mariadb, tpch
from harness.benchmark import BENCH, OUT, Benchmark, peer, pipeline

HERE = BENCH / "extract_mariadb"


def out(name):
    return OUT / "extract_mariadb" / name


def answer(folder):
    """The types are left out: ConnectorX makes doubles of decimals. Their values are compared as decimals."""
    found = checksum.parquet(folder / "lineitem" / "**" / "*.parquet", tpch.COLUMNS)
    found.pop("types")
    return found


BENCHMARK = Benchmark(
    name="extract_mariadb",
    about="lineitem from MariaDB (6,001,215 rows, InnoDB, the primary key of TPC-H) to zstd Parquet",
    prepare=mariadb.lineitem,
    contenders=[
        pipeline(HERE, out=out("gristmill"), env={"LINEITEM_URL": mariadb.URL}, answer=answer, sized="lineitem"),
        peer(
            "connectorx", HERE / "connectorx_extract.py", mariadb.URL, out("connectorx") / "lineitem",
            out=out("connectorx"), answer=answer,
        ),
    ],
)
