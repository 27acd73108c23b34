"""The daemon: recover, then one loop that scans and decides, with lanes that do the blocking work."""

from __future__ import annotations

import queue
import signal
import threading
import time
import traceback
from types import FrameType
from typing import Final, Protocol

from loguru import logger

from tfwatch.delivery.admit import Admission, Claim
from tfwatch.delivery.claim import Outbox
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.due import DueQueue
from tfwatch.delivery.mirror import MirrorLog
from tfwatch.delivery.moves import Moves
from tfwatch.delivery.operate import Operate
from tfwatch.delivery.progress import Board
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.store import Store
from tfwatch.delivery.submit import SubmitDelivery
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.track import TrackDelivery
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.wiring import Wiring
from tfwatch.errors import Stopping
from tfwatch.lanes import Lanes
from tfwatch.ledger.log import Log
from tfwatch.model import Actor, Event, Fact, Integration, Package, Stage, write_detail
from tfwatch.observe.health import Health
from tfwatch.spool.folders import Folders, SpoolUnusable
from tfwatch.spool.intake import ignore_lease_signals
from tfwatch.spool.watcher import Bell
from tfwatch.watch import Watch

STOP_SECONDS: Final = 8.0
"""How long lanes may take to put down what they hold; systemd and operators expect a stop within ten seconds."""

_TRACKING_LANES: Final = 2
_SCAN_SHARE: Final = 4.0
"""Between two scans that events ask for, this many times as long as the last one took."""

_Key = tuple[str, str]


class Configuration(Protocol):
    """Where the daemon gets its wiring from, and how it learns that config.yaml has changed."""

    @property
    def wiring(self) -> Wiring:
        """The services and settings in force."""
        ...

    @property
    def workers(self) -> int:
        """Submissions in flight."""
        ...

    @property
    def backup_workers(self) -> int:
        """Backups in flight."""
        ...

    @property
    def problems(self) -> tuple[str, ...]:
        """Why a changed config.yaml was not taken over; empty when it was."""
        ...

    def changed(self) -> bool:
        """Whether a file the configuration was read from has changed since."""
        ...

    def reload(self) -> bool:
        """Read it again; true when it was taken over, false when it has problems (logged) and the old one stays."""
        ...

    def configure(self, switches: dict[Integration, Switch], desk: Desk, rollback: Rollback) -> set[Integration]:
        """Tell each switch and the rollback what the configuration says; gives those turned on by it."""
        ...


