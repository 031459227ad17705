"""TPC-H lineitem as CSV and as Parquet, made by tpchgen: at scale factor 1 unless told otherwise."""

import subprocess
import sys
from pathlib import Path

from .benchmark import DATA

FOLDER = DATA / "tpch"
CSV = FOLDER / "lineitem.csv"
PARQUET = FOLDER / "lineitem.parquet"

#: The columns in the types every contender declares.
COLUMNS = {
    "l_orderkey": "BIGINT",
    "l_partkey": "BIGINT",
    "l_suppkey": "BIGINT",
    "l_linenumber": "INTEGER",
    "l_quantity": "DECIMAL(15,2)",
    "l_extendedprice": "DECIMAL(15,2)",
    "l_discount": "DECIMAL(15,2)",
    "l_tax": "DECIMAL(15,2)",
    "l_returnflag": "VARCHAR",
    "l_linestatus": "VARCHAR",
    "l_shipdate": "DATE",
    "l_commitdate": "DATE",
    "l_receiptdate": "DATE",
    "l_shipinstruct": "VARCHAR",
    "l_shipmode": "VARCHAR",
    "l_comment": "VARCHAR",
}

#: Rows in a row group, for all: about what 128 MiB of lineitem come to.
ROW_GROUP_ROWS = 1_000_000


def _tpchgen(*arguments, scale=1, folder=FOLDER):
    folder.mkdir(parents=True, exist_ok=True)
    tool = Path(sys.executable).with_name("tpchgen-cli")
    shared = ["--scale-factor", str(scale), "--tables", "lineitem", "--output-dir", str(folder), "--quiet", "--overwrite"]
    subprocess.run([tool, *arguments, *shared], check=True)


def csv(scale=1):
    """lineitem.csv: `|` between fields, a header, quotes around comments (about 766 MB at scale 1). Gives back its path."""
    folder = FOLDER if scale == 1 else FOLDER / f"sf{scale}"
    path = folder / CSV.name
    if not path.exists():
        _tpchgen("csv", "--delimiter", "|", scale=scale, folder=folder)
    return path


def parquet():
    """lineitem.parquet: zstd 1, row groups of 128 MB (about 156 MB)."""
    if not PARQUET.exists():
        _tpchgen("parquet", "--compression", "ZSTD(1)", "--row-group-bytes", "128MB")
