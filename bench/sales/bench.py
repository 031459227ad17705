"""The sales ETL on 5 million orders: clean, check, join, aggregate; Parquet by date and figures in SQLite."""

import subprocess

from harness import checksum
from harness.benchmark import BENCH, DATA, OUT, PYTHON, Benchmark, peer, pipeline

HERE = BENCH / "sales"
INPUT = DATA / "sales"

ENRICHED = {
    "order_id": "BIGINT",
    "customer_id": "BIGINT",
    "customer_name": "VARCHAR",
    "region": "VARCHAR",
    "product_id": "BIGINT",
    "product_name": "VARCHAR",
    "category": "VARCHAR",
    "currency": "VARCHAR",
    "total": "DECIMAL(10,2)",
    "exchange_rate": "DECIMAL(18,8)",
    "total_usd": "DECIMAL(18,6)",
    "status": "VARCHAR",
    "created_at": "TIMESTAMP",
    "date": "DATE",
}


def prepare():
    if not (INPUT / "done").exists():
        subprocess.run([PYTHON, HERE / "prepare.py", INPUT], check=True)


def out(name):
    return OUT / "sales" / name


def answer(folder):
    found = checksum.parquet(folder / "lake" / "enriched_orders" / "**" / "*.parquet", ENRICHED, hive=True)
    figures = checksum.sqlite(
        folder / "warehouse.db",
        "SELECT date, category, region, revenue, order_count, unique_customers, avg_order_value FROM daily_sales_metrics",
        ["{}", "{}", "{}", "{:.6f}", "{}", "{}", "{:.6f}"],
    )
    return {**found, "figures": figures}


def scripted(name, **options):
    return peer(name, HERE / f"{name}_sales.py", INPUT, out(name), out=out(name), answer=answer, sized="lake/enriched_orders", **options)


BENCHMARK = Benchmark(
    name="sales",
    about="sales ETL on 5 million orders: all joins, all checks, both outputs",
    prepare=prepare,
    contenders=[
        pipeline(HERE, out=out("gristmill"), answer=answer, sized="lake/enriched_orders"),
        scripted("duckdb"),
        scripted("pyspark"),
    ],
    size_peer="duckdb",
    goals="at least 10 times faster than PySpark, at most 1.3 times DuckDB, in less memory than either",
)
