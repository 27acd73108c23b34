"""When people are told: each thing once, its end once, and whatever flaps seldom."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tfwatch.observe.alerts import (
    DAY_SECONDS,
    FIRST_QUIET_SECONDS,
    LONGEST_QUIET_SECONDS,
    Condition,
    Episodes,
    Turn,
    quiet_seconds,
)

NOON = 1_800_000_000.0


def condition(key: str = "disk-low", *marks: str, after: float = 0.0) -> Condition:
    return Condition(key=key, text=f"{key} it is", over=f"{key} is over", marks=frozenset(marks), after=after)


class Looks:
    """A policy that is shown one look after the other."""

    def __init__(self) -> None:
        self.episodes = Episodes()
        self.said: list[tuple[float, Turn]] = []

    def at(self, moment: float, *found: Condition, may_end: bool = True) -> list[str]:
        """What is told at that moment: `+key` for an alert, `-key` for its end."""
        self.episodes, turns = self.episodes.step(found, NOON + moment, may_end=lambda _: may_end)
        self.said += [(moment, turn) for turn in turns]
        return [f"{'-' if turn.is_over else '+'}{turn.condition.key}" for turn in turns]

    def times(self, *, is_over: bool) -> list[float]:
        return [moment for moment, turn in self.said if turn.is_over is is_over]


def test_an_alert_is_told_once_and_its_end_once() -> None:
    """However often it is looked at, and whatever its words say meanwhile."""
    looks = Looks()
    assert ["+disk-low"] == looks.at(0, condition())
    assert [] == looks.at(1, condition())
    assert [] == looks.at(90, Condition(key="disk-low", text="less still", over="over"))
    assert [] == looks.at(91)
    assert ["-disk-low"] == looks.at(91 + FIRST_QUIET_SECONDS)
    assert [] == looks.at(1000)
    assert {} == looks.episodes.going_on


def test_what_is_told_at_the_end_is_when_it_began() -> None:
    """People read how long it lasted."""
    looks = Looks()
    looks.at(0, condition())
    looks.at(100)
    looks.at(200)
    (_, turn) = looks.said[-1]
    assert (True, NOON) == (turn.is_over, turn.began)


def test_several_at_once_are_told_each() -> None:
    """One that goes on says nothing of another."""
    looks = Looks()
    assert ["+away", "+deaf"] == looks.at(0, condition("away"), condition("deaf"))
    assert [] == looks.at(10, condition("deaf"))
    assert ["-away"] == looks.at(20, condition("deaf"))
    assert ["deaf"] == list(looks.episodes.going_on)


def test_what_comes_back_before_it_is_over_is_the_same_episode() -> None:
    """A short gap is no end: nobody is told of either."""
    looks = Looks()
    looks.at(0, condition())
    looks.at(10)
    assert [] == looks.at(10 + FIRST_QUIET_SECONDS - 1, condition())
    assert [] == looks.at(100, condition())
    assert 1 == len(looks.said)


def test_each_time_within_a_day_it_must_be_gone_for_longer() -> None:
    """5 s, 20 s, 80 s … and a day later it begins anew."""
    looks = Looks()
    moment = 0.0
    for n in range(1, 4):
        assert ["+disk-low"] == looks.at(moment, condition())
        looks.at(moment + 1)
        quiet = quiet_seconds(n)
        assert [] == looks.at(moment + 1 + quiet - 0.5), n
        moment += 1 + quiet
        assert ["-disk-low"] == looks.at(moment), n
        moment += 1
    moment += DAY_SECONDS
    looks.at(moment, condition())
    looks.at(moment + 1)
    assert ["-disk-low"] == looks.at(moment + 1 + FIRST_QUIET_SECONDS)


def test_it_is_never_awaited_for_longer_than_six_hours() -> None:
    """Damping ends somewhere, also after a thousand times."""
    assert LONGEST_QUIET_SECONDS == quiet_seconds(1000)
    assert [5.0, 20.0, 80.0] == [quiet_seconds(n) for n in (1, 2, 3)]


def test_something_new_in_an_episode_is_told() -> None:
    """A second rollback, a further package: told again, and at the end the whole is over once."""
    looks = Looks()
    assert ["+rollback"] == looks.at(0, condition("rollback", "first"))
    assert ["+rollback"] == looks.at(60, condition("rollback", "second"))
    assert [] == looks.at(120, condition("rollback", "second"))
    looks.at(200)
    assert ["-rollback"] == looks.at(400)


def test_what_leaves_an_episode_is_not_told() -> None:
    """Two packages of three were decided about: that is no news, and neither is the one that is left."""
    looks = Looks()
    looks.at(0, condition("undecided", "a", "b", "c"))
    assert [] == looks.at(1000, condition("undecided", "c"))
    assert [] == looks.at(2000, condition("undecided", "b", "c"))


def test_many_new_ones_in_a_row_are_told_together() -> None:
    """A flood that is all of one kind: a few alerts, and none of it is forgotten."""
    looks = Looks()
    for second in range(1000):
        looks.at(second, condition("undecided", *(str(n) for n in range(second + 1))))
    assert [0, 5, 25, 105, 425] == looks.times(is_over=False)
    assert ["+undecided"] == looks.at(1705, condition("undecided", *(str(n) for n in range(1000))))


def test_what_must_last_is_told_when_it_has() -> None:
    """One failed backup is tried again; only what stays is worth a message."""
    looks = Looks()
    assert [] == looks.at(0, condition("trouble:s3", after=60))
    assert [] == looks.at(59, condition("trouble:s3", after=60))
    assert [] == looks.at(59.5)
    assert [] == looks.at(60, condition("trouble:s3", after=60))
    assert ["+trouble:s3"] == looks.at(120, condition("trouble:s3", after=60))


def test_what_can_not_be_known_yet_is_not_over() -> None:
    """After a start, a canary has to be waited for before anybody is told that events arrive."""
    looks = Looks()
    looks.at(0, condition("deaf"))
    assert [] == looks.at(100, may_end=False)
    assert ["-deaf"] == looks.at(200)


def test_a_clock_set_back_neither_tells_twice_nor_waits_for_long() -> None:
    """Moments are the wall clock's, and that is set at times."""
    looks = Looks()
    looks.at(0, condition())
    looks.at(10)
    assert [] == looks.at(-86_400)
    assert ["-disk-low"] == looks.at(-86_400 + FIRST_QUIET_SECONDS)


