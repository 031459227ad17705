"""CSV to Parquet with Polars: lazy scan, streaming sink. Arguments: the CSV file, the folder to write to."""

import sys
from pathlib import Path

import polars as pl

SCHEMA = {
    "l_orderkey": pl.Int64,
    "l_partkey": pl.Int64,
    "l_suppkey": pl.Int64,
    "l_linenumber": pl.Int32,
    "l_quantity": pl.Decimal(15, 2),
    "l_extendedprice": pl.Decimal(15, 2),
    "l_discount": pl.Decimal(15, 2),
    "l_tax": pl.Decimal(15, 2),
    "l_returnflag": pl.String,
    "l_linestatus": pl.String,
    "l_shipdate": pl.Date,
    "l_commitdate": pl.Date,
    "l_receiptdate": pl.Date,
    "l_shipinstruct": pl.String,
    "l_shipmode": pl.String,
    "l_comment": pl.String,
}

source, folder = sys.argv[1], Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
pl.scan_csv(source, separator="|", schema=SCHEMA).sink_parquet(
    folder / "lineitem.parquet", compression="zstd", compression_level=1, row_group_size=1_000_000
)
