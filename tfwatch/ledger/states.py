"""What the log adds up to for one package, one content, one integration: the projection's answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from tfwatch.model import Actor, Destination, Event, Profile, Stage, Status, parse_rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageState:
    """What the log says of one package now. `stage` None: in no folder (taken away or pruned).

    `rounds`: delivery attempts begun; `failures`: of those, how many failed since the last success. `stage_since`: when
    it came to where it is. `event`, `reason`: the last row and its words for people; a finished move changes neither.
    `flaw`: what it was refused for in this house; None when it wasn't, or the service refused it. `by_rollback`: a
    rollback put it into rejected/. `forced`: an operator asked for a further order. `requeued_by`: who put it back into
    the outbox since it was last attempted. Moments are UTC.
    """

    name: str
    sha256: str
    trace_id: str
    bytes: int
    stage: Stage | None
    status: Status | None
    stage_since: datetime
    first_at: datetime
    changed_at: datetime
    event: Event
    rounds: int
    failures: int
    order_id: str
    profile: str | None
    base_url: str | None
    accepted_at: datetime | None
    settled_at: datetime | None
    retry_at: datetime | None
    code: int | None
    reason: str
    flaw: str | None
    forced: bool
    by_rollback: bool
    by_hand: bool
    requeued_by: Actor | None
    backed_up: bool
    backup_key: str | None
    backup_failures: int

    @property
    def destination(self) -> Destination | None:
        """The service that was given this package last, as ATTEMPTED and ACCEPTED recorded it."""
        return destination_of(self.profile, self.base_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentState:
    """What the log says of one SHA-256, whatever names it came under.

    `generation`: the number of the idempotency key used last, 0 before the first. `ended`: that key's outcome is
    known, so a further delivery takes the next. `unknown`: it was sent and nobody knows what became of it.
    `accepted_as`: the name under which it was accepted and not refused since.
    """

    generation: int = 0
    ended: bool = True
    unknown: bool = False
    destination: Destination | None = None
    accepted_as: str | None = None
    accepted_at: datetime | None = None
    order_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrationState:
    """What the log says of an integration: `state` is `enabled`, `disabled`, `paused` or `rolled back`.

    `exec_id`, `package`: the run in which that happened, and the package it happened to, if one did.
    `configured`: whether the configuration had it on when that last changed; None before any such change.
    """

    state: str = "enabled"
    since: datetime | None = None
    reason: str = ""
    exec_id: str = ""
    package: str = ""
    configured: bool | None = None

    @property
    def held(self) -> bool:
        """Whether it is off whatever the configuration says."""
        return self.state != "enabled"


COLUMNS: Final = tuple(field.name for field in fields(PackageState))
"""The columns of the table `package`, in the order of the fields."""


def state_of(row: Sequence[Any]) -> PackageState:
    """A row of `COLUMNS` as a state."""
    values = dict(zip(COLUMNS, row, strict=True))
    values["name"] = os.fsdecode(values["name"])
    values["stage"] = Stage(values["stage"]) if values["stage"] else None
    values["status"] = Status(values["status"]) if values["status"] else None
    values["event"] = Event(values["event"])
    values["requeued_by"] = Actor(values["requeued_by"]) if values["requeued_by"] else None
    for key in ("stage_since", "first_at", "changed_at", "accepted_at", "settled_at", "retry_at"):
        values[key] = moment_of(values[key])
    for key in ("forced", "by_rollback", "by_hand", "backed_up"):
        values[key] = bool(values[key])
    return PackageState(**values)


def destination_of(profile: str | None, base_url: str | None) -> Destination | None:
    """The service two columns name; None when they name none this version knows."""
    if profile not in set(Profile) or base_url is None:
        return None
    return Destination(profile=Profile(profile), base_url=base_url)


def moment_of(text: str | None) -> datetime | None:
    """A column's moment, UTC; None for an empty one."""
    return parse_rfc3339(text) if text else None
