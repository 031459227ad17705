"""A PostgreSQL server of the benchmarks' own, with lineitem in it: Debian's defaults, on a port of its own."""

import atexit
import os
import shutil
import subprocess
from pathlib import Path

from . import tpch
from .benchmark import DATA

FOLDER = DATA / "postgres"
PORT = 54329
URL = f"postgres://bench@127.0.0.1:{PORT}/bench"


def _programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if shutil.which("initdb"):
        return Path(shutil.which("initdb")).parent
    raise RuntimeError("no PostgreSQL: apt-get install postgresql")


def _as_server(*words):
    # PostgreSQL refuses to be root.
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return subprocess.run([*user, *map(str, words)], check=True, cwd="/", capture_output=True, text=True).stdout


def psql(sql, **options):
    words = [_programs() / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", URL, "-c", sql]
    return subprocess.run(words, check=True, text=True, capture_output=True, **options).stdout.strip()


def _stop():
    _as_server(_programs() / "pg_ctl", "-D", FOLDER / "data", "-m", "fast", "-s", "stop")


def start():
    """Starts the server, made if need be; it stops with this process."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(FOLDER, "postgres", "postgres")
    data = FOLDER / "data"
    if not (data / "PG_VERSION").exists():
        _as_server(_programs() / "initdb", "-D", data, "-U", "bench", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust")
    options = f"-p {PORT} -c listen_addresses=127.0.0.1 -c unix_socket_directories={FOLDER}"
    _as_server(_programs() / "pg_ctl", "-D", data, "-l", FOLDER / "log", "-o", options, "-w", "-s", "start")
    atexit.register(_stop)


def _admin(sql):
    words = [_programs() / "psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", str(PORT), "-U", "bench", "-d", "postgres", "-c", sql]
    return subprocess.run(words, check=True, text=True, capture_output=True).stdout.strip()


def exists():
    """Whether the benchmarks' database is there."""
    return _admin("SELECT count(*) FROM pg_database WHERE datname = 'bench'") != "0"


def create():
    _admin("CREATE DATABASE bench")


def lineitem():
    """lineitem in the server, vacuumed and analyzed."""
    start()
    if not exists():
        create()
    if psql("SELECT coalesce((SELECT reltuples > 0 FROM pg_class WHERE relname = 'lineitem'), false)") == "t":
        return
    tpch.csv()
    names = {"VARCHAR": "text", "INTEGER": "integer", "BIGINT": "bigint", "DATE": "date", "DECIMAL(15,2)": "numeric(15,2)"}
    columns = ", ".join(f"{column} {names[kind]} NOT NULL" for column, kind in tpch.COLUMNS.items())
    psql(f"DROP TABLE IF EXISTS lineitem; CREATE TABLE lineitem ({columns})")
    with tpch.CSV.open("rb") as rows:
        psql("COPY lineitem FROM STDIN (FORMAT csv, DELIMITER '|', HEADER)", stdin=rows)
    psql("VACUUM (FREEZE, ANALYZE) lineitem")
