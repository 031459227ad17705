"""The command: prepare, warm up, run in turns, compare, report."""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import statistics
import sys
from importlib.metadata import PackageNotFoundError, version

from .benchmark import BENCH, ROOT
from .measure import run

RESULTS = BENCH / "results"
#: A smaller file is worth time; so times are compared only at sizes this close.
SIZE_TOLERANCE = 0.05
PACKAGES = ("duckdb", "polars", "pyspark", "pyarrow", "tpchgen-cli", "connectorx", "adbc-driver-postgresql", "dlt", "rivet-cli")


def versions():
    """The peers that are installed; what is not there cannot have taken part."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def benchmarks():
    return sorted(path.parent.name for path in BENCH.glob("*/bench.py"))


def load(name):
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / name / "bench.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BENCHMARK


def say(text=""):
    print(text, flush=True)


def main(about):
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help=f"one of: {', '.join(benchmarks())}")
    parser.add_argument("--runs", type=int, default=5, help="measured rounds (5)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before, not measured (1)")
    parser.add_argument("--only", help="contenders, separated by commas")
    parser.add_argument("--target-rows", help="also with units of so many rows; several separated by commas (extract)")
    parser.add_argument("--markdown", action="store_true", help="print the rows for docs/benchmarks.md, run nothing")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    options = parser.parse_args()
    if options.list or options.name is None:
        for name in benchmarks():
            say(f"{name:10} {load(name).about}")
        return 0
    if options.name not in benchmarks():
        say(f"there is no benchmark `{options.name}`\n  hint: one of {', '.join(benchmarks())}")
        return 2
    if options.runs < 1:
        say("`--runs` must be at least 1")
        return 2
    benchmark = load(options.name)
    if options.markdown:
        return markdown(benchmark)
    if options.target_rows:
        if benchmark.with_target_rows is None:
            say(f"`{benchmark.name}` has no units whose size could be chosen")
            return 2
        try:
            sizes = [int(size) for size in options.target_rows.split(",")]
        except ValueError:
            say("`--target-rows` is numbers, separated by commas")
            return 2
        benchmark.contenders += [benchmark.with_target_rows(size) for size in sizes]
    try:
        return measure(benchmark, options)
    except RuntimeError as failure:
        say(f"error: {failure}")
        return 1


def measure(benchmark, options):
    say(f"{benchmark.name}: {benchmark.about}")
    benchmark.prepare()
    contenders = []
    only = options.only.split(",") if options.only else None
    unknown = set(only or []) - {contender.name for contender in benchmark.contenders}
    if unknown:
        names = ", ".join(contender.name for contender in benchmark.contenders)
        say(f"no contender `{', '.join(sorted(unknown))}`\n  hint: one of {names}")
        return 2
    for contender in benchmark.contenders:
        if only and contender.name not in only:
            continue
        if contender.missing:
            say(f"SKIPPED: {contender.name}: {contender.missing}")
            continue
        contenders.append(contender)
    if not contenders:
        say("nothing to run")
        return 2

    runs = {contender.name: [] for contender in contenders}
    for number in range(-options.warmup, options.runs):
        for contender in contenders:
            if number >= 0 and contender.runs is not None and number >= contender.runs:
                continue
            contender.wipe()
            if contender.before is not None:
                contender.before()
            measured = run(contender.argv, ROOT, contender.env)
            if contender.seconds is not None:
                measured.seconds = contender.seconds(measured.output)
            if number >= 0:
                runs[contender.name].append(measured)
            label = f"run {number + 1}" if number >= 0 else "warm-up"
            say(f"  {label:8} {contender.name:12} {measured.seconds:8.3f} s  {measured.peak_bytes / 1e6:8.0f} MB")

    result = {
        "benchmark": benchmark.name,
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "peers": versions(),
        "contenders": [],
    }
    answers = {}
    for contender in contenders:
        if contender.answer:
            answers[contender.name] = contender.answer(contender.out)
        measured = runs[contender.name]
        result["contenders"].append(
            {
                "name": contender.name,
                "seconds": [round(one.seconds, 4) for one in measured],
                "cpu_seconds": [round(one.cpu_seconds, 4) for one in measured],
                "peak_bytes": [one.peak_bytes for one in measured],
                "median_seconds": round(statistics.median(one.seconds for one in measured), 4),
                "median_cpu_seconds": round(statistics.median(one.cpu_seconds for one in measured), 4),
                # The largest, not the median: a limit that is broken once is broken.
                "peak_bytes_max": max(one.peak_bytes for one in measured),
                "bytes_written": contender.bytes_written(),
                "answer": answers.get(contender.name),
            }
        )
    wrong = compare(benchmark, result, answers)
    result["wrong"] = wrong
    RESULTS.mkdir(exist_ok=True)
    stamp = result["at"].replace(":", "").replace("+0000", "Z")
    path = RESULTS / f"{benchmark.name}-{stamp}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    say()
    for line in table(result):
        say(line)
    if benchmark.goals:
        say(f"\ngoals: {benchmark.goals}")
    for line in wrong:
        say(f"WRONG: {line}")
    if answers and not wrong:
        say(f"answers are equal ({len(answers)} compared)")
    say(f"written to {path.relative_to(ROOT)}")
    return 1 if wrong else 0


def compare(benchmark, result, answers):
    wrong = []
    names = list(answers)
    for name in names[1:]:
        first, other = answers[names[0]], answers[name]
        for key in first:
            if first[key] != other.get(key):
                wrong.append(f"{name} and {names[0]} differ in {key}: {other.get(key)} and {first[key]}")
    sized = {one["name"]: one["bytes_written"] for one in result["contenders"]}
    ours, theirs = sized.get("gristmill"), sized.get(benchmark.size_peer)
    if ours and theirs and abs(theirs - ours) > SIZE_TOLERANCE * theirs:
        wrong.append(
            f"gristmill wrote {ours / 1e6:.1f} MB, {benchmark.size_peer} {theirs / 1e6:.1f} MB: "
            f"more than {SIZE_TOLERANCE:.0%} apart"
        )
    return wrong


def table(result):
    ours = next((one for one in result["contenders"] if one["name"].startswith("gristmill")), None)
    yield "| | median | fastest–slowest | processor | ratio | peak memory | written |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for one in result["contenders"]:
        seconds = one["median_seconds"]
        unit = (lambda value: f"{value * 1000:.0f} ms") if seconds < 0.5 else (lambda value: f"{value:.2f} s")
        ratio = f"{seconds / ours['median_seconds']:.2f}" if ours else "–"
        written = f"{one['bytes_written'] / 1e6:.1f} MB" if one["bytes_written"] else "–"
        yield (
            f"| {one['name']} | {unit(seconds)} | {unit(min(one['seconds']))}–{unit(max(one['seconds']))} "
            f"| {unit(one['median_cpu_seconds'])} | {ratio} | {one['peak_bytes_max'] / 1e6:.0f} MB | {written} |"
        )


def markdown(benchmark):
    results = sorted(RESULTS.glob(f"{benchmark.name}-[0-9]*.json"))
    if not results:
        print(f"no result of `{benchmark.name}` yet\n  hint: bench/run {benchmark.name}", file=sys.stderr)
        return 2
    result = json.loads(results[-1].read_text())
    for line in table(result):
        say(line)
    return 0
