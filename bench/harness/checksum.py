"""Answers that can be compared: a row count and a checksum for each column, whatever the order of rows and files."""

import hashlib
import sqlite3

import duckdb


def parquet(pattern, columns, hive=False, expressions=None):
    """Rows, and per column the sum of the hashes of its values, in the given types. Types that differ are an answer of
    their own (`types`), so that an engine that made doubles of decimals does not pass for equal. `expressions` are
    further values to sum, by name."""
    connection = duckdb.connect()
    source = f"read_parquet('{pattern}', hive_partitioning={'true' if hive else 'false'}, hive_types_autocast=false)"
    found = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    sums = ", ".join(f'sum(hash(CAST("{name}" AS {kind}))::HUGEINT)' for name, kind in columns.items())
    # Pairs of columns are tied together by one hash of the whole row.
    row = ", ".join(f'CAST("{name}" AS {kind})' for name, kind in columns.items())
    expressions = expressions or {}
    more = "".join(f", sum(hash({expression})::HUGEINT)" for expression in expressions.values())
    counted = connection.execute(f"SELECT count(*), sum(hash(({row}))::HUGEINT), {sums}{more} FROM {source}").fetchone()
    answer = {"rows": counted[0], "row checksum": str(counted[1])}
    answer.update({name: str(value) for name, value in zip([*columns, *expressions], counted[2:], strict=True)})
    answer["types"] = {name: found.get(name) for name in columns if not (hive and found.get(name) == "VARCHAR")}
    return answer


def sqlite(path, query, formats):
    """A digest of a query's rows, each value written in its format (`{:.6f}` takes numbers that stand as text, too)."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    lines = []
    for row in connection.execute(query):
        values = (float(value) if "f" in spec else value for value, spec in zip(row, formats, strict=True))
        lines.append("|".join(spec.format(value) for value, spec in zip(values, formats, strict=True)))
    connection.close()
    lines.sort()
    return {"rows": len(lines), "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]}
