"""A table by dlt with its ConnectorX backend, to Parquet files.

Arguments: the server's URL, the folder to write to, the table (lineitem).
"""

import os
import sys
from pathlib import Path

url, folder = sys.argv[1], Path(sys.argv[2])
table_name = sys.argv[3] if len(sys.argv) > 3 else "lineitem"
folder.mkdir(parents=True, exist_ok=True)
os.environ.update(
    RUNTIME__DLTHUB_TELEMETRY="false",
    DESTINATION__FILESYSTEM__BUCKET_URL=folder.resolve().as_uri(),
    NORMALIZE__DATA_WRITER__COMPRESSION="zstd",
    DATA_WRITER__COMPRESSION="zstd",
)

import dlt  # noqa: E402
from dlt.sources.sql_database import sql_table  # noqa: E402

pipeline = dlt.pipeline("extract", destination="filesystem", dataset_name="bench", pipelines_dir=str(folder.parent / "_state"))
# The table's columns are asked by SQLAlchemy, its rows by ConnectorX.
plain = url.replace("postgres://", "postgresql://")
driver = plain.replace("postgresql://", "postgresql+psycopg2://")
table = sql_table(driver, table=table_name, backend="connectorx", backend_kwargs={"conn": plain})
pipeline.run(table, loader_file_format="parquet", write_disposition="replace")
