"""Five times the rows, the same peak memory: lineitem at scale 1 and 5 from PostgreSQL to zstd Parquet."""

from harness import postgres
from harness.benchmark import BENCH, OUT, Benchmark, pipeline

HERE = BENCH / "extract_scale"


def prepare():
    for scale in (1, 5):
        postgres.lineitem(scale)


def ours(scale):
    table = "lineitem" if scale == 1 else f"lineitem_sf{scale}"
    out = OUT / "extract_scale" / table
    return pipeline(HERE, "--param", f"table={table}", name=f"gristmill sf{scale}", out=out, env={"LINEITEM_URL": postgres.URL})


BENCHMARK = Benchmark(
    name="extract_scale",
    about="peak memory of extracting lineitem at scale 1 (6 million rows) and 5 (30 million rows)",
    prepare=prepare,
    contenders=[ours(1), ours(5)],
    goals="the two peaks within 20 % of each other",
)
