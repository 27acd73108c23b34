"""The daemon: recover, then one loop that looks and decides. The blocking work is the workshop's."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Final, Protocol

from loguru import logger

from tfwatch import disk
from tfwatch.configuration import Configuration
from tfwatch.delivery.claim import Outbox
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.operate import Operate
from tfwatch.delivery.progress import Work
from tfwatch.delivery.recognise import Claim
from tfwatch.delivery.removing import finish_removals
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.wiring import Wiring
from tfwatch.errors import Stopping
from tfwatch.forwarding import Forwarding
from tfwatch.language import tr
from tfwatch.ledger.log import Log, LogDamaged, LogPoisoned
from tfwatch.model import Integration, Stage
from tfwatch.observe.health import Health
from tfwatch.observe.state import Alerting
from tfwatch.spool.folders import Folders, SpoolUnusable
from tfwatch.spool.intake import ignore_lease_signals
from tfwatch.spool.names import printable
from tfwatch.spool.watcher import Bell
from tfwatch.watch import Watch
from tfwatch.workshop import Workshop

STOP_SECONDS: Final = 8.0
"""How long lanes may take to put down what they hold; systemd and operators expect a stop within ten seconds."""

_LAST_SECONDS: Final = 7.0
"""After that the log's last rows are synced, and the interpreter ends."""

_SCAN_SHARE: Final = 4.0
"""Between two scans that events ask for, this many times as long as the last one took."""

