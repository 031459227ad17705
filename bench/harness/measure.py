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


TICKS = os.sysconf("SC_CLK_TCK")
#: A process that forked a moment ago still shows its parent's memory as its own; it counts once it runs a program of
#: its own, or has stayed a fork for so many samples. (A JVM forks for every `chmod`.)
FORK_SAMPLES = 10


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


class _Sampler:
    """Adds up the resident sets of a process tree and remembers the largest sum, and each process's processor time."""

    def __init__(self, pid):
        self.pid = pid
        self.peak = 0
        self.ticks = {}
        self.forks = {}
        self.stop = threading.Event()

    def sample(self):
        programs, total = {}, 0
        todo = [(self.pid, None)]
        while todo:
            pid, parent = todo.pop()
            if pid in programs:
                continue
            programs[pid] = _read(f"/proc/{pid}/cmdline")
            todo.extend((child, pid) for child in _children(pid))
            # After the last bracket: the name before it may hold anything. Fields 14 and 15 are the ticks.
            stat = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            if len(stat) > 12:
                self.ticks[pid] = int(stat[11]) + int(stat[12])
            if parent is not None and programs[pid] == programs[parent]:
                self.forks[pid] = self.forks.get(pid, 0) + 1
                if self.forks[pid] < FORK_SAMPLES:
                    continue
            statm = _read(f"/proc/{pid}/statm").split()
            if len(statm) > 1:
                total += int(statm[1]) * PAGE
        self.peak = max(self.peak, total)

    def loop(self):
        while not self.stop.is_set():
            self.sample()
            self.stop.wait(INTERVAL)


def run(argv, cwd, env=None):
    """Runs to the end. A failure raises, with the end of what the command said."""
    environment = {**os.environ, **(env or {})}
    started = time.perf_counter()
    process = subprocess.Popen(
        argv, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    sampler = _Sampler(process.pid)
    thread = threading.Thread(target=sampler.loop, daemon=True)
    thread.start()
    output = process.stdout.read()
    # wait4 tells the kernel's own high-water mark too: a short peak between two samples is not lost.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    sampler.stop.set()
    thread.join()
    process.stdout.close()
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    if code != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))} ended with {code}\n{output[-4000:]}")
    return Measured(
        seconds=seconds,
        # The kernel's sum leaves out children nobody waited for; the sampled one, the last 10 ms of each process.
        cpu_seconds=max(usage.ru_utime + usage.ru_stime, sum(sampler.ticks.values()) / TICKS),
        peak_bytes=max(sampler.peak, usage.ru_maxrss * 1024),
        output=output,
    )
