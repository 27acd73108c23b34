"""What a file in claimed/ is by the log, whatever it is called, and where that puts it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tfwatch.delivery import reasons
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.language import tr
from tfwatch.ledger.states import PackageState
from tfwatch.model import Actor, Event, Package, Stage, write_detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A file the daemon has taken out of the outbox: its fixed name, and the name it was dropped under.

    `purpose`: `deliver` it, or only `back up` a copy while deliveries are off. `recovered`: it was found in
    claimed/. `probe`: it goes first, to see whether a service that was given up works again. `expired`: it has been
    unfinished for too long and is refused unless it is whole by now. `taken_at`: when it was claimed, or taken up
    again in claimed/ (monotonic seconds); None when nobody has looked at the clock.
    """

    name: str
    dropped_as: str
    purpose: Literal["deliver", "back up"] = "deliver"
    recovered: bool = False
    probe: bool = False
    expired: bool = False
    taken_at: float | None = None


def moved_in_words(source: Stage | None, target: Stage) -> str:
    """What a person did, for the log."""
    return tr("moved from {source} to {target}", source=source or tr("elsewhere"), target=target)


class Recognition:
    """Finds a claimed file's package, says what a person or a crash did to it, and finishes what a crash cut short."""

    def __init__(self, desk: Desk, put_back: Callable[[Claim], None]) -> None:
        """`put_back`: into the outbox, what was never attempted."""
        self._desk = desk
        self._put_back = put_back

    def known(self, claim: Claim, sha256: str) -> PackageState | None:
        """What the log knows of a claimed file."""
        return self._desk.index.package(sha256, claim.name) or self._under_another_name(claim, sha256)

    def _under_another_name(self, claim: Claim, sha256: str) -> PackageState | None:
        """A package somebody renamed: the log knows its content, and it is nowhere; else this is a twin of it."""
        for state in self._desk.index.packages_of(sha256):
            if state.stage is not None and self._desk.is_nowhere(state.name):
                return state
        return None

    def where(self, claim: Claim, package: Package, state: PackageState | None) -> Whereabouts | None:
        """Where the package is; None when all there was to do was to finish an interrupted move."""
        if state is None:
            if claim.recovered:
                self._put_back(claim)
                return None
            return Whereabouts.of(None, file=Stage.CLAIMED)
        where = Whereabouts(file=Stage.CLAIMED, log=state.stage, status=state.status)
        if claim.recovered:
            where_now = self.recover(claim, state, where)
            renamed = where_now is not None and state.name != claim.name
            return self._renamed(package, state, where) if renamed else where_now
        if state.stage in (Stage.OUTBOX, Stage.CLAIMED):
            return where if state.name == claim.name else self._renamed(package, state, where)
        if state.stage is None and state.event is not Event.MOVED:
            # Pruned long ago: this is a new drop of the same content.
            return Whereabouts.of(None, file=Stage.CLAIMED)
        return self._requeued(claim, package, state, where)

    def recover(self, claim: Claim, state: PackageState, where: Whereabouts) -> Whereabouts | None:
        """Found in claimed/ at start, or waiting there: finish the move its last fact announced, if any."""
        if state.stage is Stage.CLAIMED:
            return self._interrupted(state, where)
        if state.stage is None and self._desk.index.content(state.sha256).unknown:
            # Somebody took it away and put it back here. That it be sent again is said by putting it into outbox/.
            detail = tr("found in claimed/ again; whether it was accepted is not known")
            return self._desk.settle(
                package_of(state), Event.MOVED, where, to=Stage.CLAIMED, actor=Actor.OPERATOR, detail=detail
            )
        if state.stage in (None, Stage.OUTBOX) or self._desk.folders.look(state.stage, state.name) is not None:
            self._put_back(claim)
            return None
        if state.name != claim.name:
            self._desk.folders.move(Stage.CLAIMED, claim.name, Stage.CLAIMED, state.name)
        reason = None
        if state.stage is Stage.REJECTED:
            reason = reasons.after_a_crash(state)
        detail = tr("finished an interrupted move into {stage}/", stage=state.stage)
        self._desk.settle(package_of(state), Event.RECOVERED, where, detail=detail, reason=reason)
        return None

    def _interrupted(self, state: PackageState, where: Whereabouts) -> Whereabouts:
        """It may have been sent. Say so once, however often the daemon starts before the outcome is known."""
        if state.event is not Event.ATTEMPTED:
            return where
        detail = tr("the daemon ended while it was being sent; whether it was accepted is not known")
        return self._desk.settle(package_of(state), Event.RECOVERED, where, to=Stage.CLAIMED, detail=detail)

    def _renamed(self, package: Package, state: PackageState, where: Whereabouts) -> Whereabouts:
        """Somebody renamed it while it waited: the log follows."""
        stays = Whereabouts(file=where.log or where.file, log=where.log, status=where.status)
        detail = write_detail(tr("renamed"), was=state.name)
        self._desk.settle(package, Event.MOVED, stays, to=where.log, actor=Actor.OPERATOR, detail=detail)
        return where

    def _requeued(self, claim: Claim, package: Package, state: PackageState, where: Whereabouts) -> Whereabouts:
        """A person moved it back into the outbox: say so, and start anew."""
        detail = write_detail(
            moved_in_words(state.stage, Stage.OUTBOX),
            was=state.name if state.name != claim.name else None,
        )
        there = Whereabouts(file=Stage.OUTBOX, log=where.log, status=where.status)
        back = self._desk.settle(package, Event.REQUEUED, there, actor=Actor.OPERATOR, detail=detail)
        if state.stage is Stage.REJECTED:
            self._desk.folders.remove_reason(state.name)
        return Whereabouts(file=Stage.CLAIMED, log=back.log, status=back.status)
