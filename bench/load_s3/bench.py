"""Parquet to an S3-like store on this machine, against putting the same bytes there as they are."""

import atexit
import os
import shutil
import subprocess
from pathlib import Path

from harness import tpch
from harness.benchmark import BENCH, DATA, OUT, ROOT, Benchmark, Contender, gristmill

HERE = BENCH / "load_s3"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
PUT, SERVER = TARGET / "examples" / "put", TARGET / "s3-server"
MISSING = (
    None if PUT.exists() and SERVER.exists()
    else "no release build: `cargo build --release --workspace --bins --example put`"
)
KEY, SECRET, PORT = "bench", "bench-secret", 54331
ENDPOINT = f"http://127.0.0.1:{PORT}"
STORE, FOLDER, BLOBS = OUT / "load_s3" / "store", OUT / "load_s3" / "folder", DATA / "blobs" / "blobs.parquet"


def prepare():
    tpch.parquet()
    if not BLOBS.exists():
        BLOBS.parent.mkdir(parents=True, exist_ok=True)
        import pyarrow
        import pyarrow.parquet

        # 1 GB that nothing makes smaller: 16,384 rows of 64 KB.
        schema = pyarrow.schema([("id", pyarrow.int64()), ("bytes", pyarrow.binary())])
        with pyarrow.parquet.ParquetWriter(BLOBS, schema, compression="none", use_dictionary=False) as writer:
            for group in range(64):
                rows = [os.urandom(65_536) for _ in range(256)]
                writer.write_table(pyarrow.table([list(range(group * 256, group * 256 + 256)), rows], schema=schema))
    if MISSING:
        return
    STORE.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen([SERVER, STORE, str(PORT), KEY, SECRET, "bench"], stdout=subprocess.PIPE, text=True)
    server.stdout.readline()
    atexit.register(server.kill)
    # What a load writes, as files to be put.
    for name in ("blobs", "lineitem"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        argv = gristmill("run", HERE, "--pipeline", name, "--date", "2024-01-01", "--profile", "local", "--full-refresh").argv
        subprocess.run(argv, check=True, env={**os.environ, "STORE_ENDPOINT": ENDPOINT}, capture_output=True)


def empty():
    for path in (STORE / "bench").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def ours(name):
    return gristmill(
        "run", HERE, "--pipeline", name, "--date", "2024-01-01", name=f"gristmill {name}", also_wipe=[HERE / ".gristmill"],
        env={"STORE_ENDPOINT": ENDPOINT}, missing=MISSING, before=empty,
    )


def raw(name):
    argv = [str(PUT), ENDPOINT, "bench", KEY, SECRET, str(FOLDER / name)]
    return Contender(f"raw put {name}", argv, missing=MISSING, before=empty)


BENCHMARK = Benchmark(
    name="load_s3",
    about="Parquet to an S3-like store (s3s-fs, a process of its own): 1 GB of bytes, lineitem, lineitem in 1,000 partitions and in 1,000 buckets",
    prepare=prepare,
    contenders=[ours("blobs"), raw("blobs"), ours("lineitem"), raw("lineitem"), ours("partitions"), ours("buckets")],
    goals="blobs at most 1.2 times the raw put of the same bytes; 1,000 partitions in at most 300 MB",
)
