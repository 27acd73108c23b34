"""The heartbeat: systemd's readiness, status line and watchdog, and the state file. Beaten by the loop alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

from loguru import logger

from tfwatch.observe import state
from tfwatch.observe.state import Running
from tfwatch.spool.durable import write_file
from tfwatch.spool.folders import Folders

_BUSY_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 30.0


def notifier(environ: Mapping[str, str]) -> Callable[[str], None]:
    """How to tell systemd something; does nothing when it isn't there or systemd-python isn't installed."""
    if not environ.get("NOTIFY_SOCKET"):
        return lambda message: None
    try:
        from systemd import daemon
    except ImportError:
        logger.warning("NOTIFY_SOCKET is set, but systemd-python is not installed: pip install 'tfwatch[systemd]'")
        return lambda message: None
    notify: Callable[[str], None] = daemon.notify
    return notify


class Health:
    """Says that the daemon works, after a pass in which it did."""

    def __init__(
        self,
        folders: Folders,
        *,
        exec_id: str,
        version: str,
        notify: Callable[[str], None],
        watchdog_seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = folders
        self._exec_id = exec_id
        self._version = version
        self._notify = notify
        self._watchdog_seconds = watchdog_seconds
        self._clock = clock
        self._looked_at = float("-inf")
        self._beaten_at = clock()
        self._stale = True
        self._shown = ""
        self._line = ""

    def ready(self) -> None:
        """Folders, lock and ledger are ready and the first scan is done (or a reload has ended)."""
        self._notify("READY=1")
        self.hurry()

    def reloading(self) -> None:
        """config.yaml is being read again."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """A stop has begun."""
        self._notify("STOPPING=1\nSTATUS=stopping: what is under way is put down")

    def stopped(self) -> None:
        """Nothing runs any more: the state file must not say otherwise."""
        try:
            os.unlink(self._folders.state)
        except FileNotFoundError:
            return
        except OSError as error:
            # Whoever asks looks at the lock first, and that is free.
            logger.debug("{}: can't be removed: {}", self._folders.state, error)

    def hurry(self) -> None:
        """Something was switched: show it with the next beat, however short ago the last one was."""
        self._looked_at = float("-inf")

    def next_beat(self, daemon: Running) -> float:
        """Seconds until the next beat is due."""
        pause = _BUSY_SECONDS if self._stale or daemon.workshop.board.snapshot() else _IDLE_SECONDS
        if self._watchdog_seconds is not None:
            pause = min(pause, self._watchdog_seconds / 3)
        return max(0.0, self._looked_at + pause - self._clock())

    @property
    def beat_age(self) -> float:
        """Seconds since the last beat. Any thread may ask."""
        return self._clock() - self._beaten_at

    def beat(self, daemon: Running) -> None:
        """After a finished pass: show the state if a second has passed since it was last shown."""
        now = self._beaten_at = self._clock()
        self._stale = now - self._looked_at < _BUSY_SECONDS
        if self._stale:
            return
        self._looked_at = now
        self._notify("WATCHDOG=1")
        snapshot = state.take(daemon, exec_id=self._exec_id, version=self._version)
        if snapshot.line != self._line:
            self._line = snapshot.line
            self._notify(f"STATUS={snapshot.line}")
        shown = json.dumps(snapshot.document, sort_keys=True)
        try:
            if shown == self._shown:
                # The file's time is that of the last finished pass, whether there was news or not.
                os.utime(self._folders.state)
            else:
                self._shown = shown
                write_file(self._folders.state, state.to_json(snapshot), mode=0o640, durable=False)
        except OSError as error:
            logger.debug("{}: can't be written: {}", self._folders.state, error)
