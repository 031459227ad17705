"""Ten times the rows, the same peak memory: a streaming copy of 600,000 and of 6,000,000 rows."""

from harness import tpch
from harness.benchmark import BENCH, DATA, OUT, Benchmark, peer, pipeline

HERE = BENCH / "memory"
FOLDER = DATA / "memory"
SIZES = {"1x": 600_000, "10x": 6_000_000}


def prepare():
    """The first so many lines of lineitem.csv, header included."""
    tpch.csv()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, rows in SIZES.items():
        path = FOLDER / f"lineitem_{name}.csv"
        if path.exists():
            continue
        part = path.with_suffix(".part")
        with open(tpch.CSV, "rb") as source, open(part, "wb") as target:
            for line, _ in zip(source, range(rows + 1), strict=False):
                target.write(line)
        part.rename(path)


def out(name):
    return OUT / "memory" / name


def ours(size):
    name = f"gristmill {size}"
    folder = out(f"gristmill_{size}")
    return pipeline(
        HERE, "--param", f"size={size}",
        name=name, out=folder, sized="lineitem",
    )


def theirs(tool, size):
    folder = out(f"{tool}_{size}")
    script = BENCH / "copy_csv" / f"{tool}_copy.py"
    contender = peer(tool, script, FOLDER / f"lineitem_{size}.csv", folder / "lineitem", out=folder)
    contender.name = f"{tool} {size}"
    return contender


BENCHMARK = Benchmark(
    name="memory",
    about="peak memory of a streaming copy (CSV to zstd Parquet) of 0.6 and of 6 million rows",
    prepare=prepare,
    contenders=[
        *(ours(size) for size in SIZES),
        *(theirs(tool, size) for tool in ("polars", "duckdb") for size in SIZES),
    ],
    goals="gristmill's two peaks within 20 % of each other",
)
