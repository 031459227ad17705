"""What a benchmark is: data, contenders, and how their answers are compared."""

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
DATA = BENCH / "data"
OUT = DATA / "out"
PYTHON = sys.executable


@dataclass
class Contender:
    """One way to do the job. `argv` runs it from the repository's root; `out` is all it writes, emptied before every
    run; `answer` reads back what it wrote as a dictionary that must be equal for all; `size` is of what it wrote."""

    name: str
    argv: list
    out: Path | None = None
    also_wipe: list = field(default_factory=list)
    env: dict = field(default_factory=dict)
    answer: Callable[[Path], dict] | None = None
    #: The part of `out` whose bytes are compared.
    sized: str = ""
    #: What is done before every run, and not measured.
    before: Callable[[], None] | None = None
    #: The seconds that count, from what it prints; the wall clock where there is none.
    seconds: Callable[[str], float] | None = None
    #: How many rounds are measured where fewer than asked for are enough (slow peers); `None` for all.
    runs: int | None = None
    #: Why it cannot run here; then it is skipped, aloud.
    missing: str | None = None

    def wipe(self):
        for path in [self.out, *self.also_wipe]:
            if path is None:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()
        if self.out is not None:
            self.out.mkdir(parents=True)

    def bytes_written(self):
        if self.out is None:
            return 0
        start = self.out / self.sized
        if start.is_file():
            return start.stat().st_size
        files = (path for path in start.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files if not any(part.startswith(("_", ".")) for part in path.relative_to(start).parts))


@dataclass
class Benchmark:
    name: str
    about: str
    prepare: Callable[[], None]
    contenders: list
    #: The contender whose size ours must be within 5 % of.
    size_peer: str | None = None
    #: Our own contender with units of so many rows, for `--target-rows`.
    with_target_rows: Callable[[int], Contender] | None = None
    #: The goals, as printed under the table.
    goals: str = ""


def gristmill(*arguments, **options):
    """Our own contender: the binary of `GRISTMILL`, or the release build of this checkout."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = Path(os.environ.get("GRISTMILL", target / "release" / "gristmill"))
    missing = None if binary.exists() else "no release build: `cargo build --release`, or set GRISTMILL to the binary"
    other = options.pop("missing", None)
    missing = missing or other
    return Contender(options.pop("name", "gristmill"), [str(binary), *map(str, arguments)], missing=missing, **options)


def pipeline(folder, *arguments, **options):
    """Our own contender, for a benchmark that is a project: its pipeline, everything loaded anew."""
    state = [folder / ".gristmill"]
    return gristmill("run", folder, "--date", "2024-01-01", "--full-refresh", *arguments, also_wipe=state, **options)


def peer(name, script, *arguments, **options):
    """A peer's script, run by the pinned Python."""
    missing = None
    if name == "pyspark" and shutil.which("java") is None:
        missing = "no Java on the PATH"
    return Contender(name, [PYTHON, str(script), *map(str, arguments)], missing=missing, **options)
