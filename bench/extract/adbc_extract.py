"""A table by ADBC, batch by batch, to Parquet by pyarrow.

Arguments: the server's URL, the folder to write to, the table (lineitem).
"""

import sys
from pathlib import Path

import adbc_driver_postgresql.dbapi
import pyarrow.parquet

url, folder = sys.argv[1], Path(sys.argv[2])
table_name = sys.argv[3] if len(sys.argv) > 3 else "lineitem"
folder.mkdir(parents=True, exist_ok=True)
with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
    cursor.execute(f"SELECT * FROM {table_name}")
    rows = cursor.fetch_record_batch()
    with pyarrow.parquet.ParquetWriter(
        folder / f"{table_name}.parquet", rows.schema, compression="zstd", compression_level=1
    ) as writer:
        for batch in rows:
            writer.write_batch(batch, row_group_size=1_000_000)
