"""The commit of 10,000 staged local files in 100 folders, and the recovery of one of 1,000 that was killed half way.

Both times are inner ones, which the program prints itself (five rounds, medians): run it directly to see them,
`target/release/examples/commit`. The time of the process has the staging of all those files in it."""

import os
from pathlib import Path

from harness.benchmark import OUT, ROOT, Benchmark, Contender

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = TARGET / "release" / "examples" / "commit"
MISSING = None if BINARY.exists() else "no release build: `cargo build --release -p gristmill-connect --example commit`"

BENCHMARK = Benchmark(
    name="commit",
    about="commit of 10,000 staged local files in 100 folders; recovery of a killed commit of 1,000",
    prepare=lambda: (OUT / "commit").mkdir(parents=True, exist_ok=True),
    contenders=[Contender("gristmill", [str(BINARY)], out=OUT / "commit", runs=1, missing=MISSING)],
    goals="the commit under 2 s, the recovery under 1 s (printed by the program)",
)
