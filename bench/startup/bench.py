"""The shortest query there is, from the shell's prompt and back."""

from harness.benchmark import PYTHON, Benchmark, Contender, gristmill

BENCHMARK = Benchmark(
    name="startup",
    about="start, answer `select 1`, end",
    prepare=lambda: None,
    contenders=[
        gristmill("sql", "select 1"),
        Contender("duckdb", [PYTHON, "-c", "import duckdb; print(duckdb.sql('select 1').fetchall())"]),
        Contender("polars", [PYTHON, "-c", "import polars; print(polars.sql('select 1').collect())"]),
    ],
    goals="gristmill under 50 ms (the peers' times hold Python's own start)",
)
