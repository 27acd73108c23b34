"""The thread that looks, says in the journal what people must know, and has the channels tell it."""

from __future__ import annotations

import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from loguru import logger

from tfwatch.errors import ServiceError
from tfwatch.language import tr
from tfwatch.model import AlertMessage, rfc3339
from tfwatch.observe.alert_memory import Memory, read_memory, to_json
from tfwatch.observe.alerts import Episode, Episodes, Turn
from tfwatch.observe.channel import Channel, Timing
from tfwatch.observe.conditions import Look
from tfwatch.observe.limits import Limits
from tfwatch.observe.notices import Backlog, compose, notice_of
from tfwatch.ports import AlertPort
from tfwatch.spool.durable import write_file
from tfwatch.spool.folders import Folders
from tfwatch.spool.names import printable

_LATE_SECONDS: Final = 120.0
"""After a start, what is only found by trying (a backup, a canary) has been found by now."""

_LAST_LOOK_SECONDS: Final = 2.0
_LAST_WORD_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Whom to tell (secret), from which figures on, and whether names of packages and words of services may leave."""

    urls: tuple[str, ...] = field(default=(), repr=False)
    include_names: bool = True
    limits: Limits = field(default_factory=Limits)


Connect = Callable[[tuple[str, ...]], tuple[Sequence[AlertPort], Sequence[str]]]
"""Addresses → ports, and a sentence on each that can't be used. Makes no request; raises `ServiceError`."""


