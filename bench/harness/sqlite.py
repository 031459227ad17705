"""A SQLite file with lineitem in it: row ids, no further index, in WAL mode."""

import csv
import sqlite3

from . import tpch
from .benchmark import DATA

FILE = DATA / "sqlite" / "lineitem.db"


def lineitem():
    """lineitem in the file, analyzed."""
    if FILE.exists():
        return
    tpch.csv()
    FILE.parent.mkdir(parents=True, exist_ok=True)
    making = FILE.with_suffix(".making")
    making.unlink(missing_ok=True)
    names = {"VARCHAR": "TEXT"}
    columns = ", ".join(f"{column} {names.get(kind, kind)} NOT NULL" for column, kind in tpch.COLUMNS.items())
    places = ", ".join("?" for _ in tpch.COLUMNS)
    with sqlite3.connect(making) as database, tpch.CSV.open(newline="") as file:
        database.execute(f"CREATE TABLE lineitem ({columns})")
        rows = csv.reader(file, delimiter="|")
        next(rows)
        database.executemany(f"INSERT INTO lineitem VALUES ({places})", rows)
        database.commit()
        database.execute("ANALYZE")
        database.execute("PRAGMA journal_mode = WAL")
    database.close()
    making.rename(FILE)
