"""A table by ConnectorX, four partitions, to Parquet by pyarrow.

Arguments: the server's URL, the folder to write to, the table (lineitem), the column to divide by (l_orderkey).
"""

import sys
from pathlib import Path

import connectorx
import pyarrow.parquet

url, folder = sys.argv[1], Path(sys.argv[2])
table_name = sys.argv[3] if len(sys.argv) > 3 else "lineitem"
divide_by = sys.argv[4] if len(sys.argv) > 4 else "l_orderkey"
folder.mkdir(parents=True, exist_ok=True)
table = connectorx.read_sql(
    url, f"SELECT * FROM {table_name}", return_type="arrow", protocol="binary", partition_on=divide_by, partition_num=4
)
pyarrow.parquet.write_table(table, folder / f"{table_name}.parquet", compression="zstd", compression_level=1, row_group_size=1_000_000)
