"""The daemon, killed at a chosen system call of any of its threads; `tracer.py` does it."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.host import unmet


@dataclass(frozen=True, slots=True)
class Target:
    """The n-th time that any thread makes a call; `any`: one that writes, moves, syncs or sends. 0: never."""

    call: str = "any"
    number: int = 0

    def __str__(self) -> str:
        return f"{self.call} {self.number}"


@dataclass(frozen=True, slots=True)
class Made:
    """One recorded call, and what it was about: paths, or a socket."""

    call: str
    about: str


def require_tracer() -> None:
    """Skip the test where the tracer knows no system calls."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        unmet("the tracer knows the system calls of Linux on x86-64 only")


def recorded(record: Path) -> list[Made]:
    """The calls that a daemon made before it ended, in order."""
    found = [line.split(" ", 2) for line in record.read_text(errors="surrogateescape").splitlines()]
    return [Made(call, about) for call, _, about in found]


def targets(made: list[Made], first: int = 0) -> list[Target]:
    """A target for each recorded call from the `first` on, numbered as the tracer counts."""
    counts: dict[str, int] = {}
    found = []
    for one in made:
        counts[one.call] = counts.get(one.call, 0) + 1
        found.append(Target(one.call, counts[one.call]))
    return found[first:]
