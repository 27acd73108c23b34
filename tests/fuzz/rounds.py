"""Look for counterexamples for a while: rounds of hypothesis, each by a seed of its own, so that each can be repeated.

Hypothesis, not a coverage-guided fuzzer: nearly every random byte that changes breaks a ZIP at its first check, so what
reaches the deep checks are changes that know the format (a field, a record, a whole directory), and of these
hypothesis finds a failing one that is as small as can be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from tests.support.extent import Extent

_T = TypeVar("_T")
_EXAMPLES: Final = 100


def look_for_a_failure(extent: Extent, cases: SearchStrategy[_T], check: Callable[[_T], object]) -> int:
    """Check one case after the other for `--fuzz-seconds`; gives how many. The first failing one is printed, shrunk.

    Which cases come is decided by the seed alone; how many, by the time. `--seed N` begins with the round that failed.
    """
    began, checked, number = time.monotonic(), 0, extent.seed

    def one(case: _T) -> None:
        nonlocal checked
        checked += 1
        check(case)

    while time.monotonic() - began < extent.fuzz_seconds:
        wrapped = settings(
            max_examples=_EXAMPLES,
            database=None,
            deadline=None,
            print_blob=True,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )(seed(number)(given(cases)(one)))
        try:
            wrapped()
        except BaseException as failure:
            failure.add_note(f"to repeat: --seed {number}")
            raise
        number += 1
    return checked
