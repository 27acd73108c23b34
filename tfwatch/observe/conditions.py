"""What people are alerted to: read off the daemon as it is, so that nothing of it is lost with a crash.

What the loop and the lanes know is looked at each time; what the log adds up to when it has grown, and each minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

from tfwatch.delivery.desk import Desk, why_apart
from tfwatch.delivery.journal import fields, fields_of
from tfwatch.language import ntr, number, tr
from tfwatch.ledger.states import IntegrationState
from tfwatch.model import Integration, rfc3339
from tfwatch.observe.alerts import Condition
from tfwatch.observe.limits import Figures, Limits, past
from tfwatch.observe.state import Running
from tfwatch.spool.folders import Folders
from tfwatch.spool.names import printable
from tfwatch.spool.root import away

MINUTE_SECONDS: Final = 60.0
_LOOK_SHARE: Final = 50.0
"""Between two looks at the log's figures, this many times as long as the last one took."""

_TROUBLE_SECONDS: Final = 60.0
"""A backup or a batch of rows that fails once is tried again within a minute; only what stays is worth a message."""

_SLACK: Final = 1.05
"""Free space has come back once there is this much more than what was missed."""

_MOST_NAMED: Final = 3
_MOST_MARKS: Final = 500
_ROLLED_BACK: Final = {"rolled back": "rollback", "paused": "pause"}


class Look(Protocol):
    """One look at what a person may have to act on."""

    def __call__(self, going_on: frozenset[str]) -> Iterable[Condition]:
        """`going_on`: the keys of what was found before and is not over. Raises OSError, sqlite3.Error."""
        ...


def no_room_to_start(folders: Folders) -> Iterator[Condition]:
    """Before anything else can be said: there is no room to begin."""
    if shortage := folders.shortage(0):
        yield Condition(
            key="no-room-to-start",
            text=tr("{shortage}; the daemon starts when there is room", shortage=shortage),
            over=tr("{path}: there is room again; the daemon starts", path=printable(folders.root)),
        )


def of_room(desk: Desk) -> Iterator[Condition]:
    """What waits for room on the disk."""
    if (why := desk.disk_full_since) is not None:
        yield Condition(
            key="disk-full",
            text=tr(
                "{error}; deliveries wait until there is room: free some space (df -h, df -i)", error=printable(why)
            ),
            outside=tr("the disk is full; deliveries wait until there is room: free some space (df -h, df -i)"),
            over=tr("{path}: there is room again; deliveries go on", path=printable(desk.folders.root)),
        )
    if why := desk.index.no_room:
        yield Condition(
            key="index-full",
            text=tr("{problem}; deliveries wait for room", problem=printable(why)),
            over=tr("the index: there is room again; deliveries go on"),
        )