class Alerts:
    """A `Companion`. Begins before the daemon does, since that may have to wait for room on the disk.

    `settings`: those in force; asked at each turn. Nothing here raises into the loop, and nothing waits for it.
    """

    def __init__(
        self, folders: Folders, settings: Callable[[], Settings], connect: Connect, *, host: str,
        timing: Timing | None = None, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._folders = folders
        self._timing = timing or Timing()
        self._settings = settings
        self._connect = connect
        self._host = host
        self._clock = clock
        self._look: Look | None = None
        self._sees_all = False
        self._sees_all_since = float("inf")
        self._episodes = Episodes()
        self._channels: tuple[Channel, ...] = ()
        self._owed: tuple[Backlog, ...] = ()
        self._urls: tuple[str, ...] | None = None
        self._unusable: tuple[str, ...] = ()
        self._blind = ""
        self._saved = ""
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, settings: Callable[[], Settings]) -> None:
        """Go by these settings from now on."""
        self._settings = settings

    def watch(self, look: Look, *, sees_all: bool) -> None:
        """Look by this from now on. `sees_all`: what it doesn't find is over, and this process holds the spool."""
        self._look = look
        if sees_all and not self._sees_all:
            self._sees_all_since = time.monotonic()
        self._sees_all = sees_all
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
            self._thread.start()

    def configure(self) -> None:
        """Nothing to do: each turn asks for the settings in force."""

    def start(self) -> None:
        """Nothing to do: it has begun with the first `watch`."""

    def stop(self, deadline: float) -> None:
        """Take a last look and end; what could not be told is told by the next run. Twice is once."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        now = time.monotonic()
        if self._thread is not None:
            self._thread.join(max(0.0, min(deadline, now + _LAST_LOOK_SECONDS) - now))
            if self._thread.is_alive():
                return
        for channel in self._channels:
            channel.end()
        last_word = min(deadline, time.monotonic() + _LAST_WORD_SECONDS)
        for channel in self._channels:
            channel.join(last_word)
        self._remember()

    def close(self) -> None:
        """The same, at once."""
        self.stop(time.monotonic() + _LAST_LOOK_SECONDS)

    # --- what status shows -------------------------------------------------------------------------------------------

    @property
    def problems(self) -> list[str]:
        """Why alerts don't reach people, and what to do."""
        troubles = [channel.trouble for channel in self._channels]
        return [*filter(None, (self._blind, *self._unusable, *troubles))]

    def going_on(self) -> list[dict[str, Any]]:
        """Each alert that is not over: its key, since when, its words."""
        return [
            {"key": key, "since": rfc3339(datetime.fromtimestamp(episode.began, UTC)), "text": episode.condition.text}
            for key, episode in self._episodes.going_on.items()
        ]

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            memory = read_memory(self._folders.alerts)
            self._episodes, self._owed = memory.episodes, memory.owed
            while True:
                is_last = self._stopped.is_set()
                self._turn()
                if is_last:
                    return
                self._stopped.wait(self._timing.look)
        except Exception as error:  # noqa: BLE001  a bug here must not end deliveries; it is told, and status shows it
            self._blind = tr("alerts ended by a bug ({error}); restart tfwatch, and report it", error=repr(error))
            logger.critical("alerts ended: {}", "".join(traceback.format_exception(error)))

    def _turn(self) -> None:
        settings, look = self._settings(), self._look
        if settings.urls != self._urls:
            self._reach(settings)
        assert look is not None
        try:
            found = tuple(look(frozenset(self._episodes.going_on)))
        except (OSError, sqlite3.Error) as error:
            # Whoever works with that file says so; what can't be looked at is neither there nor over.
            self._blind = tr("alerts can't be worked out now: {error}", error=printable(str(error)))
            return
        self._blind = ""
        now = self._clock()
        self._episodes, turns = self._episodes.step(found, now, may_end=self._may_end)
        for turn in turns:
            _say(turn)
        notices = [notice_of(turn, now, names=settings.include_names) for turn in turns]
        for channel in self._channels:
            channel.add(notices)
        self._remember()

    def _may_end(self, episode: Episode) -> bool:
        if not self._sees_all:
            return False
        is_late = episode.inherited and episode.condition.is_found_late
        return not is_late or time.monotonic() - self._sees_all_since > _LATE_SECONDS

    def _reach(self, settings: Settings) -> None:
        """Other addresses are set: each takes over what the one in its place was owed; a further one hears all."""
        owed = tuple(channel.owed for channel in self._channels) or self._owed
        for channel in self._channels:
            channel.end()
        self._urls, self._unusable = settings.urls, ()
        ports: Sequence[AlertPort] = ()
        try:
            if settings.urls:
                ports, unusable = self._connect(settings.urls)
                self._unusable = tuple(unusable)
        except ServiceError as error:
            self._unusable = (f"{error}; {error.hint}",)
        for problem in self._unusable:
            logger.warning("alerts can't be sent: {}", problem)
        everything = Backlog()
        for episode in self._episodes.going_on.values():
            turn = Turn(condition=episode.condition, began=episode.began, is_over=False)
            everything = everything.add(notice_of(turn, episode.began, names=settings.include_names))
        self._channels = tuple(
            Channel(port, self._compose, owed=owed[n] if n < len(owed) else everything, timing=self._timing)
            for n, port in enumerate(ports)
        )

    def _compose(self, backlog: Backlog) -> AlertMessage:
        return compose(backlog, host=self._host, root=printable(self._folders.root))

    def _remember(self) -> None:
        """Losing it costs a second alert, nothing else; on a full disk it is kept in mind."""
        if not self._sees_all:
            return
        owed = tuple(channel.owed for channel in self._channels)
        text = to_json(Memory(episodes=self._episodes, owed=owed))
        if text == self._saved:
            return
        try:
            write_file(self._folders.alerts, text, mode=0o640, durable=False)
        except OSError as error:
            logger.debug("{}: can't be written: {}", self._folders.alerts, error)
        else:
            self._saved = text


def _say(turn: Turn) -> None:
    """The journal comes first, with names: it stays in the house."""
    condition = turn.condition
    tell = logger.bind(EVENT="ALL_CLEAR" if turn.is_over else "ALERT", ALERT=condition.key, **condition.fields)
    tell.warning("{}", condition.over if turn.is_over else condition.text)
