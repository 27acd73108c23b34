"""The threads and the work they do: lanes that submit, track and back up, one thread for the sheet, one for moves.

The loop decides and hands over; nothing here decides what is claimed. No lock is held during a call to a service.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from tfwatch.delivery.admit import Admission
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.due import DueQueue
from tfwatch.delivery.limbo import Limbo
from tfwatch.delivery.mirror import MirrorLog
from tfwatch.delivery.moves import Moves
from tfwatch.delivery.progress import Board
from tfwatch.delivery.recognise import Claim
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.store import Store
from tfwatch.delivery.submit import SubmitDelivery
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.told import ApplyTold
from tfwatch.delivery.track import TrackDelivery
from tfwatch.delivery.trouble import Trouble
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.wiring import Wired
from tfwatch.lanes import Lanes
from tfwatch.ledger.calls import Subject
from tfwatch.model import Integration, Package, Stage
from tfwatch.retry import moments
from tfwatch.spool.watcher import Bell

_TRACKING_LANES: Final = 2
_TOLD_LANES: Final = 2
_NEVER: Final = float("inf")
_LAST_WORD_SECONDS: Final = 3.0
"""At a stop, a transcription service has so long to answer; then its connections are cut, and each call ends."""
_LOOK_AT_HELD: Final = 0.2
_CLEAN_UP: Final = ("", "clean up")
"""Among the backups that are due: look for abandoned uploads."""

_Key = tuple[str, str]


class Workshop:
    """All blocking work of one run. `bell` wakes the loop; `failed` ends the process."""

    def __init__(
        self,
        desk: Desk,
        configuration: Wired,
        switches: Mapping[Integration, Switch],
        rollback: Rollback,
        *,
        log_path: str,
        bell: Bell,
        stop: threading.Event,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.board = Board()
        self.waiting = WaitingRoom()
        self._desk = desk
        self._configuration = configuration
        self._switches = switches
        self._rollback = rollback
        self._bell = bell
        self._stop = stop
        self._failed = failed
        self._claims: queue.SimpleQueue[Claim | None] = queue.SimpleQueue()
        self._in_flight = 0
        self._lock = threading.Lock()
        self._rng = random.Random()  # noqa: S311  spreads calls, protects nothing
        self._limbo = Limbo()
        self._polls: DueQueue[_Key] = DueQueue()
        self._backups: DueQueue[_Key] = DueQueue()
        self._told: DueQueue[Subject] = DueQueue()
        self._sheet_bell = threading.Event()
        self._moves_bell = Bell()
        stopping = stop.is_set
        self.admission = Admission(
            desk,
            self.waiting,
            self.board,
            stopping=stopping,
            freed=lambda: bell.ring(Stage.OUTBOX.value),
            in_limbo=self.wait_in_limbo,
        )
        self.store = Store(desk, self.waiting, self.board, self.admission, stopping=stopping)
        self.track = TrackDelivery(desk, self.board, delivered=self.back_up)
        self.told = ApplyTold(
            desk, delivered=self.back_up, left_claimed=self._limbo.take_out, release=self.admission.release
        )
        self.mirror = MirrorLog(log_path, desk.index, self.board)
        self.moves = Moves(desk, self.board, stopping=stopping, submitted=self._on_accepted, delivered=self.back_up)
        self._submit = SubmitDelivery(
            desk,
            admission=self.admission,
            waiting=self.waiting,
            board=self.board,
            switch=switches[Integration.GOTRANSCRIPT],
            rollback=rollback,
            store=self.store,
            told=self.told,
            stopping=stopping,
            accepted=self._on_accepted,
            delivered=self.back_up,
            in_limbo=self.wait_in_limbo,
        )
        polls, backups, told = self._polls, self._backups, self._told
        self._submit_lanes = Lanes(
            "submit", take=self._claims.get, do=self._do_claim, end_one=self._end_one_claimer, failed=failed
        )
        self._track_lanes = Lanes("track", take=polls.take, do=self._do_poll, end_one=polls.end_one, failed=failed)
        self._backup_lanes = Lanes(
            "backup", take=backups.take, do=self._do_backup, end_one=backups.end_one, failed=failed
        )
        self._told_lanes = Lanes("told", take=told.take, do=self._do_told, end_one=told.end_one, failed=failed)
        self._threads = [
            threading.Thread(target=self._mirror_rows, name="sheet", daemon=True),
            threading.Thread(target=self._follow_moves, name="moves", daemon=True),
        ]

    @property
    def troubles(self) -> Mapping[Integration, Trouble | None]:
        """Which services give us nothing now."""
        return {
            Integration.GOTRANSCRIPT: self.track.episode or self._rollback.episode,
            Integration.S3: self.store.episode,
            Integration.SHEETS: self.mirror.episode,
        }

    # --- starting, changing, stopping --------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what the log says is unfinished, and begin."""
        index, now = self._desk.index, self._desk.now()
        for state, moment in zip(index.at_stage(Stage.SUBMITTED), moments(self._rng), strict=False):
            self._polls.put((state.sha256, state.name), moment)
        for state in index.at_stage(Stage.OUTBOX):
            if state.retry_at is not None and state.retry_at > now:
                # The clock may have been set back since: never longer than it was to wait when that was decided.
                seconds = min(state.retry_at - now, state.retry_at - state.changed_at).total_seconds()
                self.waiting.put(state.name, self._desk.folders.look(Stage.OUTBOX, state.name), seconds)
        for subject in index.calls.all_told():
            self._told.put(subject, 0.0)
        self._track_lanes.resize(_TRACKING_LANES)
        self._told_lanes.resize(_TOLD_LANES)
        for thread in self._threads:
            thread.start()

    def configure(self) -> None:
        """The configuration has changed: have as many lanes as it says, and try again what waited for it."""
        self._submit_lanes.resize(self._configuration.workers)
        self._backup_lanes.resize(self._configuration.backup_workers)
        self.take_up_again()

    def take_up_again(self) -> None:
        """An integration was switched on or off: whatever waits for its next round is due, every backup, and the sheet.

        Any thread may call this.
        """
        self.waiting.free_all()
        self._bell.ring(Stage.OUTBOX.value)
        self._limbo.free_all()
        if self._configuration.wiring.storage is not None:
            for state, moment in zip(self._desk.index.unbacked(), moments(self._rng), strict=False):
                self._backups.put((state.sha256, state.name), moment)
            self._backups.hurry(moments(self._rng))
            self._backups.put(_CLEAN_UP, 0.0)
        self._sheet_bell.set()

    def stop(self, deadline: float) -> bool:
        """Let all threads put down what they hold, until `deadline` (monotonic); false when some could not."""
        self._sheet_bell.set()
        self._moves_bell.ring("stop")
        self._put_down_claims()
        callers = (self._submit_lanes, self._track_lanes)
        for lanes in (*callers, self._told_lanes, self._backup_lanes):
            lanes.resize(0)
        last_word = min(deadline, time.monotonic() + _LAST_WORD_SECONDS)
        port = self._configuration.wiring.transcription
        if not all(lanes.join(last_word) for lanes in callers) and port is not None:
            port.close()
        ended = [lanes.join(deadline) for lanes in (*callers, self._told_lanes, self._backup_lanes)]
        # The sheet may not answer for long, and its batch is written to the same places again: that isn't waited for.
        for thread, until in zip(self._threads, (last_word, deadline), strict=True):
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        return all(ended)

    def _end_one_claimer(self) -> None:
        self._claims.put(None)

    def _put_down_claims(self) -> None:
        while True:
            try:
                claim = self._claims.get_nowait()
            except queue.Empty:
                return
            if claim is not None and not claim.recovered:
                self.admission.give_back(claim)

    # --- submitting --------------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Claims handed over and not done with."""
        return self._in_flight

    @property
    def room(self) -> int:
        """How many more claims may be made: one for each lane, and one for each to go on with.

        While the service comes back after an outage, as many as may be under way by then.
        """
        allowed = self._switches[Integration.GOTRANSCRIPT].allowed(self._configuration.workers)
        return (2 * self._configuration.workers if allowed is None else allowed) - self._in_flight

    def dispatch(self, claim: Claim) -> None:
        """Hand a claim to the submission lanes; its name is held until they are done with it."""
        with self._lock:
            self._in_flight += 1
        self._claims.put(claim)

    def _do_claim(self, claim: Claim) -> None:
        try:
            self._submit.deliver(claim, self._configuration.wiring)
        finally:
            self._desk.in_work.release(claim.name)
            with self._lock:
                self._in_flight -= 1
            self._bell.ring("lane")
        # Deliveries may have been switched on while a copy was made of one: who freed all did not find it waiting.
        on = self._switches[Integration.GOTRANSCRIPT].stand.word in ("enabled", "waiting")
        if on and self.waiting.free_while_off():
            self._bell.ring(Stage.OUTBOX.value)

    def wait_in_limbo(self, name: str, seconds: float) -> None:
        """A package whose outcome is unknown waits in claimed/ for its next round."""
        self._limbo.put(name, seconds)
        self._bell.ring("limbo")

    def limbo_due(self) -> float | None:
        """Seconds until the first of those may be tried again; None when there is none."""
        return self._limbo.next_due()

    def dispatch_limbo(self, *, is_probe: bool = False) -> bool:
        """Try those again whose time has come, as far as there is room; one of them as the probe. True if any."""
        was_any, now = False, time.monotonic()
        for name in self._limbo.due():
            if self.room <= 0 or (is_probe and was_any):
                break
            if not self._desk.in_work.take(name):
                self._limbo.put_off(name, _LOOK_AT_HELD)  # whoever holds it says nothing when it lets go
                continue
            self._limbo.take_out(name)
            self.dispatch(Claim(name=name, dropped_as=name, recovered=True, probe=is_probe, taken_at=now))
            was_any = True
        return was_any

    # --- tracking and backing up -------------------------------------------------------------------------------------

    def _do_poll(self, key: _Key) -> None:
        wiring = self._configuration.wiring
        if self._switches[Integration.GOTRANSCRIPT].stand.word in ("off", "disabled"):
            self._polls.put(key, wiring.policy.poll_seconds)
            return
        was = self.track.episode
        again = self.track.ask(*key, wiring)
        if self.track.episode != was:
            self._bell.ring("lane")  # for the status line
        if self.track.is_back():
            self._polls.spread(moments(self._rng))
        if again is not None:
            self._polls.put(key, again)
        else:
            self._bell.ring("lane")

    def apply_told(self, subject: Subject) -> None:
        """A webhook told a verdict that is on disk: bring its package where that says. Any thread may call this."""
        self._told.put(subject, 0.0)

    def _do_told(self, subject: Subject) -> None:
        if (again := self.told.apply(subject)) is not None:
            self._told.put(subject, again)

    def _do_backup(self, key: _Key) -> None:
        if not self._switches[Integration.S3].stand.open:
            return  # switching it on makes everything due again
        if key == _CLEAN_UP:
            self._backups.put(key, self.store.clean_up(self._configuration.wiring))
            return
        was_in_trouble = bool(self.store.trouble)
        again = self.store.back_up(*key, self._configuration.wiring)
        self._bell.ring("lane")
        if again is not None:
            self._backups.put(key, again)
        elif was_in_trouble and not self.store.trouble:
            self._backups.hurry(moments(self._rng))

    def _on_accepted(self, package: Package) -> None:
        self.track.accepted(package)
        self._polls.put((package.sha256, package.name), self._configuration.wiring.policy.poll_seconds)
        state = self._desk.index.package(package.sha256, package.name)
        if state is not None and self._desk.index.calls.told(told := Subject(state.order_id, state.sha256)):
            self.apply_told(told)

    def back_up(self, package: Package) -> None:
        """A delivered package's copy is due now. Any thread may call this."""
        if self._configuration.wiring.storage is not None:
            self._backups.put((package.sha256, package.name), 0.0)

    # --- the sheet, and people's moves -------------------------------------------------------------------------------

    def _mirror_rows(self) -> None:
        try:
            while not self._stop.is_set():
                pause = _NEVER
                if self._switches[Integration.SHEETS].stand.open:
                    was = self.mirror.episode
                    pause = self.mirror.run(self._configuration.wiring, self._stop.is_set)
                    if self.mirror.episode != was:
                        self._bell.ring("lane")  # for the status line
                self._sheet_bell.wait(None if pause == _NEVER else pause)
                self._sheet_bell.clear()
        except BaseException as error:  # noqa: BLE001  ends the process, with its traceback
            self._failed(error)

    def look_for_moves(self) -> None:
        """A person may have moved something: compare the folders with the log."""
        self._moves_bell.ring("look")

    def _follow_moves(self) -> None:
        try:
            again = 3600.0
            while not self._stop.is_set():
                self._moves_bell.wait(again)
                if not self._stop.is_set():
                    again = 3600.0 if self.moves.sweep() else 1.0
        except BaseException as error:  # noqa: BLE001  ends the process, with its traceback
            self._failed(error)