class Daemon:
    """One run. It owns the threads; whoever makes it holds the spool's lock and has opened log and index."""

    def __init__(self, *, folders: Folders, log: Log, desk: Desk, configuration: Configuration, health: Health,
                 exec_id: str, stop: threading.Event, switches: dict[Integration, Switch],
                 rollback: Rollback, config_folder: str) -> None:  # fmt: skip
        self.desk = desk
        self.switches = switches
        self.configuration = configuration
        self.board = Board()
        self.waiting = WaitingRoom()
        self._folders = folders
        self._log = log
        self._health = health
        self._exec_id = exec_id
        self._stop = stop
        self._rollback = rollback
        self._reload_asked = False
        self._scan_wanted = True
        self._failure: BaseException | None = None
        self._bell = Bell()
        self._claims: queue.SimpleQueue[Claim | None] = queue.SimpleQueue()
        self._in_flight = 0
        self._flight_lock = threading.Lock()
        self._limbo: dict[str, float] = {}
        self._polls: DueQueue[_Key] = DueQueue()
        self._backups: DueQueue[_Key] = DueQueue()
        self._sheet_bell = threading.Event()
        self._sweep_bell = Bell()
        stopping = stop.is_set
        self.admission = Admission(
            desk, self.waiting, self.board, stopping=stopping, freed=lambda: self._bell.ring("outbox")
        )
        self.outbox = Outbox(desk, self.waiting, self.admission, dispatch=self._dispatch)
        self.store = Store(desk, self.waiting, self.board, self.admission, stopping=stopping)
        self.submit = SubmitDelivery(
            desk, admission=self.admission, waiting=self.waiting, board=self.board,
            switch=switches[Integration.GOTRANSCRIPT], rollback=rollback, store=self.store, stopping=stopping,
            accepted=self._on_accepted, delivered=self._on_delivered, in_limbo=self._on_limbo,
        )  # fmt: skip
        self.track = TrackDelivery(desk, delivered=self._on_delivered)
        self.mirror = MirrorLog(folders.log, desk.index)
        self.moves = Moves(
            desk, self.board, stopping=stopping, submitted=self._on_accepted, delivered=self._on_delivered
        )
        self.operate = Operate(desk, switches, rollback)
        self.watch = Watch(self._bell, folders, desk, config_folder)
        self._lanes: dict[str, Lanes[Claim] | Lanes[_Key]] = {
            "submit": Lanes("submit", take=self._claims.get, do=self._do_claim, failed=self.fail),
            "track": Lanes("track", take=self._polls.take, do=self._do_poll, failed=self.fail),
            "backup": Lanes("backup", take=self._backups.take, do=self._do_backup, failed=self.fail),
        }
        self._sheet_thread = threading.Thread(target=self._mirror_rows, name="sheet", daemon=True)
        self._moves_thread = threading.Thread(target=self._watch_moves, name="moves", daemon=True)

    @property
    def wiring(self) -> Wiring:
        """The services and settings in force."""
        return self.configuration.wiring

    @property
    def config_problems(self) -> tuple[str, ...]:
        """Why a changed config.yaml was not taken over; empty when it was."""
        return self.configuration.problems

    # --- a run -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Work until told to stop; returns the exit code. Must be called from the main thread."""
        self._take_signals()
        try:
            self._start()
            while not self._stop.is_set():
                self._pass()
        except Stopping:
            pass
        except BaseException as error:  # noqa: BLE001  logged with its traceback, then exit 1
            self.fail(error)
        return self._finish()

    def fail(self, error: BaseException) -> None:
        """Something that must not happen did: stop everything and exit 1; recovery is the normal start."""
        if isinstance(error, Stopping):
            return
        if self._failure is None:
            self._failure = error
            text = "".join(traceback.format_exception(error))
            logger.critical("stopping: {}: {}\n{}", type(error).__name__, error, text)
        self.stop()

    def stop(self) -> None:
        """Ask for a clean stop."""
        self._stop.set()
        self._bell.ring("stop")

    def _take_signals(self) -> None:
        ignore_lease_signals()
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
            self._bell.ring("config")
        else:
            self.stop()

    def _start(self) -> None:
        for claimed in self._folders.list(Stage.CLAIMED).entries:
            claim = Claim(name=claimed.name, dropped_as=claimed.name, recovered=True)
            if self.admission.recover(claim):
                self._limbo[claimed.name] = 0.0
        self.moves.sweep(recovering=True)
        self._apply_configuration()
        self._fill_queues()
        self.watch.start()
        self._take_requests()
        self.outbox.scan()
        self._lanes["track"].resize(_TRACKING_LANES)
        self._sheet_thread.start()
        self._moves_thread.start()
        self._health.ready()
        logger.info("watching {} (run {})", self._folders.folder(Stage.OUTBOX), self._exec_id)

    def _fill_queues(self) -> None:
        index, now = self.desk.index, self.desk.now()
        for state in index.at_stage(Stage.SUBMITTED):
            self._polls.put((state.sha256, state.name), 0.0)
        for state in index.unbacked():
            self._backups.put((state.sha256, state.name), 0.0)
        for state in index.at_stage(Stage.OUTBOX):
            if state.retry_at is not None and state.retry_at > now:
                seconds = (state.retry_at - now).total_seconds()
                self.waiting.put(state.name, self._folders.look(Stage.OUTBOX, state.name), seconds)

    def _finish(self) -> int:
        """Within ten seconds: lanes put down what they hold; what can't be put down is recovered at the next start."""
        deadline = time.monotonic() + STOP_SECONDS
        self._health.stopping()
        self._stop.set()
        self._polls.close()
        self._backups.close()
        self._sheet_bell.set()
        self._sweep_bell.ring("stop")
        self._drop_queued_claims()
        for _ in range(256):
            self._claims.put(None)
        ended = [lanes.join(deadline) for lanes in self._lanes.values()]
        self.watch.stop()
        for thread in (self._sheet_thread, self._moves_thread):
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        if not all(ended):
            logger.warning("some requests were still under way; what became of them is found out at the next start")
        self._health.stopped()
        return 1 if self._failure is not None else 0

    def _drop_queued_claims(self) -> None:
        self.outbox.give_back_held()
        while True:
            try:
                claim = self._claims.get_nowait()
            except queue.Empty:
                return
            if claim is not None and not claim.recovered:
                self.admission.give_back(claim)

    # --- the loop --------------------------------------------------------------------------------------------------

    def _pass(self) -> None:
        """Once around: wait for news or for what is due, then look and decide."""
        rung = self._bell.wait(self._patience())
        if self._stop.is_set():
            return
        if "config" in rung or self.watch.rescan_due:
            self._reload_if_changed()
        if "requests" in rung or self.watch.rescan_due:
            self._take_requests()
        self._log.check_inode()
        policy = self.configuration.wiring.policy
        if self.watch.rescan_due:
            self._folders_again(policy.rescan_seconds)
            rung = rung | {"outbox", "submitted"}
        self.watch.check_canary()
        if rung & {"submitted", "delivered", "rejected"}:
            self._sweep_bell.ring("sweep")
        self._scan_if_needed(rung="outbox" in rung)
        self.outbox.look_at_held(policy)
        self._send_what_can_go()
        self._health.beat(self)

    def _patience(self) -> float:
        """Seconds the loop may sleep: until the first thing that is due without any event."""
        switch = self.switches[Integration.GOTRANSCRIPT]
        waits = [self.watch.next_due(), self._health.next_beat(self)]
        if self.outbox.has_candidates and self._room() > 0 and switch.stand.open:
            return 0.0
        look = self.outbox.next_look()
        if look is not None:
            waits.append(max(look, self._scan_pause()))
        if self._limbo and switch.stand.open:
            waits.append(max(0.0, min(self._limbo.values()) - time.monotonic()))
        if not switch.stand.open and (opens := switch.waits) is not None:
            waits.append(max(0.05, opens))
        return max(0.0, min(waits))

    def _scan_pause(self) -> float:
        """Until the next scan may be made: a large folder isn't listed again for every file that comes."""
        pause = self.outbox.scanned_at + _SCAN_SHARE * self.outbox.scan_seconds - time.monotonic()
        return max(0.0, pause)

    def _scan_if_needed(self, *, rung: bool) -> None:
        self._scan_wanted |= rung
        look = self.outbox.next_look()
        if not self._scan_wanted and (look is None or look > 0.0):
            return
        if self.outbox.has_candidates and time.monotonic() - self.outbox.scanned_at < 1.0:
            return
        if self._scan_pause() == 0.0:
            self._scan_wanted = False
            self.outbox.scan()

    def _send_what_can_go(self) -> None:
        wiring = self.configuration.wiring
        switch = self.switches[Integration.GOTRANSCRIPT]
        stand = switch.stand
        if stand.open:
            self._dispatch_limbo()
            while self._room() > 0 and self.outbox.claim_next(wiring.policy, purpose="deliver"):
                pass
        elif switch.probe_due:
            if self._in_flight == 0 and not self.outbox.claim_next(wiring.policy, purpose="deliver", is_probe=True):
                self._rollback.offer_probe()
        elif wiring.policy.when_disabled == "backup" and wiring.storage is not None and stand.word != "waiting":
            while self._room() > 0 and self.outbox.claim_next(wiring.policy, purpose="back up"):
                pass

    def _dispatch_limbo(self) -> None:
        now = time.monotonic()
        for name, due in list(self._limbo.items()):
            if due <= now and self._room() > 0 and self.desk.in_work.take(name):
                del self._limbo[name]
                self._dispatch(Claim(name=name, dropped_as=name, recovered=True))

    def _room(self) -> int:
        """How many more claims may be made: one for each lane, and one for each to go on with."""
        return 2 * self.configuration.workers - self._in_flight

    def _folders_again(self, rescan_seconds: float) -> None:
        try:
            self._folders.prepare()
        except SpoolUnusable as error:
            logger.error("{}", error)
        self.watch.rescan(rescan_seconds, self.outbox.scan_seconds)

    # --- configuration and requests ----------------------------------------------------------------------------------

    def _reload_if_changed(self) -> None:
        if not self._reload_asked and not self.configuration.changed():
            return
        self._reload_asked = False
        self._health.reloading()
        if self.configuration.reload():
            self._apply_configuration()
            logger.info("configuration taken over")
        self._health.ready()

    def _apply_configuration(self) -> None:
        turned_on = self.configuration.configure(self.switches, self.desk, self._rollback)
        if Integration.GOTRANSCRIPT in turned_on:
            self._rollback.requeue_rejected()
        if turned_on:
            self.waiting.free_all()
        self._lanes["submit"].resize(self.configuration.workers)
        self._lanes["backup"].resize(self.configuration.backup_workers)
        for state in self.desk.index.unbacked() if self.configuration.wiring.storage else ():
            self._backups.put((state.sha256, state.name), 0.0)
        self._backups.hurry()
        self._sheet_bell.set()
        self.watch.configure(self.configuration.wiring.policy)
        self._bell.ring("outbox")

    def _take_requests(self) -> None:
        if self.operate.take_all():
            self.waiting.free_all()
            self._backups.hurry()
            self._bell.ring("outbox")

    # --- what the lanes do -------------------------------------------------------------------------------------------

    def _dispatch(self, claim: Claim) -> None:
        with self._flight_lock:
            self._in_flight += 1
        self._claims.put(claim)

    def _do_claim(self, claim: Claim) -> None:
        try:
            self.submit.deliver(claim, self.configuration.wiring)
        finally:
            self.desk.in_work.release(claim.name)
            with self._flight_lock:
                self._in_flight -= 1
            self._bell.ring("lane")

    def _do_poll(self, key: _Key) -> None:
        if self.switches[Integration.GOTRANSCRIPT].stand.word in ("off", "disabled"):
            self._polls.put(key, self.configuration.wiring.policy.poll_seconds)
            return
        again = self.track.ask(*key, self.configuration.wiring)
        if again is not None:
            self._polls.put(key, again)
        else:
            self._bell.ring("lane")

    def _do_backup(self, key: _Key) -> None:
        was_in_trouble = bool(self.store.trouble)
        stand = self.switches[Integration.S3].stand
        again = self.store.back_up(*key, self.configuration.wiring) if stand.open else None
        self._bell.ring("lane")
        if again is not None:
            self._backups.put(key, again)
        elif was_in_trouble and not self.store.trouble:
            self._backups.hurry()

    def _on_accepted(self, package: Package) -> None:
        policy = self.configuration.wiring.policy
        self._polls.put((package.sha256, package.name), policy.poll_seconds)

    def _on_delivered(self, package: Package) -> None:
        if self.configuration.wiring.storage is not None:
            self._backups.put((package.sha256, package.name), 0.0)

    def _on_limbo(self, name: str, seconds: float) -> None:
        self._limbo[name] = time.monotonic() + seconds
        self._bell.ring("limbo")

    def _mirror_rows(self) -> None:
        try:
            while not self._stop.is_set():
                pause = 1.0
                if self.switches[Integration.SHEETS].stand.open:
                    pause = self.mirror.run(self.configuration.wiring, self._stop.is_set)
                self._sheet_bell.wait(None if pause == float("inf") else pause)
                self._sheet_bell.clear()
        except BaseException as error:  # noqa: BLE001  ends the process, with its traceback
            self.fail(error)

    def _watch_moves(self) -> None:
        try:
            again: float = 3600.0
            while not self._stop.is_set():
                self._sweep_bell.wait(again)
                if not self._stop.is_set():
                    again = 3600.0 if self.moves.sweep() else 1.0
        except BaseException as error:  # noqa: BLE001  ends the process, with its traceback
            self.fail(error)


def record_repairs(desk: Desk, *, cut_bytes: int, torn_path: str) -> None:
    """Say in the log that its torn tail was cut off at this start."""
    if cut_bytes:
        message = f"the log's last {cut_bytes} bytes were torn; they are kept in {torn_path}"
        desk.record(Fact(event=Event.RECOVERED, actor=Actor.TFWATCH, detail=write_detail(message)))
        logger.bind(EVENT=Event.RECOVERED.value).warning("{}", message)
