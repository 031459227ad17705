"""lineitem from PostgreSQL to zstd Parquet."""

from harness import checksum, postgres, tpch
from harness.benchmark import BENCH, OUT, PYTHON, Benchmark, Contender, peer, pipeline

HERE = BENCH / "extract"


def out(name):
    return OUT / "extract" / name


def answer(folder):
    """The types are left out: ConnectorX makes doubles of decimals, ADBC texts. Their values are compared as decimals."""
    found = checksum.parquet(folder / "lineitem" / "**" / "*.parquet", tpch.COLUMNS)
    found.pop("types")
    return found


def scripted(script, *more, name=None):
    name = name or script
    place = out(name.replace(" ", "_"))
    return peer(name, HERE / f"{script}_extract.py", postgres.URL, place / "lineitem", *more, out=place, answer=answer)


def with_target_rows(rows):
    name = f"rows_{rows}"
    return pipeline(
        HERE, "--pipeline", "sized", "--param", f"target_rows={rows}", "--param", f"out={name}", name=name, out=out(name),
        env={"LINEITEM_URL": postgres.URL}, answer=answer, sized="lineitem",
    )


BENCHMARK = Benchmark(
    name="extract",
    about="lineitem from PostgreSQL (6,001,215 rows, 839 MB of heap) to zstd Parquet",
    prepare=postgres.lineitem,
    with_target_rows=with_target_rows,
    contenders=[
        pipeline(
            HERE, out=out("gristmill"), env={"LINEITEM_URL": postgres.URL}, answer=answer,
            sized="lineitem",
        ),
        # Not a peer: what the server needs for sending the rows to nobody, on two connections.
        Contender("yardstick", [PYTHON, str(HERE / "yardstick.py"), postgres.URL]),
        scripted("connectorx"),
        scripted("adbc"),
        scripted("dlt"),
        scripted("rivet"),
        scripted("rivet", "lineitem", "-", name="rivet defaults"),
    ],
    goals="at least 2.1 times faster than ConnectorX, 3 times ADBC and dlt, 5 times rivet; at most 1.8 times the yardstick; at most 100 MB",
)
