"""What can be seen of the packages from outside while the daemon works: its folders, its log, its state file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tfwatch.ledger.reading import read_log
from tfwatch.model import DeliveryRecord, Event, Stage
from tfwatch.spool.folders import Folders

_STEPS: Final = (Event.ATTEMPTED, Event.ACCEPTED, Event.COMPLETED, Event.BACKED_UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One package at one moment. `stage` None: in no folder. `doing`: work or waiting under way, empty when none.

    `done`, `steps`: how far it has come; fewer steps are left for one that was refused.
    """

    name: str
    note: str
    stage: Stage | None = None
    status: str = ""
    event: str = ""
    order_id: str = ""
    backed_up: bool = False
    doing: str = ""
    done: int = 0
    steps: int = 1 + len(_STEPS)


def read_rows(folders: Folders) -> list[DeliveryRecord]:
    """All rows of the log so far, each one's chain verified. Raises `tfwatch.ledger.reading.LogDamaged`."""
    try:
        return [record for record, _ in read_log(folders.log, live=True)]
    except FileNotFoundError:
        return []


def look(folders: Folders, rows: Sequence[DeliveryRecord], notes: Mapping[str, str]) -> list[Sight]:
    """The packages named in `notes` as they are now, in that order."""
    shown = _state(folders)
    unfinished: Mapping[str, str] = shown.get("unfinished", {})
    in_flight = {work["package"]: _work(work) for work in shown.get("in_flight", ())}
    by_name: dict[str, list[DeliveryRecord]] = {}
    for row in rows:
        by_name.setdefault(row.package, []).append(row)
    sights = []
    for name, note in notes.items():
        stage = folders.find(name)
        # The state file is up to a second old: believe it only where it fits the folder.
        doing = {Stage.OUTBOX: unfinished, Stage.CLAIMED: in_flight}.get(stage, {}).get(name, "") if stage else ""
        sights.append(_sight(name, note, stage, by_name.get(name, []), doing))
    return sights


def _sight(name: str, note: str, stage: Stage | None, rows: Sequence[DeliveryRecord], doing: str) -> Sight:
    events = {row.event for row in rows}
    refused = Event.REFUSED in events
    reached = sum(step in events for step in _STEPS) + (stage is not None or bool(rows))
    return Sight(
        name=name,
        note=note,
        stage=stage,
        status=next((row.status.value for row in reversed(rows) if row.status), ""),
        event=rows[-1].event.value if rows else "",
        order_id=next((row.order_id for row in reversed(rows) if row.order_id), ""),
        backed_up=Event.BACKED_UP in events,
        doing=doing,
        done=reached + refused,
        steps=reached + refused if refused else 1 + len(_STEPS),
    )


def _work(work: Mapping[str, Any]) -> str:
    """`sending 45%`"""
    percent = f" {100 * work['bytes_done'] // work['bytes']}%" if work["bytes"] else ""
    return f"{work['doing']}{percent}"


def _state(folders: Folders) -> Mapping[str, Any]:
    """The daemon's own account of itself; empty before it wrote one and after it ended."""
    try:
        with open(folders.state, encoding="utf-8") as file:
            state: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return {}
    return state


def last_lines(path: str, count: int) -> Iterable[str]:
    """The last lines of a text file; none when there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read().splitlines()[-count:]
    except FileNotFoundError:
        return ()
