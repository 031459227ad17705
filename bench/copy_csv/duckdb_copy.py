"""CSV to Parquet with DuckDB's COPY. Arguments: the CSV file, the folder to write to."""

import sys
from pathlib import Path

import duckdb

source, folder = sys.argv[1], Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
connection = duckdb.connect()
connection.execute("SET preserve_insertion_order = false")
connection.execute(f"""
    COPY (
        FROM read_csv('{source}', delim = '|', header = true, columns = {{
            'l_orderkey': 'BIGINT', 'l_partkey': 'BIGINT', 'l_suppkey': 'BIGINT', 'l_linenumber': 'INTEGER',
            'l_quantity': 'DECIMAL(15,2)', 'l_extendedprice': 'DECIMAL(15,2)', 'l_discount': 'DECIMAL(15,2)',
            'l_tax': 'DECIMAL(15,2)', 'l_returnflag': 'VARCHAR', 'l_linestatus': 'VARCHAR', 'l_shipdate': 'DATE',
            'l_commitdate': 'DATE', 'l_receiptdate': 'DATE', 'l_shipinstruct': 'VARCHAR', 'l_shipmode': 'VARCHAR',
            'l_comment': 'VARCHAR'
        }})
    ) TO '{folder}/lineitem.parquet'
    (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 1_000_000)
""")
