"""Copies of packages in S3: after completion, while deliveries are off, or before a service fetches them."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, Final

from loguru import logger

from tfwatch.delivery.admit import Admission, Admitted
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.journal import fields
from tfwatch.delivery.keys import backup_key
from tfwatch.delivery.noted import Noted
from tfwatch.delivery.progress import SLOW_CALL_SECONDS, Board
from tfwatch.delivery.recognise import Claim
from tfwatch.delivery.trouble import Trouble
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.delivery.wiring import Wiring
from tfwatch.errors import ContentChanged, ServiceFailure, Stopping, Unreadable
from tfwatch.language import tr
from tfwatch.ledger.index import PackageState
from tfwatch.model import Backup, Event, Integration, Stage, StoredObject, write_detail
from tfwatch.ports import BackupStoragePort
from tfwatch.retry import Backoff
from tfwatch.spool.listing import NotAPackage
from tfwatch.spool.names import printable
from tfwatch.spool.reader import reader_of

BETWEEN_BACKUPS: Final = Backoff(initial=30.0, maximum=3600.0)
"""Between attempts to back up one package, seconds."""

CLEAN_UP_SECONDS: Final = 24 * 3600.0
"""An upload that is still unfinished after so long is abandoned; looked for as often."""


class Store:
    """The use case of the backup lanes. Thread-safe.

    `episode`: why the storage takes nothing now; a package that can't be had here is no trouble of the storage's.
    """

    def __init__(
        self,
        desk: Desk,
        waiting: WaitingRoom,
        board: Board,
        admission: Admission,
        *,
        stopping: Callable[[], bool],
        rng: random.Random | None = None,
    ) -> None:
        self._desk = desk
        self._waiting = waiting
        self._board = board
        self._admission = admission
        self._stopping = stopping
        self._rng = rng or random.Random()  # noqa: S311  spreads retries, protects nothing
        self.episode: Trouble | None = None
        self._noted = Noted(desk.folders, Stage.OUTBOX, Stage.CLAIMED, Stage.DELIVERED)

    @property
    def trouble(self) -> str:
        """The same in words; empty while all is well."""
        return self.episode.words if self.episode else ""

    def problems(self) -> list[str]:
        """Packages that could not be read as they were, and are still there."""
        return self._noted.texts()

    def back_up(self, sha256: str, name: str, wiring: Wiring) -> float | None:
        """Back up a delivered package; returns seconds after which to try again, None when there is nothing to do."""
        storage = wiring.storage
        if storage is None:
            return None
        with self._desk.in_work.holding(name) as mine:
            if not mine:
                return 1.0
            state = self._desk.index.package(sha256, name)
            if state is None or state.stage is not Stage.DELIVERED or state.backed_up:
                return None
            where = Whereabouts(file=Stage.DELIVERED, log=Stage.DELIVERED, status=state.status)
            open_zip = partial(self._desk.folders.reader, Stage.DELIVERED, name)
            with logger.contextualize(**_fields(state)):
                return self._store(state, where, open_zip, storage, wiring)

    def back_up_waiting(self, claim: Claim, admitted: Admitted, wiring: Wiring) -> None:
        """Back up a claimed package while deliveries are off, and put it back into the outbox."""
        storage = wiring.storage
        if storage is None or admitted.where.log is Stage.CLAIMED:
            self._admission.give_back(claim, seconds=0.0)
            return
        where = Whereabouts(file=Stage.OUTBOX, log=admitted.where.log, status=admitted.where.status)
        state = admitted.state or self._first_row(
            claim, admitted, where, tr("waits in outbox/; a copy is kept meanwhile")
        )
        open_zip = partial(reader_of, admitted.fd)
        with logger.contextualize(**_fields(state)):
            delay = None if state.backed_up else self._store(state, where, open_zip, storage, wiring)
        self._admission.give_back(claim)
        entry = self._desk.folders.look(Stage.OUTBOX, claim.name)
        self._waiting.put_while_off(claim.name, entry, delay)

    def source_url(self, claim: Claim, admitted: Admitted, wiring: Wiring, *, expires_seconds: int) -> str | None:
        """Store a claimed package where a service can fetch it; None when it could not be stored now."""
        storage = wiring.storage
        if storage is None:
            return None
        where = Whereabouts(file=Stage.OUTBOX, log=admitted.where.log, status=admitted.where.status)
        if admitted.where.log is Stage.CLAIMED:
            where = admitted.where
        state = admitted.state or self._first_row(claim, admitted, where, tr("stored before it is sent"))
        open_zip = partial(reader_of, admitted.fd)
        with logger.contextualize(**_fields(state)):
            if not state.backed_up and self._store(state, where, open_zip, storage, wiring) is not None:
                return None
        return storage.presign(self._key(state, wiring), expires_seconds=expires_seconds)

    def clean_up(self, wiring: Wiring) -> float:
        """Abort uploads that an earlier run left unfinished; returns seconds until the next look."""
        if wiring.storage is None:
            return CLEAN_UP_SECONDS
        try:
            aborted = wiring.storage.abort_abandoned(older_than_seconds=CLEAN_UP_SECONDS)
        except ServiceFailure as failure:
            logger.info("s3: unfinished uploads can't be looked for: {}", failure)
            return BETWEEN_BACKUPS.maximum
        if aborted:
            logger.info("s3: aborted {} upload(s) that were begun over a day ago and never finished", aborted)
        return CLEAN_UP_SECONDS

    def _first_row(self, claim: Claim, admitted: Admitted, where: Whereabouts, why: str) -> PackageState:
        """The date in a backup's key is that of the package's first row, so that row comes before the copy."""
        detail = write_detail(why, sent="no", dropped=claim.dropped_as)
        self._desk.settle(admitted.package, Event.DEFERRED, where, detail=detail)
        state = self._desk.index.package(admitted.package.sha256, admitted.package.name)
        assert state is not None
        return state

    def _key(self, state: PackageState, wiring: Wiring) -> str:
        return backup_key(wiring.policy.s3_prefix, state.first_at.date(), package_of(state))

    def _store(
        self,
        state: PackageState,
        where: Whereabouts,
        open_zip: Callable[[], BinaryIO],
        storage: BackupStoragePort,
        wiring: Wiring,
    ) -> float | None:
        package = package_of(state)
        try:
            with self._board.working(state.name, "backing up", state.bytes, timeout=SLOW_CALL_SECONDS) as progress:
                stored = storage.store(
                    Backup(
                        package=package,
                        key=self._key(state, wiring),
                        order_id=state.order_id,
                        open_zip=open_zip,
                        stopping=self._stopping,
                        progress=progress,
                    )
                )
        except Stopping:
            return BETWEEN_BACKUPS.initial
        except (FileNotFoundError, NotAPackage):
            if self._desk.look_at_mounts():
                return BETWEEN_BACKUPS.initial  # it may lie under the mount
            logger.warning("{}/{}: vanished before it was backed up", where.file, printable(state.name))
            return None
        except PermissionError as error:
            said = tr(
                "it can't be read: {error}; let the daemon's user read it: {mend}",
                error=error.strerror, mend=self._desk.folders.how_to_let_read(where.file, state.name),
            )  # fmt: skip
            return self._not_to_be_had(state, where, said)
        except BlockingIOError:
            said = tr("another program holds a lease on it; it is tried again (fuser shows who that is)")
            return self._not_to_be_had(state, where, said)
        except Unreadable as error:
            said = tr("it {error}; it is tried again: see dmesg for what the disk says", error=error)
            return self._not_to_be_had(state, where, said)
        except ContentChanged as changed:
            what = str(changed) or tr("it changed while it was stored")
            said = tr("{what}; the file was changed: compare it with log.csv", what=what)
            return self._not_to_be_had(state, where, said)
        except ServiceFailure as failure:
            return self._service_failed(state, where, failure)
        self._stored(state, where, stored)
        return None

    def _stored(self, state: PackageState, where: Whereabouts, stored: StoredObject) -> None:
        self.episode = None
        self._noted.drop(state.name)
        detail = write_detail(
            tr("it was there already") if stored.existed else "", bucket=stored.bucket, key=stored.key
        )  # fmt: skip
        self._desk.settle(package_of(state), Event.BACKED_UP, where, order_id=state.order_id, detail=detail)

    def _service_failed(self, state: PackageState, where: Whereabouts, failure: ServiceFailure) -> float:
        words = failure.in_words
        self.episode = Trouble.of(words, before=self.episode, failure=failure)
        return self._failed(state, where, words, code=failure.code)

    def _not_to_be_had(self, state: PackageState, where: Whereabouts, said: str) -> float:
        """This one package's file is the matter: shown in status and alerted while it lasts."""
        path = printable(self._desk.folders.path(where.file, state.name))
        self._noted.put(state.name, tr("{path}: can't be backed up: {why}", path=path, why=said))
        return self._failed(state, where, said)

    def _failed(self, state: PackageState, where: Whereabouts, said: str, *, code: int | None = None) -> float:
        self._desk.settle(
            package_of(state), Event.BACKUP_FAILED, where, order_id=state.order_id, code=code,
            detail=write_detail(said),
        )  # fmt: skip
        return BETWEEN_BACKUPS.delay(state.backup_failures + 1, self._rng)


def _fields(state: PackageState) -> dict[str, str]:
    return fields(state, state.name, order_id=state.order_id) | {"INTEGRATION": Integration.S3.value}
