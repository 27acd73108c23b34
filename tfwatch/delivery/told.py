"""Bring packages where a verdict says that a webhook told: at once, once their order is known, or after a crash.

The WEBHOOK row is the fact; this is what follows from it. Whoever comes second finds it in the projection: a verdict
that comes before its order is applied at ACCEPTED, one that a crash overtook at the next start.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from tfwatch.delivery.desk import Desk
from tfwatch.delivery.verdict import settle_verdict
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.language import tr
from tfwatch.ledger.calls import KEPT_FOR, Subject, Told
from tfwatch.ledger.index import Index, PackageState
from tfwatch.model import Event, Package, Stage, Status, write_detail

_AGAIN_SECONDS: Final = 0.1
_WHILE_SENT_SECONDS: Final = 1.0


class ApplyTold:
    """The use case of the webhook lanes. Thread-safe; applying twice is once."""

    def __init__(
        self,
        desk: Desk,
        *,
        delivered: Callable[[Package], None],
        left_claimed: Callable[[str], None],
        release: Callable[[str], None],
    ) -> None:
        """`left_claimed`: that name waits in claimed/ no more. `release`: let go of a content, for its twins too."""
        self._desk = desk
        self._delivered = delivered
        self._left_claimed = left_claimed
        self._release = release

    def apply(self, subject: Subject) -> float | None:
        """Apply what was told; returns seconds until to try again, None when there is nothing more to do now."""
        told = self._told(subject)
        if told is None:
            return None
        submitted = self._submitted(told.subject)
        if submitted is not None:
            return self._settle(submitted, told)
        unknown = self._unknown(told.subject)
        return self._accept(unknown, told) if unknown is not None else None

    def can_apply(self, subject: Subject) -> bool:
        """Whether there is a package that a verdict about this would settle now."""
        return self._submitted(subject) is not None or self._unknown(subject) is not None

    def of_unknown(self, sha256: str) -> Told | None:
        """The verdict that names the order of a content nobody knew had one."""
        told = self._desk.index.calls.told_of_content(sha256)
        return told if told is not None and not self._desk.index.knows_order(told.subject.order_id) else None

    def accept(self, package: Package, where: Whereabouts, told: Told) -> Whereabouts:
        """Settle a package whose outcome was unknown by a verdict that names its order: accepted, and then that."""
        destination, came_from = self._desk.index.content(package.sha256).destination, where.file
        where = self._desk.settle(
            package, Event.ACCEPTED, where, order_id=told.subject.order_id,
            detail=write_detail(
                tr("a webhook told its order"),
                profile=destination.profile.value if destination else None,
                base_url=destination.base_url if destination else None, via="webhook",
            ),
        )  # fmt: skip
        if came_from is Stage.REJECTED:
            self._desk.folders.remove_reason(package.name)
        if where.log is not Stage.SUBMITTED:
            return where  # a person has taken it somewhere else meanwhile
        return self._give_verdict(package, where, told, order_id=told.subject.order_id, duration_ms=0)

    def _told(self, subject: Subject) -> Told | None:
        told = self._desk.index.calls.told(subject)
        # One without an order id may speak of an earlier order of the same content: not for long.
        is_stale = told is not None and not told.subject.order_id and told.at < self._desk.now() - KEPT_FOR
        return None if is_stale else told

    def _submitted(self, subject: Subject) -> PackageState | None:
        index = self._desk.index
        found = [index.with_order(subject.order_id)] if subject.order_id else index.packages_of(subject.sha256)
        return next((state for state in found if state and state.order_id and state.stage is Stage.SUBMITTED), None)

    def _unknown(self, subject: Subject) -> PackageState | None:
        """The package of that content that was sent and nobody knows what became of it, where it waits for that.

        In the outbox a person has put it: it is told when it is taken out of there.
        """
        index = self._desk.index
        if not (subject.order_id and subject.sha256) or index.knows_order(subject.order_id):
            return None
        if not index.content(subject.sha256).unknown:
            return None
        return next((state for state in index.packages_of(subject.sha256) if _awaits_its_outcome(state)), None)

    def _settle(self, state: PackageState, told: Told) -> float | None:
        with self._desk.in_work.holding(state.name) as mine:
            if not mine:
                return _AGAIN_SECONDS
            now = self._desk.index.package(state.sha256, state.name)
            if now is None or now.stage is not Stage.SUBMITTED or now.order_id != state.order_id:
                return _AGAIN_SECONDS  # it has moved on meanwhile: looked at anew
            where = Whereabouts(file=Stage.SUBMITTED, log=Stage.SUBMITTED, status=now.status)
            since = now.accepted_at or now.changed_at
            duration_ms = max(0, round((self._desk.now() - since) / timedelta(milliseconds=1)))
            self._give_verdict(package_of(now), where, told, order_id=now.order_id, duration_ms=duration_ms)
        return None

    def _accept(self, state: PackageState, told: Told) -> float | None:
        with self._desk.in_work.holding(state.name) as mine:
            if not mine or not self._desk.in_work.take(state.sha256):
                return _WHILE_SENT_SECONDS
            try:
                now = self._desk.index.package(state.sha256, state.name)
                if now is None or now.stage is None or not _awaits_its_outcome(now):
                    return _AGAIN_SECONDS
                self.accept(package_of(now), Whereabouts(file=now.stage, log=now.stage, status=now.status), told)
                self._left_claimed(now.name)
            finally:
                self._release(state.sha256)
        return None

    def _give_verdict(
        self, package: Package, where: Whereabouts, told: Told, *, order_id: str, duration_ms: int
    ) -> Whereabouts:
        settled = settle_verdict(
            self._desk, where.named(package), where, told.verdict, order_id=order_id, word=told.word,
            message=told.message, code=None, duration_ms=duration_ms, via="webhook",
        )  # fmt: skip
        if settled.log is Stage.DELIVERED:
            self._delivered(settled.named(package))
        return settled


def _awaits_its_outcome(state: PackageState) -> bool:
    """Whether it waits in claimed/, or was parked for a person to decide."""
    parked = state.stage is Stage.REJECTED and state.status is Status.UNKNOWN
    return state.stage is Stage.CLAIMED or parked


def was_cut_short(index: Index, stage: Stage, state: PackageState) -> bool:
    """Whether a package found at a stage at start is one of ours that a crash kept from the move its fact announced.

    One that was parked goes on to submitted/ only when a verdict waits for it; else a person has put it into rejected/.
    """
    if stage is Stage.SUBMITTED:
        return state.event in (Event.COMPLETED, Event.REFUSED)
    if stage is not Stage.REJECTED or state.stage is not Stage.SUBMITTED or state.event is not Event.ACCEPTED:
        return False
    return index.calls.told(Subject(state.order_id, state.sha256)) is not None
