"""Remove what has lain settled for long enough: delivered ZIPs whose backup is whole right now, and old rejects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from loguru import logger

from tfwatch.delivery.desk import Desk
from tfwatch.delivery.progress import Board
from tfwatch.delivery.removing import NotRemoved, prove, remove
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.delivery.wiring import Policy, Wiring
from tfwatch.errors import ServiceFailure, Stopping
from tfwatch.language import ntr, tr
from tfwatch.ledger.states import PackageState
from tfwatch.model import Event, Package, Sha256, Stage, write_detail
from tfwatch.ports import BackupStoragePort
from tfwatch.spool.names import printable

REMOVED_FROM: Final = (Stage.DELIVERED, Stage.REJECTED)

_PORTION: Final = 50
_LEAST_PAUSE_SECONDS: Final = 0.02


def days_of(policy: Policy, stage: Stage) -> int | None:
    """Days after which a stage's packages are removed; None: never."""
    return policy.delivered_days if stage is Stage.DELIVERED else policy.rejected_days


class Retention:
    """The use case of retention's thread, and used by it alone; anyone may read `problems`.

    `wait` waits some seconds, less when told to stop. `back_up` makes a new copy of a delivered package due.
    """

    def __init__(
        self,
        desk: Desk,
        board: Board,
        *,
        stopping: Callable[[], bool],
        wait: Callable[[float], object],
        back_up: Callable[[Package], None],
    ) -> None:
        self._desk = desk
        self._board = board
        self._stopping = stopping
        self._wait = wait
        self._back_up = back_up
        self._trouble = ""
        self._told: Mapping[tuple[Stage, str], str] = {}

    @property
    def problems(self) -> tuple[str, ...]:
        """What stood in the way when it last looked: S3 that can't be asked, files that are not what was logged."""
        return (*filter(None, (self._trouble,)), *self._told.values())

    def run(self, wiring: Wiring, storage: BackupStoragePort | None) -> int:
        """Remove whatever is due now; returns how many packages went. Raises `Stopping`.

        `storage`: where backups are looked at; None: nowhere now, so nothing delivered goes.
        """
        removed, told, trouble = 0, {}, ""
        for stage in REMOVED_FROM:
            days = days_of(wiring.policy, stage)
            if days is None or (stage is Stage.DELIVERED and storage is None):
                continue
            try:
                for state in self._due(stage, days):
                    began = time.monotonic()
                    why = self._look_at(state, days, storage)
                    removed += why is None
                    if why:
                        told[stage, state.name] = self._tell(stage, state.name, why)
                    # Half of the time at most: disk, log and the line to S3 are for deliveries first.
                    self._wait(max(_LEAST_PAUSE_SECONDS, time.monotonic() - began))
            except ServiceFailure as failure:
                trouble = self._tell_trouble(failure)
        self._told, self._trouble = told, trouble
        return removed

    def _due(self, stage: Stage, days: int) -> Iterator[PackageState]:
        """All that have lain there for so long, listed in small portions; those that stayed are passed over."""
        index, last = self._desk.index, None
        while states := index.settled.before(stage, self._before(days), after=last, limit=_PORTION):
            for state in states:
                if self._stopping():
                    raise Stopping("told to stop")
                if self._desk.look_at_mounts() or self._desk.folders.is_away or self._desk.folders.shortage(0):
                    return  # nothing lies where it seems to, or there is no room to say first what is removed
                yield state
            last = states[-1]

    def _before(self, days: int) -> datetime:
        return self._desk.now() - timedelta(days=days)

    # --- one package -------------------------------------------------------------------------------------------------

    def _look_at(self, listed: PackageState, days: int, storage: BackupStoragePort | None) -> str | None:
        """None when it was removed; else why it stays, empty when there is nothing to tell."""
        stage, name = listed.stage, listed.name
        assert stage is not None
        with self._desk.in_work.holding(name) as mine:
            state = self._desk.index.package(listed.sha256, name)
            if not mine or state is None or state.stage is not stage or not self._may_go(state, days):
                return ""
            try:
                entry = prove(self._desk, self._board, state, stopping=self._stopping)
                if stage is Stage.DELIVERED:
                    assert storage is not None
                    self._require_backup(state, storage)
                remove(self._desk, state, entry, detail=self._detail(state))
            except NotRemoved as stays:
                return stays.why
        return None

    def _may_go(self, state: PackageState, days: int) -> bool:
        """Asked again once it is held: it may have been backed up anew, restored or sent since it was listed."""
        is_due = state.stage_since <= self._before(days)
        is_kept = state.stage is not Stage.DELIVERED or state.backed_up
        is_unknown = self._desk.index.content(state.sha256).unknown
        return is_due and is_kept and not is_unknown and state.sha256 not in self._desk.in_work

    def _require_backup(self, state: PackageState, storage: BackupStoragePort) -> None:
        """Look at its backup, right before it goes. One that isn't right is told, and made again from delivered/."""
        kept = storage.verify(state.backup_key or "", Sha256(state.sha256), state.bytes)
        if kept == "found":
            return
        package, name, key = package_of(state), printable(state.name), printable(state.backup_key or "")
        if kept == "missing":
            said = tr("its backup is missing, as retention found; it stays and is stored again")
            words = tr("{package}: its backup {key} is missing; it stays and is stored again", package=name, key=key)
        else:
            said = tr("its backup is another object, as retention found; it stays and is stored again")
            words = tr(
                "{package}: its backup {key} is another object; it stays and is stored again", package=name, key=key
            )  # fmt: skip
        logger.bind(PACKAGE=name, SHA256=state.sha256).warning("{}", words)
        where = Whereabouts.of(state, file=Stage.DELIVERED)
        detail = write_detail(said, key=state.backup_key)
        self._desk.settle(package, Event.BACKUP_FAILED, where, order_id=state.order_id, detail=detail)
        self._back_up(package)
        raise NotRemoved

    def _detail(self, state: PackageState) -> str:
        days = (self._desk.now() - state.stage_since).days
        if state.stage is Stage.DELIVERED:
            words = ntr(
                "in delivered/ for {count} day; its backup was found whole",
                "in delivered/ for {count} days; its backup was found whole",
                days,
            )
        else:
            words = ntr("in rejected/ for {count} day", "in rejected/ for {count} days", days)
        return write_detail(words, key=state.backup_key if state.backed_up else None)

    # --- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, stage: Stage, name: str, why: str) -> str:
        return tr("{path}: retention leaves it: {why}", path=printable(self._desk.folders.path(stage, name)), why=why)

    def _tell_trouble(self, failure: ServiceFailure) -> str:
        why = f"{failure}{f'; {failure.hint}' if failure.hint else ''}"
        return tr("retention: nothing more is removed from delivered/ now, since S3 can't be asked: {why}", why=why)
