"""A bell that rings when a folder may have changed. It carries no data: the scan is the truth."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from watchdog.events import DirModifiedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD, Mask

from tfwatch.spool.places import CANARY

CANARY_PLACE: Final = "outbox"
"""The place whose events the canary proves."""


class Bell:
    """Wakes the daemon's loop. Places that may have changed pile up until the loop takes them."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rung: set[str] = set()

    def ring(self, *places: str) -> None:
        """Say that these places may have changed. Never blocks for long, never raises."""
        with self._condition:
            self._rung.update(places)
            self._condition.notify()

    def wait(self, timeout: float) -> set[str]:
        """Wait until rung or `timeout` seconds have passed; takes all places rung so far."""
        with self._condition:
            if not self._rung:
                self._condition.wait(timeout)
            rung, self._rung = self._rung, set()
            return rung


class _Emitter(InotifyEmitter):
    """Asks the kernel for arrivals only.

    Departures would be held back for half a second to be paired with arrivals, and every claim is one: all later
    events would queue behind it.
    """

    def get_event_mask_from_filter(self) -> Mask:
        return Mask(
            InotifyConstants.IN_CLOSE_WRITE
            | InotifyConstants.IN_MOVED_TO
            | InotifyConstants.IN_CREATE
            | InotifyConstants.IN_DELETE_SELF
        )


class _Inotify(InotifyFD):
    """Tells when the kernel's queue was full: the events after that were thrown away."""

    def __init__(self, overflowed: Callable[[], None]) -> None:
        super().__init__()
        self._overflowed = overflowed

    def handle_event(self, event: InotifyEvent) -> None:
        super().handle_event(event)
        if event.is_queue_overflow:
            self._overflowed()


class _Observer(BaseObserver):
    def __init__(self, overflowed: Callable[[], None]) -> None:
        self._inotify_fd = _Inotify(overflowed)
        self._inotify_fd.start()
        super().__init__(_Emitter, timeout=1, inotify_fd=self._inotify_fd)

    def on_thread_stop(self) -> None:
        super().on_thread_stop()
        self._inotify_fd.stop()
        self._inotify_fd.join()


class _Handler(FileSystemEventHandler):
    def __init__(self, arrived: Callable[[str], None]) -> None:
        self._arrived = arrived

    def on_any_event(self, event: FileSystemEvent) -> None:
        # watchdog adds one of these to every arrival; it names the folder, so our own moves would be news by it.
        if not isinstance(event, DirModifiedEvent):
            self._arrived(os.fsdecode(event.dest_path or event.src_path))


class Watcher:
    """Watches some folders with inotify and rings the bell; notices when a folder was replaced.

    `folders` maps a place's word (what the bell is rung with) to its path. `ours` is asked about every arrival:
    True for a file the daemon itself just moved there, which is no news. `canary`: the name of the file that proves
    that events arrive. `overflows` counts how often the kernel's queue was full.
    """

    def __init__(
        self, bell: Bell, folders: Mapping[str, str], *, ours: Callable[[str, str], bool], canary: str = CANARY
    ) -> None:
        self._bell = bell
        self._folders = dict(folders)
        self._ours = ours
        self._canary = canary
        self._observer: _Observer | None = None
        self._watches: dict[str, tuple[ObservedWatch, tuple[int, int]]] = {}
        self._deleted: set[str] = set()
        self._canary_heard = threading.Event()
        self._canary_at = 0.0
        self._arrival_at = float("-inf")
        self.overflows = 0
        self.latency_seconds: float | None = None

    def start(self) -> None:
        """Begin watching; raises OSError when inotify has no room (`fs.inotify.max_user_watches`)."""
        self._observer = _Observer(self._on_overflow)
        self._observer.start()
        for place in self._folders:
            self._watch(place)

    def stop(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=2)
            self._observer = None
            self._watches.clear()

    @property
    def running(self) -> bool:
        """Whether events are being listened for."""
        return self._observer is not None

    def refresh(self, *, anew: bool = False) -> tuple[str, ...]:
        """Watch again every folder that was replaced; returns their places. Raises OSError as `start` does.

        `anew`: and all others, because no events come: what was unmounted and mounted again may look the same.
        """
        replaced = []
        for place, path in self._folders.items():
            watched = self._watches.get(place)
            # A folder made right after the old one was deleted may well get its inode.
            is_same = watched is not None and watched[1] == _identity(path) and place not in self._deleted
            if is_same and not anew:
                continue
            self._deleted.discard(place)
            if watched is not None and self._observer is not None:
                self._observer.unschedule(watched[0])
                del self._watches[place]
            if self._watch(place) and not is_same:
                replaced.append(place)
        return tuple(replaced)

    @property
    def quiet_seconds(self) -> float:
        """How long no event has come from the canary's folder; a long queue may be in front of the canary."""
        return time.monotonic() - self._arrival_at

    def canary_sent(self) -> None:
        """The canary file is about to be written."""
        self._canary_heard.clear()
        self._canary_at = time.monotonic()

    def canary_heard(self, timeout: float) -> bool:
        """Whether its event came within `timeout` seconds; then `latency_seconds` is how long it took."""
        return self._canary_heard.wait(timeout)

    def _watch(self, place: str) -> bool:
        """False while there is no such folder."""
        path = self._folders[place]
        identity = _identity(path)
        if identity is None or self._observer is None:
            return False
        watch = self._observer.schedule(_Handler(lambda arrived: self._on_arrival(place, arrived)), path)
        self._watches[place] = (watch, identity)
        return True

    def _on_arrival(self, place: str, path: str) -> None:
        name = os.path.basename(path)
        if place == CANARY_PLACE:
            self._arrival_at = time.monotonic()
        if path == self._folders[place]:
            self._deleted.add(place)
            self._bell.ring(place)
        elif name == self._canary:
            if not self._canary_heard.is_set():
                self.latency_seconds = time.monotonic() - self._canary_at
                self._canary_heard.set()
        elif not self._ours(place, name):
            self._bell.ring(place)

    def _on_overflow(self) -> None:
        """What was lost may lie in any folder; the canary may be lost, too, but events do arrive."""
        self.overflows += 1
        self._canary_heard.set()
        self._bell.ring(*self._folders)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino
