"""How much the long tests do: all of a matrix, or a share of it that differs from commit to commit."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import pytest

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """One run's measure, as the options of tests/conftest.py say it. `seed` decides all that chance decides."""

    seed: int
    share: int
    kills: int
    hours: float
    packages: int
    cuts: int
    fuzz_seconds: float

    @classmethod
    def of(cls, config: pytest.Config) -> Self:
        """From pytest's options; the seed is the commit's hash unless one was given."""
        seed = config.getoption("seed")
        return cls(
            seed=_commit_as_number() if seed is None else seed,
            share=config.getoption("share"),
            kills=config.getoption("kills"),
            hours=config.getoption("hours"),
            packages=config.getoption("packages"),
            cuts=config.getoption("cuts"),
            fuzz_seconds=config.getoption("fuzz_seconds"),
        )

    def rng(self, what: str) -> random.Random:
        """Chance for one purpose, the same in every run with this seed."""
        return random.Random(f"{self.seed} {what}")

    def shuffled(self, cases: list[_T], what: str) -> list[_T]:
        """The same cases in another order, so that a run cut short has seen a bit of everything."""
        return self.rng(f"order of {what}").sample(cases, len(cases))

    def sample(self, cases: list[_T], what: str) -> list[_T]:
        """One case in `share`, at least one, in order; over many commits each gets its turn."""
        if self.share <= 1 or not cases:
            return cases
        first = self.rng(what).randrange(min(self.share, len(cases)))
        return cases[first :: self.share]


def _commit_as_number() -> int:
    here = Path(__file__).parent
    # The clone may belong to another user, as in a container.
    command = ["git", "-c", "safe.directory=*", "rev-parse", "--short=12", "HEAD"]
    told = subprocess.run(command, cwd=here, capture_output=True, text=True)
    return int(told.stdout, 16) if told.returncode == 0 else 0
