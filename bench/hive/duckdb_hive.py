"""A hive-partitioned write with DuckDB's COPY. Arguments: the Parquet file, the folder to write to."""

import sys

import duckdb

source, folder = sys.argv[1:3]
connection = duckdb.connect()
connection.execute("SET preserve_insertion_order = false")
connection.execute(f"""
    COPY (
        SELECT *, CAST(year(l_shipdate) AS INTEGER) AS l_year, CAST(month(l_shipdate) AS INTEGER) AS l_month
        FROM read_parquet('{source}')
    ) TO '{folder}'
    (FORMAT parquet, PARTITION_BY (l_year, l_month), COMPRESSION zstd, COMPRESSION_LEVEL 1)
""")