flapping = st.lists(st.tuples(st.floats(0.5, 4000), st.booleans()), min_size=1, max_size=400)
restless = st.lists(st.floats(0.5, 3000), min_size=60, max_size=300)
"""How long it is there, then gone, then there …: seconds."""


@given(restless)
def test_whatever_flaps_is_told_at_most_ten_times_a_day(spans: Sequence[float]) -> None:
    """In any 24 hours, however often it comes and goes; looked at as it changes, and right before."""
    looks, moment, is_there = Looks(), 0.0, True
    for seconds in spans:
        now = [condition()] if is_there else []
        looks.at(moment, *now)
        looks.at(moment + 0.99 * seconds, *now)
        moment, is_there = moment + seconds, not is_there
    told = looks.times(is_over=False)
    assert 10 >= max((sum(1 for at in told if 0 <= at - first < DAY_SECONDS) for first in told), default=0)


@given(flapping)
def test_alerts_and_ends_take_turns(spans: Sequence[tuple[float, bool]]) -> None:
    """An end is only told of what was told, and nothing is told twice without its end between."""
    looks, moment = Looks(), 0.0
    for seconds, is_there in spans:
        looks.at(moment, *([condition()] if is_there else []))
        moment += seconds
    told = [turn.is_over for _, turn in looks.said]
    assert [False, True] * (len(told) // 2) + [False] * (len(told) % 2) == told


@given(flapping, st.booleans())
def test_in_the_end_people_know_how_it_is(spans: Sequence[tuple[float, bool]], is_there: bool) -> None:
    """Whatever went before: once it has stayed so for six hours, the last that was told is true."""
    looks, moment = Looks(), 0.0
    last = [condition()] if is_there else []
    for seconds, was_there in spans:
        looks.at(moment, *([condition()] if was_there else []))
        moment += seconds
    looks.at(moment, *last)
    looks.at(moment + LONGEST_QUIET_SECONDS, *last)
    assert is_there is ("disk-low" in looks.episodes.going_on)


@given(st.lists(st.tuples(st.floats(0.5, 600), st.sets(st.integers(0, 5))), min_size=1, max_size=200))
def test_nothing_new_stays_untold(spans: Sequence[tuple[float, set[int]]]) -> None:
    """What joins an episode and stays is told within six hours, and seldom enough."""
    looks, moment = Looks(), 0.0
    marks: set[int] = set()
    for seconds, marks in spans:
        looks.at(moment, *([condition("undecided", *map(str, marks))] if marks else []))
        moment += seconds
    if marks:
        looks.at(moment + LONGEST_QUIET_SECONDS, condition("undecided", *map(str, marks)))
        assert frozenset(map(str, marks)) <= looks.episodes.going_on["undecided"].told
    for (_, before), (_, after) in pairwise(looks.said):
        assert not (before.is_over and after.is_over)
