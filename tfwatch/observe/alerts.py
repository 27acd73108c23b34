"""When people are told: conditions become episodes, each told once, and its end once. Pure: the clock is an argument.

Moments are seconds since the epoch, so that they mean the same after a restart.

**Damping.** An episode ends once its condition has been gone for a while: 5 s the first time, four times as long with
each time that the same was told within 24 hours, 6 hours at most. So a first alert has its all-clear at once, and
whatever flaps is told ten times a day at most. It is the same for what joins an episode that goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

FIRST_QUIET_SECONDS: Final = 5.0
LONGEST_QUIET_SECONDS: Final = 6 * 3600.0
DAY_SECONDS: Final = 24 * 3600.0
_GROWTH: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something a person may have to act on, as it is now. What happened, to what, and what to do next.

    `key`: which one it is, whatever it says today. `text`, `over`: for the journal, when it begins and when it is over.
    `outside`, `over_outside`: the same without names of packages or words of a service, where `text` may have any;
    empty where it can't. `marks`: what it is about, where that can change while it lasts; something new is told.
    `after`: seconds it must have lasted. `is_found_late`: after a start it is only found by trying. `fields`: what
    the journal files it under.
    """

    key: str
    text: str
    over: str
    outside: str = ""
    over_outside: str = ""
    marks: frozenset[str] = frozenset()
    after: float = 0.0
    is_found_late: bool = False
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One condition from its alert to its all-clear.

    `began`: when it was first told; `told_at`: when last; `told`: of its marks, those that were. `gone_since`: since
    when the condition is not there any more. `inherited`: it was told by an earlier run.
    """

    condition: Condition
    began: float
    told_at: float
    told: frozenset[str]
    gone_since: float | None = None
    inherited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What is to be told now: `condition` begins, or is joined by something new, or (`is_over`) has ended."""

    condition: Condition
    began: float
    is_over: bool


def quiet_seconds(times: int) -> float:
    """How long something must be gone to be over, that was told so many times (1 or more) within a day."""
    return min(LONGEST_QUIET_SECONDS, FIRST_QUIET_SECONDS * _GROWTH ** (min(times, 32) - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """All that goes on. `times`: by key, when it was told within the last day; `coming`: since when what must last is
    there."""

    going_on: Mapping[str, Episode] = field(default_factory=lambda: MappingProxyType({}))
    times: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: MappingProxyType({}))
    coming: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def step(
        self, conditions: Iterable[Condition], now: float, *, may_end: Callable[[Episode], bool] = lambda episode: True
    ) -> tuple[Episodes, tuple[Turn, ...]]:
        """What goes on after a look that found `conditions`, and what is to be told.

        `may_end`: whether it is known by now that an episode whose condition was not found is over.
        """
        found = {condition.key: condition for condition in conditions}
        times = {key: tuple(at for at in ats if now - at < DAY_SECONDS) for key, ats in self.times.items()}
        going_on, coming, turns = {}, {}, []

        def tell(condition: Condition, began: float, *, is_over: bool = False) -> None:
            turns.append(Turn(condition=condition, began=began, is_over=is_over))
            if not is_over:
                times[condition.key] = (*times.get(condition.key, ()), now)

        def is_quiet_since(moment: float, key: str) -> bool:
            return now - moment >= quiet_seconds(max(1, len(times.get(key, ()))))

        for key, condition in found.items():
            episode = self.going_on.get(key)
            if episode is None:
                since = min(now, self.coming.get(key, now))
                if now - since < condition.after:
                    coming[key] = since
                    continue
                tell(condition, now)
                episode = Episode(condition=condition, began=now, told_at=now, told=condition.marks)
            elif condition.marks - episode.told and is_quiet_since(episode.told_at, key):
                tell(condition, episode.began)
                episode = replace(episode, told_at=now, told=condition.marks)
            going_on[key] = replace(episode, condition=condition, gone_since=None)
        for key, episode in self.going_on.items():
            if key in found:
                continue
            since = min(now, now if episode.gone_since is None else episode.gone_since)
            if may_end(episode) and is_quiet_since(since, key):
                tell(episode.condition, episode.began, is_over=True)
            else:
                going_on[key] = replace(episode, gone_since=since)
        kept = {key: ats for key, ats in times.items() if ats}
        return Episodes(going_on=going_on, times=kept, coming=coming), tuple(turns)
