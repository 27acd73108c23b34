"""When to look at the folders: on events where they arrive, by the clock everywhere, by polling where they don't."""

from __future__ import annotations

import time
from typing import Final, Literal

from loguru import logger

from tfwatch.delivery.desk import Desk
from tfwatch.delivery.wiring import Policy
from tfwatch.language import tr
from tfwatch.model import Stage
from tfwatch.spool.folders import Folders
from tfwatch.spool.watcher import Bell, Watcher

CANARY_SECONDS: Final = 3.0
"""An event that has not come after so long does not come."""

_OVERSLEPT_SECONDS: Final = 1.0
"""Who looks so much too late was itself kept from running, and so perhaps was the thread that hears events."""

_POLL_SECONDS: Final = 1.0
_POLL_SHARE: Final = 20.0
_NEVER: Final = float("-inf")


class Watch:
    """The bell, the clock, and the proof that events arrive. Used by the daemon's loop alone."""

    def __init__(self, bell: Bell, folders: Folders, desk: Desk, config_folder: str) -> None:
        self._bell = bell
        self._folders = folders
        self._desk = desk
        places = {stage.value: folders.folder(stage) for stage in Stage if stage is not Stage.CLAIMED}
        places |= {"requests": folders.requests, "config": config_folder}
        self._watcher = Watcher(bell, places, ours=desk.is_ours)
        self._mode: Literal["auto", "inotify", "polling"] = "auto"
        self._rescan_at = 0.0
        self._canary_at: float | None = None
        self._proven_at = _NEVER
        self._overflows = 0
        self.deaf = ""

    @property
    def polling(self) -> bool:
        """Whether the outbox is looked at by the clock because events don't come, or not from everybody."""
        return self._mode == "polling" or bool(self.deaf)

    @property
    def latency_seconds(self) -> float | None:
        """How long the last canary's event took; None before the first."""
        return self._watcher.latency_seconds

    def configure(self, policy: Policy) -> None:
        """Take over `spool.watch`."""
        self._mode = policy.watch
        if self._mode == "polling":
            self._watcher.stop()
        elif not self._watcher.running and self._rescan_at:
            self.start()

    def start(self) -> None:
        """Begin to listen, and send the first canary."""
        if self._mode == "polling":
            return
        try:
            self._watcher.start()
        except OSError as error:
            self._watcher.stop()
            self._go_deaf(
                tr(
                    "inotify can't be used: {error}; raise fs.inotify.max_user_watches or max_user_instances",
                    error=error.strerror,
                )
            )
            return
        self._send_canary()

    def stop(self) -> None:
        """Stop listening."""
        self._watcher.stop()

    @property
    def rescan_due(self) -> bool:
        """Whether it is time to look at everything, events or not."""
        return time.monotonic() >= self._rescan_at

    def rescan(self, seconds: float, scan_seconds: float) -> None:
        """Everything is looked at now: watch replaced folders again, prove events, and plan the next time."""
        self._desk.forget_moves()
        if self._folders.is_away:
            self._rescan_at = time.monotonic() + min(seconds, _POLL_SECONDS)
            return
        if self._mode != "polling":
            self._listen_again(seconds)
        pause = max(_POLL_SECONDS, _POLL_SHARE * scan_seconds) if self.polling else seconds
        self._rescan_at = time.monotonic() + min(seconds, pause)

    def next_due(self) -> float:
        """Seconds until `rescan` or the canary is due."""
        waits = [self._rescan_at - time.monotonic()]
        if self._canary_at is not None:
            waits.append(self._canary_in())
        return max(0.0, min(waits))

    def check_canary(self) -> None:
        """Whether the canary's event has come; if it hasn't by now, events don't arrive here."""
        if self._watcher.overflows != self._overflows:
            self._overflows = self._watcher.overflows
            logger.warning("more file events came than fs.inotify.max_queued_events; everything is looked at instead")
        if self._canary_at is None:
            return
        late = -self._canary_in()
        if self._watcher.canary_heard(0.0):
            self._canary_at = None
            self._proven_at = time.monotonic()
            self._hear_again()
        elif late > _OVERSLEPT_SECONDS:
            self._send_canary()
        elif late >= 0:
            self._canary_at = None
            self._proven_at = _NEVER
            self._go_deaf(tr("no file events arrive in {folder}", folder=self._folders.folder(Stage.OUTBOX)))

    def _canary_in(self) -> float:
        """Seconds until the canary is given up. As long as other events come, it stands behind them in the queue."""
        assert self._canary_at is not None
        silent = min(time.monotonic() - self._canary_at, self._watcher.quiet_seconds)
        return CANARY_SECONDS - silent

    def _hear_again(self) -> None:
        why = self._unheard()
        if why:
            self._go_deaf(why)
        else:
            self.deaf = ""

    def _unheard(self) -> str:
        """Why the canary proves too little: it is written here, and others may write elsewhere."""
        if self._mode == "inotify":
            return ""
        try:
            if self._folders.sees_every_writer(Stage.OUTBOX):
                return ""
        except OSError:
            return ""
        folder = self._folders.folder(Stage.OUTBOX)
        return tr("{folder} may be shared, and no events come for what other machines write", folder=folder)

    def _listen_again(self, seconds: float) -> None:
        if not self._watcher.running:
            self.start()
            return
        try:
            replaced = self._watcher.refresh(anew=bool(self.deaf) and self._proven_at == _NEVER)
        except OSError as error:
            self._go_deaf(tr("a folder can't be watched: {error}", error=error.strerror))
            return
        for place in replaced:
            logger.warning("{}/ was replaced; it is watched again", place)
        is_proven = not replaced and time.monotonic() - self._proven_at < seconds - _POLL_SECONDS
        if self._canary_at is None and not is_proven:
            self._send_canary()

    def _send_canary(self) -> None:
        self._watcher.canary_sent()
        self._canary_at = time.monotonic()
        try:
            self._folders.touch_canary()
        except OSError as error:
            # A full disk or a folder that is gone: the scan says so; it proves nothing about events.
            logger.debug("no canary: {}", error)
            self._canary_at = None

    def _go_deaf(self, why: str) -> None:
        if not self.deaf:
            self._rescan_at = 0.0
        self.deaf = why
