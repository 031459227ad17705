"""lineitem by ADBC, batch by batch, to Parquet by pyarrow. Arguments: the server's URL, the folder to write to."""

import sys
from pathlib import Path

import adbc_driver_postgresql.dbapi
import pyarrow.parquet

url, folder = sys.argv[1], Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT * FROM lineitem")
    rows = cursor.fetch_record_batch()
    with pyarrow.parquet.ParquetWriter(
        folder / "lineitem.parquet", rows.schema, compression="zstd", compression_level=1
    ) as writer:
        for batch in rows:
            writer.write_batch(batch, row_group_size=1_000_000)
