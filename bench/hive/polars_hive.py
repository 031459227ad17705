"""A hive-partitioned write with Polars' streaming engine. Arguments: the Parquet file, the folder to write to."""

import sys

import polars as pl

source, folder = sys.argv[1:3]
lineitem = pl.scan_parquet(source).with_columns(
    pl.col("l_shipdate").dt.year().cast(pl.Int32).alias("l_year"),
    pl.col("l_shipdate").dt.month().cast(pl.Int32).alias("l_month"),
)
lineitem.sink_parquet(
    pl.PartitionBy(folder, key=["l_year", "l_month"], include_key=False),
    compression="zstd",
    compression_level=1,
    mkdir=True,
)
