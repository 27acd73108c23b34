"""One address of `alerts.urls`, with a thread of its own: whoever hangs keeps nobody else waiting."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from loguru import logger

from tfwatch.errors import TransientError
from tfwatch.language import tr
from tfwatch.model import AlertMessage
from tfwatch.observe.notices import Backlog, Notice, Pace
from tfwatch.ports import AlertPort
from tfwatch.retry import Backoff

_HANGS_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. `look`: between two looks at what there is to tell; `gather`: what begins within this is told together;
    `pace`: between two messages; `tries`: between tries to send one."""

    look: float = 1.0
    gather: float = 1.0
    pace: Pace = field(default_factory=Pace)
    tries: Backoff = field(default_factory=lambda: Backoff(initial=10.0, maximum=900.0))


class Channel:
    """Tells one address what it is owed, and tries again until it has. Thread-safe.

    What can't be told is a matter of status and of one line in the journal, never an alert of its own.
    """

    def __init__(
        self, port: AlertPort, compose: Callable[[Backlog], AlertMessage], *, owed: Backlog, timing: Timing
    ) -> None:
        self._port = port
        self._compose = compose
        self._waiting = owed
        self._sending = Backlog()
        self._sending_since: float | None = None
        self._trouble = ""
        self._failures = 0
        self._not_before = 0.0
        self._timing = timing
        self._pace = timing.pace
        self._is_stopped = False
        self._changed = threading.Condition()
        self._rng = random.Random()  # noqa: S311  spreads retries, protects nothing
        self._thread = threading.Thread(target=self._run, name="alert", daemon=True)
        self._thread.start()

    def add(self, notices: Iterable[Notice]) -> None:
        """Owe it these, too."""
        with self._changed:
            for notice in notices:
                self._waiting = self._waiting.add(notice)
            self._changed.notify()

    @property
    def owed(self) -> Backlog:
        """What it has not been told yet, as far as is known."""
        with self._changed:
            return self._sending.all_of(self._waiting)

    @property
    def trouble(self) -> str:
        """Why it can't be told, and what to do; empty when it can."""
        with self._changed:
            since, trouble = self._sending_since, self._trouble
            owed = len(self._sending.notices) + len(self._waiting.notices)
        if since is not None and (seconds := time.monotonic() - since) > _HANGS_SECONDS:
            trouble = tr("no end of the answer for {seconds} s", seconds=round(seconds))
        if not trouble:
            return ""
        return tr(
            "alerts don't reach {address}: {why}; {count} wait and are tried again, the journal has them: "
            "apprise -vv -b test URL shows what is wrong", address=self._port.shown_as, why=trouble, count=owed,
        )  # fmt: skip

    def end(self) -> None:
        """Begin nothing more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()

    def join(self, deadline: float) -> None:
        """Let a call under way end, until `deadline` (monotonic); it is left to itself after that."""
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while self._take():
            try:
                self._port.send(self._compose(self._sending))
            except TransientError as error:
                self._failed(error.message)
            else:
                self._told()

    def _take(self) -> bool:
        """Wait until something may be told, and take it; false at the end."""
        with self._changed:
            gathered: float | None = None
            while not self._is_stopped:
                now = time.monotonic()
                if not self._waiting.notices:
                    self._changed.wait()
                    continue
                gathered = gathered or now + self._timing.gather
                if (due := max(gathered, self._not_before)) <= now:
                    self._sending, self._waiting = self._waiting, Backlog()
                    self._sending_since = now
                    return True
                self._changed.wait(due - now)
            return False

    def _failed(self, why: str) -> None:
        with self._changed:
            self._failures += 1
            self._waiting, self._sending = self._sending.all_of(self._waiting), Backlog()
            self._sending_since = None
            self._not_before = time.monotonic() + self._timing.tries.delay(self._failures, self._rng)
            is_news, self._trouble = why != self._trouble, why
        if is_news:
            logger.warning("alerts don't reach {}: {}; they are tried again", self._port.shown_as, why)

    def _told(self) -> None:
        with self._changed:
            had_trouble, self._trouble, self._failures = bool(self._trouble), "", 0
            self._sending, self._sending_since = Backlog(), None
            now = time.monotonic()
            self._pace = self._pace.after(now)
            self._not_before = self._pace.next_at(now)
        if had_trouble:
            logger.info("alerts reach {} again", self._port.shown_as)
