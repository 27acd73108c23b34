"""What a run leaves to the next, in `.tfwatch/alerts.json`: so nobody is told the same again after each restart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, TypeVar

from loguru import logger

from tfwatch.observe.alerts import Condition, Episode, Episodes
from tfwatch.observe.notices import Backlog, Notice

_VERSION: Final = 1
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What was told and is not over, and, for each address in its place, what it is still owed."""

    episodes: Episodes = field(default_factory=Episodes)
    owed: tuple[Backlog, ...] = ()


def to_json(memory: Memory) -> str:
    """As it is written; the same memory is the same text."""
    episodes = [
        {
            **{each.name: getattr(episode.condition, each.name) for each in fields(Condition)},
            "marks": sorted(episode.condition.marks),
            "fields": dict(episode.condition.fields),
            "began": episode.began,
            "told_at": episode.told_at,
            "told": sorted(episode.told),
        }
        for episode in memory.episodes.going_on.values()
    ]
    document = {
        "version": _VERSION,
        "episodes": episodes,
        "times": {key: list(ats) for key, ats in memory.episodes.times.items()},
        "owed": [{"dropped": each.dropped, "notices": [*map(asdict, each.notices)]} for each in memory.owed],
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def read_memory(path: str) -> Memory:
    """What the last run left; nothing, when there is none or it can't be understood. Never raises."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        if document["version"] != _VERSION:
            return Memory()
        return _memory(document)
    except FileNotFoundError:
        return Memory()
    # RecursionError: brackets within brackets; the others: it is JSON, and not ours
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.debug("{}: left aside: {}", path, error)
        return Memory()


def _memory(document: Mapping[str, Any]) -> Memory:
    going_on = {}
    for each in document["episodes"]:
        condition = _only(
            Condition, {**each, "marks": frozenset(map(str, each["marks"])), "fields": {**each["fields"]}}
        )
        going_on[condition.key] = Episode(
            condition=condition,
            began=float(each["began"]),
            told_at=float(each["told_at"]),
            told=frozenset(map(str, each["told"])),
            inherited=True,
        )
    times = {str(key): tuple(map(float, ats)) for key, ats in document["times"].items()}
    owed = tuple(
        Backlog(notices=tuple(_only(Notice, notice) for notice in each["notices"]), dropped=int(each["dropped"]))
        for each in document["owed"]
    )
    return Memory(episodes=Episodes(going_on=going_on, times=times), owed=owed)


def _only(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """One of these, of the values that it knows."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in values.items() if key in known})