class Conditions:
    """Looks at the daemon. `figures`: one look at all figures. `others`: what else may find something.

    Used by one thread.
    """

    def __init__(
        self,
        daemon: Running,
        limits: Callable[[], Limits],
        figures: Callable[[], Figures],
        others: Sequence[Callable[[], Iterable[Condition]]] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._daemon = daemon
        self._limits = limits
        self._figures = figures
        self._others = others
        self._clock = clock
        self._looked_at = float("-inf")
        self._cost = 0.0
        self._seq = -1
        self._seen_limits: Limits | None = None
        self._of_the_log: tuple[Condition, ...] = ()

    def __call__(self, going_on: frozenset[str]) -> Iterator[Condition]:
        """See `Look`."""
        yield from of_room(self._daemon.desk)
        yield from self._of_the_spool(going_on)
        yield from self._of_files()
        yield from self._left_aside()
        yield from self._of_services()
        if self._daemon.config_problems:
            yield self._of_the_configuration(self._daemon.config_problems)
        for other in self._others:
            yield from other()
        self._look_at_the_log(going_on)
        yield from self._of_the_log

    def _look_at_the_log(self, going_on: frozenset[str]) -> None:
        limits, now = self._limits(), self._clock()
        position = self._daemon.desk.index.position
        seq = position.seq if position is not None else 0
        since = now - self._looked_at
        is_news = limits != self._seen_limits or (seq != self._seq and since >= _LOOK_SHARE * self._cost)
        if since < MINUTE_SECONDS and not is_news:
            return
        self._of_the_log = (*self._of_decisions(), *past(self._daemon, self._figures(), limits, going_on))
        self._looked_at, self._seq, self._seen_limits = now, seq, limits
        self._cost = self._clock() - now

    def _of_the_spool(self, going_on: frozenset[str]) -> Iterator[Condition]:
        desk, policy = self._daemon.desk, self._daemon.wiring.policy
        folders, root = desk.folders, printable(desk.folders.root)
        if folders.is_away:
            yield Condition(
                key="away", text=away(root), over=tr("{path}: is there again; everything goes on", path=root)
            )
        if apart := sorted(desk.apart.values()):
            where = ", ".join(map(printable, apart))
            yield Condition(
                key="apart",
                text=" | ".join(map(why_apart, apart)),
                over=tr("{path}: is no mount of its own any more; packages go on", path=where),
                marks=frozenset(apart),
            )
        free, least = folders.free_bytes(), policy.min_free_bytes
        if free < least * (_SLACK if "disk-low" in going_on else 1.0):
            known = {"path": root, "mib": number(free // 2**20), "least": number(least // 2**20)}
            yield Condition(
                key="disk-low",
                text=tr(
                    "{path}: {mib} MiB free, less than spool.min_free_bytes ({least} MiB); deliveries go on: "
                    "free some space",
                    **known,
                ),
                over=tr("{path}: spool.min_free_bytes ({least} MiB) and more is free again", **known),
            )
        if self._daemon.watch.deaf and policy.watch != "polling":
            yield Condition(
                key="deaf",
                text=tr("{why}; the folders are polled instead", why=printable(self._daemon.watch.deaf)),
                over=tr("file events arrive again; polling ends"),
                is_found_late=True,
            )

    def _of_files(self) -> Iterator[Condition]:
        workshop = self._daemon.workshop
        unreadable = [*workshop.admission.problems(), *workshop.moves.problems()]
        yield from _of_packages(
            "unreadable",
            unreadable,
            outside=lambda count: ntr(
                "{count} package can't be read; the others go on: tfwatch status says which, and how to mend it",
                "{count} packages can't be read; the others go on: tfwatch status says which, and how to mend it",
                count,
            ),
            over=tr("all packages that could not be read are readable again, or gone"),
        )
        yield from _of_packages(
            "not-backed-up",
            workshop.store.problems(),
            outside=lambda count: ntr(
                "{count} package can't be backed up; the others go on: tfwatch status says which, how to mend it",
                "{count} packages can't be backed up; the others go on: tfwatch status says which, how to mend it",
                count,
            ),
            over=tr("all packages that could not be backed up are, or are gone"),
        )

    def _left_aside(self) -> Iterator[Condition]:
        if left := dict(self._daemon.desk.left_aside):
            yield Condition(
                key="left-aside",
                text=first_of([*left.values()]),
                outside=tr("files that retention took out were left aside: tfwatch status says which, and what to do"),
                over=tr("no file is left aside any more"),
                marks=frozenset(left),
            )

    def _of_services(self) -> Iterator[Condition]:
        for integration, switch in self._daemon.switches.items():
            held = switch.held_state
            if (what := _ROLLED_BACK.get(held.state)) and held.since is not None:
                yield self._given_up(integration, what, held)
        workshop = self._daemon.workshop
        on = {name: switch.stand.open for name, switch in self._daemon.switches.items()}
        if on.get(Integration.S3) and (trouble := workshop.store.trouble):
            yield Condition(
                key="trouble:s3",
                text=tr("s3: backups fail: {why}", why=printable(trouble)),
                outside=tr("s3: backups fail; they are tried again, deliveries go on: tfwatch status says why"),
                over=tr("s3: backups get through again"),
                after=_TROUBLE_SECONDS,
                is_found_late=True,
                fields={"INTEGRATION": Integration.S3.value},
            )
        if on.get(Integration.SHEETS) and (trouble := workshop.mirror.trouble):
            yield Condition(
                key="trouble:sheets",
                text=tr("sheets: {why}", why=printable(trouble)),
                outside=tr("sheets: rows don't get through; deliveries go on: tfwatch status says why"),
                over=tr("sheets: rows get through again"),
                after=_TROUBLE_SECONDS,
                is_found_late=True,
                fields={"INTEGRATION": Integration.SHEETS.value},
            )

    def _given_up(self, integration: Integration, what: str, held: IntegrationState) -> Condition:
        desk, why = self._daemon.desk, printable(held.reason)
        known = {
            "name": integration.value,
            "lift": tr("mend the cause, then: tfwatch enable {name}", name=integration.value),
            "path": printable(desk.folders.rollback_document(held.exec_id)),
        }
        if what == "rollback":
            text = tr("rollback of {name}: {why}. {lift} ({path})", why=why, **known)
            outside = tr("rollback of {name}. {lift} ({path})", **known)
            over = tr("the rollback of {name} is lifted", **known)
        else:
            text = tr("pause of {name}: {why}. {lift} ({path})", why=why, **known)
            outside = tr("pause of {name}. {lift} ({path})", **known)
            over = tr("the pause of {name} is lifted", **known)
        return Condition(
            key=f"{what}:{integration.value}",
            text=text,
            outside=outside,
            over=over,
            marks=frozenset({rfc3339(held.since)} if held.since else ()),
            fields=(fields_of(desk.index, held.package) if held.package else {}) | {"INTEGRATION": integration.value},
        )

    def _of_the_configuration(self, problems: Sequence[str]) -> Condition:
        text = tr("{path}: not taken over; the settings from before stay in force", path="config.yaml")
        return Condition(
            key="configuration",
            text=f"{text}: {first_of(problems)}",
            over=tr("config.yaml: taken over; the settings are as it says"),
        )

    def _of_decisions(self) -> Iterator[Condition]:
        """Packages whose outcome nobody knows, and which wait for a person."""
        if not (parked := self._daemon.desk.index.parked()):
            return
        *_, latest = parked
        if len(parked) == 1:
            text = tr(
                "{name}: nobody knows whether it was delivered: {why}; it waits in rejected/ for you to decide",
                name=printable(latest.name), why=printable(latest.reason),
            )  # fmt: skip
        else:
            text = tr(
                "nobody knows whether {names} were delivered; they wait in rejected/ for you to decide",
                names=first_of([state.name for state in reversed(parked)]),
            )
        yield Condition(
            key="undecided",
            text=text,
            outside=ntr(
                "nobody knows whether {count} package was delivered; it waits in rejected/ for you to decide",
                "nobody knows whether {count} packages were delivered; they wait in rejected/ for you to decide",
                len(parked),
            ),
            over=tr("no package waits for a decision any more"),
            marks=frozenset(f"{state.sha256[:16]} {rfc3339(state.changed_at)}" for state in parked),
            fields=fields(latest, latest.name, order_id=latest.order_id),
        )  # fmt: skip


def _of_packages(key: str, problems: Sequence[str], *, outside: Callable[[int], str], over: str) -> Iterator[Condition]:
    """What is said of single packages, the latest first. `outside`: the same for so many of them, without names."""
    if latest := problems[:-_MOST_MARKS:-1]:
        yield Condition(
            key=key,
            text=first_of(latest),
            outside=outside(len(latest)),
            over=over,
            marks=frozenset(latest),
            is_found_late=True,
        )


def first_of(texts: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    shown = " | ".join(printable(text) for text in texts[:_MOST_NAMED])
    more = len(texts) - _MOST_NAMED
    return shown if more <= 0 else shown + tr(" | and {count} more: tfwatch status lists them", count=more)
