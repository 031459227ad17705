"""A PostgreSQL server of the benchmarks' own, with lineitem in it: Debian's defaults, on a port of its own."""

import atexit
import functools
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


@functools.cache
def start():
    """Starts the server, made if need be; it stops with this process. Once, however often it is asked for."""
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


def ready():
    """The server is up, with the benchmarks' database."""
    start()
    if _admin("SELECT count(*) FROM pg_database WHERE datname = 'bench'") == "0":
        _admin("CREATE DATABASE bench")


def _is_whole(table):
    """Whether the table was loaded to the end: analyzed last."""
    return psql(f"SELECT coalesce((SELECT reltuples > 0 FROM pg_class WHERE oid = to_regclass('public.{table}')), false)") == "t"


def lineitem(scale=1):
    """lineitem in the server (`lineitem_sf5` at scale 5), vacuumed and analyzed."""
    ready()
    table = "lineitem" if scale == 1 else f"lineitem_sf{scale}"
    if _is_whole(table):
        return
    names = {"VARCHAR": "text", "INTEGER": "integer", "BIGINT": "bigint", "DATE": "date", "DECIMAL(15,2)": "numeric(15,2)"}
    columns = ", ".join(f"{column} {names[kind]} NOT NULL" for column, kind in tpch.COLUMNS.items())
    psql(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} ({columns})")
    with tpch.csv(scale).open("rb") as rows:
        psql(f"COPY {table} FROM STDIN (FORMAT csv, DELIMITER '|', HEADER)", stdin=rows)
    psql(f"VACUUM (FREEZE, ANALYZE) {table}")


#: A row of 20 columns, most of them texts and JSON, by formulas over the row's number: name, type, expression, and the
#: type by which answers are compared.
WIDE = {
    "id": ("bigint", "i", "BIGINT"),
    "account": ("integer", "(i * 7919 % 100003)::int", "INTEGER"),
    "reference": ("text", "md5(i::text)", "VARCHAR"),
    "session": ("uuid", "md5('s' || i)::uuid", "VARCHAR"),
    "email": ("text", "CASE WHEN i % 17 = 0 THEN NULL ELSE 'user' || (i * 31 % 500009) || '@example.com' END", "VARCHAR"),
    "full_name": ("text", "'Name ' || substr(md5((i % 20011)::text), 1, 12) || ' Family ' || (i % 9973)", "VARCHAR"),
    "country": ("text", "(ARRAY['DE','FR','US','BR','IN','JP','NG','ZA'])[1 + i % 8]", "VARCHAR"),
    "city": ("text", "'City ' || (i * 13 % 4001)", "VARCHAR"),
    "status": ("text", "(ARRAY['new','paid','sent','done','lost'])[1 + i * 3 % 5]", "VARCHAR"),
    "amount": ("numeric(18,4)", "((i * 48271 % 2147483647)::numeric / 10000)", "DECIMAL(18,4)"),
    "score": ("double precision", "(i % 10007) / 10007.0::float8", "DOUBLE"),
    "active": ("boolean", "i % 3 <> 0", "BOOLEAN"),
    "created_at": ("timestamptz", "timestamptz '2020-01-01 00:00:00+00' + i * interval '37 seconds'", "TIMESTAMPTZ"),
    "updated_at": ("timestamp", "CASE WHEN i % 5 = 0 THEN NULL ELSE timestamp '2024-01-01' + i * interval '11 seconds' END", "TIMESTAMP"),
    "born": ("date", "date '1950-01-01' + (i % 20000)::int", "DATE"),
    "title": ("text", "'Title ' || md5((i * 3)::text) || ' of ' || (i % 1009)", "VARCHAR"),
    "note": ("text", "CASE WHEN i % 4 = 0 THEN NULL ELSE repeat(md5((i * 5)::text) || ' ', 1 + (i % 6)::int) END", "VARCHAR"),
    "tags": ("json", "json_build_array('t' || i % 11, 't' || i % 13, 't' || i % 17)", "VARCHAR"),
    "payload": (
        "jsonb",
        "jsonb_build_object('id', i, 'kind', 'k' || i % 23, 'token', md5((i * 7)::text), 'nested', jsonb_build_object('a', i % 101, 'b', i % 2 = 0))",
        "VARCHAR",
    ),
    "comment": ("text", "'comment ' || md5((i * 11)::text) || md5((i * 13)::text)", "VARCHAR"),
}
WIDE_ROWS = 2_000_000


def wide():
    """The wide table in the server, vacuumed and analyzed."""
    ready()
    if _is_whole("wide"):
        return
    columns = ", ".join(f"{name} {kind}" for name, (kind, _, _) in WIDE.items())
    values = ", ".join(expression for _, expression, _ in WIDE.values())
    psql(
        f"DROP TABLE IF EXISTS wide; CREATE TABLE wide ({columns});"
        f"INSERT INTO wide SELECT {values} FROM generate_series(1::bigint, {WIDE_ROWS}) AS i"
    )
    psql("VACUUM (FREEZE, ANALYZE) wide")
