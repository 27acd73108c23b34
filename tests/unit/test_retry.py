"""The minutes between attempts, and when a service is given up."""

from __future__ import annotations

import random
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfwatch.delivery.failure import BETWEEN_ROUNDS
from tfwatch.retry import Backoff, Breaker, Ramp, moments

SECONDS = st.floats(min_value=0, max_value=100_000, allow_nan=False)


@given(
    initial=st.floats(min_value=0.01, max_value=100),
    factor=st.floats(min_value=1, max_value=1000),
    failures=st.integers(min_value=1, max_value=10_000),
    seed=st.integers(),
)
def test_a_wait_lies_between_half_and_the_whole_of_its_ceiling(
    initial: float, factor: float, failures: int, seed: int
) -> None:
    """It doubles with each failure up to the maximum, half of it by chance; thousands of rounds don't overflow."""
    backoff = Backoff(initial=initial, maximum=initial * factor)
    ceiling = min(initial * factor, initial * 2.0 ** min(failures - 1, 60))

    assert ceiling / 2 <= backoff.delay(failures, random.Random(seed)) <= ceiling


def test_waits_of_a_crowd_are_spread() -> None:
    """A thousand packages that failed together don't come back together."""
    rng = random.Random(1)
    waits = [Backoff(initial=10, maximum=60).delay(1, rng) for _ in range(1000)]

    assert len(set(waits)) == 1000
    assert 7.3 < sum(waits) / 1000 < 7.7


def test_a_breaker_trips_at_its_threshold_and_not_before() -> None:
    """Only so many failures in a row give a service up."""
    breaker = Breaker(threshold=3)
    seen = []
    for moment in (0.0, 1.0, 2.0):
        breaker = breaker.failed(began=moment, now=moment)
        seen.append(breaker.tripped(moment))

    assert [False, False, True] == seen


def test_a_success_starts_the_count_anew() -> None:
    """Failures that were interrupted by a success are not consecutive."""
    breaker = Breaker(threshold=2).failed(began=0, now=1).succeeded().failed(began=200, now=201)

    assert not breaker.tripped(250)
    assert breaker.tripped(440)


def test_four_unbroken_minutes_trip_it_too() -> None:
    """A lone package reaches no threshold, but four minutes of failures count from the first request that failed."""
    breaker = Breaker(threshold=100).failed(began=10, now=40).failed(began=100, now=130)

    assert not breaker.tripped(249.9)
    assert breaker.tripped(250)


def test_the_earliest_beginning_counts() -> None:
    """Lanes report in any order: the window begins with the first request, not with the first report."""
    breaker = Breaker(threshold=9)
    for began in (7, 5, 6):
        breaker = breaker.failed(began=began, now=8)

    assert 5 == breaker.failing_since


def test_a_long_silence_is_no_failure() -> None:
    """After a day without any attempt one failure is one failure; it still counts for the threshold."""
    breaker = Breaker(threshold=2).failed(began=0, now=30)
    later = breaker.failed(began=86_400, now=86_430)
    assert 86_400 == later.failing_since
    assert later.tripped(86_430)

    assert not Breaker(threshold=3).failed(began=0, now=30).failed(began=86_400, now=86_430).tripped(86_430)
    assert Breaker(threshold=3).failed(began=0, now=30).failed(began=270, now=271).tripped(271)


def test_a_fresh_breaker_never_trips() -> None:
    """Without a failure there is nothing to judge, however late it is, nor a wait to shorten."""
    assert not Breaker(threshold=1).tripped(1e9)
    assert 30 == Breaker(threshold=1).wait(30, 1e9)


@given(since=SECONDS, later=SECONDS, delay=SECONDS)
def test_no_wait_steps_over_the_moment_that_decides(since: float, later: float, delay: float) -> None:
    """A wait is only ever made shorter, and a round falls on the end of the window."""
    breaker, now = Breaker(threshold=9).failed(began=since, now=since), since + later
    wait = breaker.wait(delay, now)

    assert wait <= delay
    if now < since + breaker.window:
        assert now + wait <= since + breaker.window + 1e-6
    else:
        assert delay == wait


@pytest.mark.parametrize("seed", range(20))
def test_a_lone_package_trips_within_five_minutes(seed: int) -> None:
    """One package alone against a dead service: from its first request to the decision no five minutes pass."""
    rng, breaker, now, failures = random.Random(seed), Breaker(threshold=1000), 0.0, 0
    while True:
        began = now
        now += 30
        failures += 1
        breaker = breaker.failed(began=began, now=now)
        if breaker.tripped(now):
            break
        now += breaker.wait(BETWEEN_ROUNDS.delay(failures, rng), now)

    assert 240 <= now <= 300


# --- coming back ------------------------------------------------------------------------------------------------------


def test_a_ramp_doubles_with_successes_a_step_apart() -> None:
    """One, 2, 4, 8 …: a success makes a step, but no sooner than half a step after the last one, nor later than one."""
    rng = random.Random(1)
    ramp, now, steps = Ramp.begin(100, rng, step=2), 100.0, []
    while ramp.limit < 64:
        now += 0.01
        before, ramp = ramp.limit, ramp.succeeded(now, rng)
        if ramp.limit != before:
            steps.append(now)
            assert 2 * before == ramp.limit == ramp.allows(now)
    gaps = [later - sooner for sooner, later in pairwise([100.0, *steps])]
    assert 6 == len(steps)
    assert all(0.99 <= gap <= 2.02 for gap in gaps), gaps
    assert 6 == len({round(gap, 6) for gap in gaps})


@pytest.mark.parametrize(
    ("after", "allowed"), [(-50.0, 1), (0.0, 1), (29.9, 1), (30.1, 2), (60.1, 4), (300.1, 1024), (1e9, 2**62)]
)
def test_patience_makes_steps_too(after: float, allowed: int) -> None:
    """While nothing comes back either way, each half minute lets twice as many go; never before it has begun."""
    assert allowed == Ramp.begin(1000, random.Random(1)).allows(1000 + after)


def test_a_failure_begins_a_ramp_anew() -> None:
    """However far it was, one is under way after a failure; one that comes before the beginning changes nothing."""
    rng = random.Random(1)
    ramp = Ramp.begin(0, rng)
    for now in (10, 20, 30):
        ramp = ramp.succeeded(now, rng)
    assert 8 == ramp.allows(30)
    assert 1 == ramp.failed(31, rng).allows(31)
    later = Ramp.begin(120, rng).failed(1, rng)
    assert [1, 1, 2] == [later.allows(moment) for moment in (100, 149, 151)]


@given(seed=st.integers(), count=st.integers(1, 2000), most=st.integers(1, 100))
def test_moments_rise_from_one_to_the_most(seed: int, count: int, most: int) -> None:
    """The first is due at once; no step holds more than twice the one before it, nor ever more than `most`."""
    laid = list(islice(moments(random.Random(seed), step=1, most=most), count))
    per_step: dict[int, int] = {}
    for number, moment in enumerate(laid[1:]):
        per_step[int(moment - 0.5)] = per_step.get(int(moment - 0.5), 0) + 1
        assert laid[number] <= moment
    assert 0.0 == laid[0]
    for step, found in per_step.items():
        assert found <= min(most, 2**step) + 1
