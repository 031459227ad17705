"""lineitem.parquet to folders by year and month of shipping: 84 of them, zstd 1."""

from harness import checksum, tpch
from harness.benchmark import BENCH, OUT, Benchmark, peer, pipeline

HERE = BENCH / "hive"


def out(name):
    return OUT / "hive" / name


def answer(folder):
    columns = {**tpch.COLUMNS, "l_year": "INTEGER", "l_month": "INTEGER"}
    found = checksum.parquet(folder / "lineitem" / "**" / "*.parquet", columns, hive=True)
    found["folders"] = len({path.parent for path in (folder / "lineitem").rglob("*.parquet")})
    return found


def scripted(name):
    return peer(name, HERE / f"{name}_hive.py", tpch.PARQUET, out(name) / "lineitem", out=out(name), answer=answer)


BENCHMARK = Benchmark(
    name="hive",
    about="write lineitem (Parquet, 6,001,215 rows) by year and month, 84 partitions",
    prepare=tpch.parquet,
    contenders=[
        pipeline(HERE, out=out("gristmill"), answer=answer, sized="lineitem"),
        scripted("duckdb"),
        scripted("polars"),
    ],
    size_peer="duckdb",
    goals="at most DuckDB's time, under 500 MB",
)
