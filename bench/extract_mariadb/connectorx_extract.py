"""lineitem by ConnectorX, four partitions, to Parquet by pyarrow. Arguments: the database's URL, the folder to write to."""

import sys
from pathlib import Path

import connectorx
import pyarrow.parquet

url, folder = sys.argv[1], Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
table = connectorx.read_sql(url, "SELECT * FROM lineitem", return_type="arrow", partition_on="l_orderkey", partition_num=4)
pyarrow.parquet.write_table(table, folder / "lineitem.parquet", compression="zstd", compression_level=1, row_group_size=1_000_000)
