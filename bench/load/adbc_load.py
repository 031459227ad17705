"""A Parquet file into a table by ADBC's ingest, batch by batch. Arguments: the server's URL, the file."""

import sys

import adbc_driver_postgresql.dbapi
import pyarrow.dataset

url, file = sys.argv[1:]
with adbc_driver_postgresql.dbapi.connect(url) as connection, connection.cursor() as cursor:
    rows = pyarrow.dataset.dataset(file).scanner().to_reader()
    cursor.adbc_ingest("lineitem", rows, mode="append", db_schema_name="adbc")
    connection.commit()
