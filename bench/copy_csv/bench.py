"""lineitem.csv to one Parquet file, zstd 1, the types declared."""

from harness import checksum, tpch
from harness.benchmark import BENCH, OUT, Benchmark, peer, pipeline

HERE = BENCH / "copy_csv"


def out(name):
    return OUT / "copy_csv" / name


def answer(folder):
    return checksum.parquet(folder / "lineitem" / "*.parquet", tpch.COLUMNS)


def scripted(name):
    return peer(name, HERE / f"{name}_copy.py", tpch.CSV, out(name) / "lineitem", out=out(name), answer=answer)


BENCHMARK = Benchmark(
    name="copy_csv",
    about="copy lineitem (CSV, 766 MB, 6,001,215 rows) to one zstd Parquet file",
    prepare=tpch.csv,
    contenders=[
        pipeline(HERE, out=out("gristmill"), answer=answer, sized="lineitem"),
        scripted("polars"),
        scripted("duckdb"),
    ],
    size_peer="polars",
    goals="at most 1.05 times Polars; sizes within 5 %",
)
