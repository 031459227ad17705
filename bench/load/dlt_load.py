"""A Parquet file into a table by dlt, through CSV and COPY, its fastest way. Arguments: the server's URL, the file, a folder of its own."""

import os
import sys
from pathlib import Path

url, file, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
os.environ.update(
    RUNTIME__DLTHUB_TELEMETRY="false",
    # It insists on a password; the server asks for none.
    DESTINATION__POSTGRES__CREDENTIALS=url.replace("postgres://bench@", "postgresql://bench:none@"),
)

import dlt  # noqa: E402
import pyarrow.parquet  # noqa: E402


@dlt.resource(name="lineitem")
def lineitem():
    for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=100_000):
        table = pyarrow.Table.from_batches([batch])
        # It knows no string views.
        plain = [field.with_type(pyarrow.string()) if field.type == pyarrow.string_view() else field for field in table.schema]
        yield table.cast(pyarrow.schema(plain))


pipeline = dlt.pipeline("load", destination="postgres", dataset_name="dlt", pipelines_dir=str(folder))
pipeline.run(lineitem(), loader_file_format="csv", write_disposition="append")
