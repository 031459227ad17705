"""Runs a command and measures wall clock, processor time and the peak resident set of its whole process tree."""

import os
import subprocess
import threading
import time
from dataclasses import dataclass

PAGE = os.sysconf("SC_PAGE_SIZE")
INTERVAL = 0.01


@dataclass
class Measured:
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def _children(pid):
    found = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as children:
                found.extend(int(child) for child in children.read().split())
        except OSError:
            pass
    return found


def _tree(pid):
    """The process, its children, theirs, … Only children of living parents: servers are not among them."""
    todo, seen = [pid], set()
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            todo.extend(_children(one))
    return seen


def _resident(pid):
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _sample(pid, stop, peak):
    while not stop.is_set():
        peak[0] = max(peak[0], sum(_resident(one) for one in _tree(pid)))
        stop.wait(INTERVAL)


def run(argv, cwd, env=None):
    """Runs to the end. A failure raises, with the end of what the command said."""
    environment = {**os.environ, **(env or {})}
    started = time.perf_counter()
    process = subprocess.Popen(
        argv, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    peak, stop = [0], threading.Event()
    sampler = threading.Thread(target=_sample, args=(process.pid, stop, peak), daemon=True)
    sampler.start()
    output = process.stdout.read()
    # wait4 tells the kernel's own high-water mark too: a short peak between two samples is not lost.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    stop.set()
    sampler.join()
    process.stdout.close()
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    if code != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))} ended with {code}\n{output[-4000:]}")
    return Measured(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=max(peak[0], usage.ru_maxrss * 1024),
        output=output,
    )