_WHILE_CLAIMING_SECONDS: Final = 1.0
"""Between two scans while files found by the last one are still to be claimed."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SETTLED: Final = frozenset((Stage.SUBMITTED.value, Stage.DELIVERED.value, Stage.REJECTED.value))


class Companion(Protocol):
    """Something beside the loop, in threads of its own, that no delivery waits for: the web server, alerts, retention.

    What goes wrong in one is its own to tell. Methods are called by the loop and don't block for long.
    """

    @property
    def problems(self) -> Sequence[str]:
        """What a person should look at, for `status`; empty while all is well."""
        ...

    def configure(self) -> None:
        """Take over the settings in force; called before `start`, and after each change."""
        ...

    def start(self) -> None:
        """Begin: the first scan is done."""
        ...

    def stop(self, deadline: float) -> None:
        """End, until `deadline` (monotonic)."""
        ...


class Daemon:
    """One run. Whoever makes it holds the spool's lock and has opened log and index."""

    def __init__(
        self,
        *,
        folders: Folders,
        log: Log,
        desk: Desk,
        configuration: Configuration,
        health: Health,
        exec_id: str,
        stop: threading.Event,
        switches: dict[Integration, Switch],
        rollback: Rollback,
        config_folder: str,
    ) -> None:
        self.desk = desk
        self.switches = switches
        self.companions: Sequence[Companion] = ()
        self.alerting: Alerting | None = None
        self._folders = folders
        self._log = log
        self._configuration = configuration
        self._health = health
        self._exec_id = exec_id
        self._stop = stop
        self._rollback = rollback
        self._bell = Bell()
        self._reload_asked = False
        self._scan_wanted = True
        self._is_away = False
        self._failure: BaseException | None = None
        self.workshop = Workshop(
            desk, configuration, switches, rollback, log_path=folders.log, bell=self._bell, stop=stop, failed=self.fail
        )
        self.outbox = Outbox(desk, self.workshop.waiting, self.workshop.admission, dispatch=self.workshop.dispatch)
        self.watch = Watch(self._bell, folders, desk, config_folder)
        self._operate = Operate(desk, switches, rollback, moved=self.workshop.look_for_moves)
        self._gate = switches[Integration.GOTRANSCRIPT]
        self._forwarding = Forwarding(self.outbox, self.workshop, self._gate, rollback)

    @property
    def wiring(self) -> Wiring:
        """The services and settings in force."""
        return self._configuration.wiring

    @property
    def config_problems(self) -> tuple[str, ...]:
        """Why a changed config.yaml was not taken over; empty when it was."""
        return self._configuration.problems

    @property
    def companion_problems(self) -> tuple[str, ...]:
        """What a person should look at in what runs beside the loop."""
        return tuple(problem for companion in self.companions for problem in companion.problems)

    @property
    def beat_age(self) -> float:
        """Seconds since the loop last finished a pass, or said why it waits."""
        return self._health.beat_age

    # --- a run -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Work until told to stop; returns the exit code. Must be called from the main thread."""
        self._take_signals()
        self._folders.hold()
        self.desk.while_waiting = self._beat_while_waiting
        self._log.while_waiting = self._beat_while_the_index_waits
        self._rollback.lifted = self.workshop.take_up_again
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
            words = str(error) if isinstance(error, LogDamaged | LogPoisoned) else disk.told(error)
            if words is not None:
                logger.critical("stopping: {}", words)
                logger.opt(exception=error).debug("it happened here")
            else:
                text = "".join(traceback.format_exception(error))
                logger.critical("stopping: {}: {}\n{}", type(error).__name__, error, text)
        self.stop()

    def stop(self) -> None:
        """Ask for a clean stop."""
        self._stop.set()
        self._bell.ring("stop")

    def _take_signals(self) -> None:
        ignore_lease_signals()
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reload_asked = True
            self._bell.ring("config")
        else:
            self.stop()

    def _start(self) -> None:
        self.workshop.board.listener = self._tell_reading
        for claimed in self._folders.list(Stage.CLAIMED).entries:
            claim = Claim(name=claimed.name, dropped_as=claimed.name, recovered=True)
            if self.workshop.admission.recover(claim):
                self.workshop.wait_in_limbo(claimed.name, 0.0)
        finish_removals(self.desk, stopping=self._stop.is_set)
        self.workshop.moves.sweep(recovering=True)
        self._rollback.write_missing_document()
        self._apply_configuration()
        self.watch.start()
        self._take_requests()
        self.workshop.start()
        self.outbox.scan()
        for companion in self.companions:
            companion.start()
        self.workshop.board.listener = lambda work: None
        self._health.ready(self)
        logger.info("watching {} (run {})", self._folders.folder(Stage.OUTBOX), self._exec_id)

    def _tell_reading(self, work: Work) -> None:
        """After a crash, or an hour without the daemon, many large files may have to be hashed."""
        done, total = work.done // 2**20, work.total // 2**20
        what = tr("{package} is read, {done} of {total} MiB", package=printable(work.name), done=done, total=total)
        self._health.starting(what)

    def _beat_while_waiting(self) -> None:
        """The loop, too, waits for room on a full disk; it is alive, and says why it waits."""
        if threading.current_thread() is threading.main_thread():
            self._health.beat(self)

    def _beat_while_the_index_waits(self) -> None:
        """A row is on disk and the index finds no room for it. Waiting for anything else of the log is no life."""
        if self.desk.index.no_room:
            self._beat_while_waiting()

    def _finish(self) -> int:
        """Within ten seconds: lanes put down what they hold; what can't be put down is recovered at the next start."""
        deadline = time.monotonic() + STOP_SECONDS
        self._stop.set()
        self._health.stopping(STOP_SECONDS + _LAST_SECONDS)
        try:
            if not isinstance(self._failure, LogDamaged | LogPoisoned):
                self.outbox.give_back_held()
            for companion in self.companions:
                companion.stop(deadline)
            if not self.workshop.stop(deadline):
                logger.warning("some requests were still under way; what became of them is found out at the next start")
        except BaseException as error:  # noqa: BLE001  as in `run`; what wasn't put down is recovered
            self.fail(error)
        self.watch.stop()
        self._health.stopped()
        # The interpreter's end takes a moment; the exit code stays ours however often we are told to stop.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        return 1 if self._failure is not None else 0

    # --- the loop --------------------------------------------------------------------------------------------------

    def _pass(self) -> None:
        """Once around: wait for news or for what is due, then look and decide."""
        rung = self._bell.wait(self._patience())
        if self._stop.is_set():
            return
        self._log.check_inode()
        if self.watch.rescan_due or self._folders.is_away != self._is_away:
            rung = rung | {"config", "requests", Stage.OUTBOX.value, *_SETTLED}
            self._look_at_everything()
        if "config" in rung:
            self._reload_if_changed()
        if "requests" in rung or (self._operate.is_waiting and "lane" in rung):
            self._take_requests()
        if rung & _SETTLED:
            self.workshop.look_for_moves()
        self.watch.check_canary()
        self._scan_if_needed(rung=Stage.OUTBOX.value in rung)
        self.outbox.look_at_held(self.wiring.policy)
        self._scan_wanted |= self._forwarding.send(self.wiring, scan_wanted=self._scan_wanted)
        self._health.beat(self)

    def _patience(self) -> float:
        """Seconds the loop may sleep: until the first thing that is due without any event."""
        stand = self._gate.stand
        if self.outbox.has_candidates and stand.open and self.workshop.room > 0:
            return 0.0
        waits = [self.watch.next_due(), self._health.next_beat(self)]
        look = self.outbox.next_look()
        if look is not None:
            waits.append(max(look, self._scan_pause()))
        if self._scan_wanted:
            waits.append(self._scan_pause())
        if stand.open and self.workshop.room > 0 and (due := self.workshop.limbo_due()) is not None:
            waits.append(due)
        if not stand.open and (opens := self._gate.waits):
            waits.append(opens)
        return max(0.0, min(waits))

    def _scan_pause(self) -> float:
        """Until the next scan may be made: a large folder isn't listed again for every file that comes."""
        pause = _SCAN_SHARE * self.outbox.scan_seconds
        if self.outbox.has_candidates:
            pause = max(pause, _WHILE_CLAIMING_SECONDS)
        return max(0.0, self.outbox.scanned_at + pause - time.monotonic())

    def _scan_if_needed(self, *, rung: bool) -> None:
        self._scan_wanted |= rung or self.outbox.next_look() == 0.0
        if self._scan_wanted and self._scan_pause() == 0.0:
            self._scan_wanted = False
            self.outbox.scan()

    def _look_at_everything(self) -> None:
        """Events or not: folders that went missing are made again, replaced ones are watched again."""
        if self._folders.is_away != self._is_away:
            self._is_away = not self._is_away
            logger.info("{}: the path leads {}", self._folders.root, "elsewhere" if self._is_away else "here again")
        try:
            self._folders.prepare()
        except SpoolUnusable as error:
            logger.error("{}", error)
        self.desk.look_at_mounts()
        self._rollback.write_again()
        self.watch.rescan(self.wiring.policy.rescan_seconds, self.outbox.scan_seconds)

    # --- configuration and requests ----------------------------------------------------------------------------------

    def _reload_if_changed(self) -> None:
        if not self._reload_asked and not self._configuration.changed():
            return
        self._reload_asked = False
        self._health.reloading()
        if self._configuration.reload():
            self._apply_configuration()
            logger.info("configuration taken over")
        self._health.ready(self)

    def _apply_configuration(self) -> None:
        self._configuration.configure(self.switches, self.desk, self._rollback)
        if not self._gate.held:
            # Also when nothing was turned on now: a crash may have come between the lifting and the requeue.
            self._rollback.requeue_rejected()
        self.workshop.configure()
        self.watch.configure(self.wiring.policy)
        for companion in self.companions:
            companion.configure()

    def _take_requests(self) -> None:
        if self._operate.take_all():
            self.workshop.take_up_again()
            self._health.hurry()
