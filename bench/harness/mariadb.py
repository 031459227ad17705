"""A MariaDB server of the benchmarks' own, with lineitem in it: the server's defaults, on a port of its own."""

import atexit
import os
import subprocess
import time

from . import tpch
from .benchmark import DATA

FOLDER = DATA / "mariadb"
SOCKET = FOLDER / "socket"
PORT = 33069
URL = f"mysql://bench:bench@127.0.0.1:{PORT}/bench"


def mariadb(sql, database="mysql", **options):
    words = ["mariadb", "--no-defaults", "--batch", "--skip-column-names", "--local-infile=1", "--user=root", f"--socket={SOCKET}", database]
    return subprocess.run(words, input=sql, check=True, text=True, capture_output=True, **options).stdout.strip()


def start():
    """Starts the server, made if need be; it stops with this process."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    user = ["--user=root"] if os.geteuid() == 0 else []
    data = FOLDER / "data"
    if not (data / "mysql").exists():
        install = ["mariadb-install-db", "--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]
        subprocess.run([*install, f"--datadir={data}", *user], check=True, capture_output=True)
    words = ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={SOCKET}", f"--port={PORT}", *user]
    options = ["--bind-address=127.0.0.1", "--skip-name-resolve", "--local-infile=1", "--character-set-server=utf8mb4"]
    with (FOLDER / "log").open("ab") as log:
        server = subprocess.Popen([*words, *options], stdout=log, stderr=log)

    def stop():
        server.terminate()
        server.wait()

    atexit.register(stop)
    end = time.monotonic() + 60
    while True:
        try:
            mariadb("SELECT 1")
            break
        except subprocess.CalledProcessError as error:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"MariaDB does not start: {error.stderr}; its log is {FOLDER / 'log'}") from error
            time.sleep(0.1)
    mariadb("CREATE DATABASE IF NOT EXISTS bench; CREATE USER IF NOT EXISTS bench IDENTIFIED BY 'bench'; GRANT ALL ON bench.* TO bench")


def lineitem():
    """lineitem in the server, with its primary key, analyzed."""
    start()
    if mariadb("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'bench' AND table_comment = 'whole'") == "1":
        return
    tpch.csv()
    names = {"VARCHAR": "varchar(50)"}
    columns = ", ".join(f"{column} {names.get(kind, kind)} NOT NULL" for column, kind in tpch.COLUMNS.items())
    load = f"LOAD DATA LOCAL INFILE '{tpch.CSV}' INTO TABLE lineitem FIELDS TERMINATED BY '|' OPTIONALLY ENCLOSED BY '\"' IGNORE 1 LINES"
    mariadb(
        f"DROP TABLE IF EXISTS lineitem; CREATE TABLE lineitem ({columns}, PRIMARY KEY (l_orderkey, l_linenumber));"
        f"{load}; ANALYZE TABLE lineitem; ALTER TABLE lineitem COMMENT 'whole'",
        database="bench",
    )
