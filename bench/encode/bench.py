"""lineitem in memory to one zstd Parquet file, on one core."""

import os
import re
from pathlib import Path

from harness import tpch
from harness.benchmark import OUT, ROOT, Benchmark, Contender

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = TARGET / "release" / "examples" / "encode"
MISSING = None if BINARY.exists() else "no release build: `cargo build --release -p gristmill-connect --example encode`"


def contender(name, way):
    place = OUT / "encode" / way
    argv = ["taskset", "-c", "0", str(BINARY), way, str(tpch.PARQUET), str(place)]
    return Contender(name, argv, out=place, missing=MISSING, seconds=printed)


def printed(output):
    """The time that the program prints: its rows are decoded before."""
    return float(re.search(r"([0-9.]+) s", output).group(1))


BENCHMARK = Benchmark(
    name="encode",
    about="lineitem (6,001,215 rows in memory) to zstd Parquet by one core; decoding is not counted, fsync is",
    prepare=tpch.parquet,
    contenders=[contender("gristmill", "gristmill"), contender("arrow writer", "bare")],
    goals="at least 0.97 of the arrow writer's speed",
)
