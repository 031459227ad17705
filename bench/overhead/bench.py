"""What our layer costs: the same query through it and on bare DataFusion, both into a sink that only counts."""

import os
from pathlib import Path

from harness import tpch
from harness.benchmark import ROOT, Benchmark, Contender

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = TARGET / "release" / "examples" / "overhead"
MISSING = None if BINARY.exists() else "no release build: `cargo build --release --example overhead`"

BENCHMARK = Benchmark(
    name="overhead",
    about="lineitem through a filter and a projection into a counting sink",
    prepare=tpch.parquet,
    contenders=[
        Contender("gristmill", [str(BINARY), "gristmill", str(tpch.PARQUET)], missing=MISSING),
        Contender("bare DataFusion", [str(BINARY), "bare", str(tpch.PARQUET)], missing=MISSING),
    ],
    goals="at most 3 %",
)
