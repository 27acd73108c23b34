"""What a process has used so far, as Linux counts it. See proc(5)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_STEAL = 7
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One look: seconds of CPU, bytes in memory now and at most, threads, context switches of all threads."""

    cpu: float
    rss: int
    peak_rss: int
    threads: int
    switches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a piece of work took: seconds of time, and of CPU."""

    seconds: float
    cpu: float


def look(pid: int) -> Usage:
    """Look at a process. Its CPU time is the scheduler's own, in ns, where `stat` counts in ticks of 10 ms."""
    tasks = [Path(f"/proc/{pid}/task/{task}") for task in os.listdir(f"/proc/{pid}/task")]
    status = _status(Path(f"/proc/{pid}"))
    return Usage(
        cpu=sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9,
        rss=int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE,
        peak_rss=_kib(status["VmHWM"]),
        threads=len(tasks),
        switches=sum(_switches(_status(task)) for task in tasks),
    )


class Stopwatch:
    """Seconds and seconds of CPU that this process and its children that have ended use from now on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._cpu = _own_cpu()

    def read(self) -> Spent:
        """What was spent so far."""
        return Spent(seconds=time.monotonic() - self._began, cpu=_own_cpu() - self._cpu)


def _own_cpu() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


class Stolen:
    """How much of this machine's CPU others had from now on: a virtual machine's steal, which no load shows."""

    def __init__(self) -> None:
        self._before = _ticks()

    def percent(self) -> float:
        """Stolen ticks in a hundred, of all cores, so far."""
        passed = [after - before for before, after in zip(self._before, _ticks(), strict=True)]
        return 100 * passed[_STEAL] / max(1, sum(passed))


def _ticks() -> list[int]:
    """Ticks of all cores by what they did, without guests' time, which is in user's already."""
    cpu = Path("/proc/stat").read_text().split("\n", 1)[0]
    return [int(ticks) for ticks in cpu.split()[1 : _STEAL + 2]]


def _status(folder: Path) -> Mapping[str, str]:
    lines = (folder / "status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


def _switches(status: Mapping[str, str]) -> int:
    return int(status["voluntary_ctxt_switches"]) + int(status["nonvoluntary_ctxt_switches"])


def _kib(text: str) -> int:
    return int(text.split()[0]) * 1024
