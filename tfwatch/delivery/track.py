"""Follow accepted orders to their verdict by asking, less often the older an order is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from loguru import logger

from tfwatch.delivery.desk import Desk
from tfwatch.delivery.journal import fields
from tfwatch.delivery.progress import Board, call_timeout
from tfwatch.delivery.trouble import Trouble
from tfwatch.delivery.verdict import settle_verdict
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.delivery.wiring import Wiring
from tfwatch.errors import ServiceError, TransientError
from tfwatch.language import tr
from tfwatch.ledger.index import PackageState
from tfwatch.model import VERDICTS, Destination, Integration, OrderId, Package, Stage, StatusReport, Verdict
from tfwatch.ports import TranscriptionPort

_LONGEST: Final = 3600.0
_SPREAD: Final = 0.1
_OUTAGE_SECONDS: Final = 5.0
"""So long without any answer is an outage: what fell due meanwhile is asked about little by little."""

MOST_STRANGE_WORDS: Final = 100
"""A service that invents a word for each order is told of so often, and then no more until the next start."""


class TrackDelivery:
    """The use case of the tracking lanes. Thread-safe."""

    def __init__(
        self,
        desk: Desk,
        board: Board,
        *,
        delivered: Callable[[Package], None],
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._board = board
        self._delivered = delivered
        self._rng = rng or random.Random()  # noqa: S311  spreads polls, protects nothing
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}
        self._silent_since: float | None = None
        self._is_back = False
        self._strange_words: set[str] = set()
        self.episode: Trouble | None = None

    @property
    def trouble(self) -> str:
        """Why orders can't be asked about, in words; empty while all is well."""
        return self.episode.words if self.episode else ""

    def next_poll(self, state: PackageState, poll_seconds: float) -> float:
        """Seconds until an order is asked about again: as long as it has been waiting, from `poll_seconds` to 1 h."""
        age = self._age(state)
        wait = min(max(poll_seconds, age), max(_LONGEST, poll_seconds))
        return wait * (1 + self._rng.uniform(0, _SPREAD)) if age > poll_seconds else wait

    def accepted(self, package: Package) -> None:
        """An order was accepted now: its age counts from here, whatever becomes of the system's clock."""
        self._since[package.sha256, package.name] = self._clock()

    def _age(self, state: PackageState) -> float:
        """Seconds since an order was accepted. One from before this run: as the log says, within reason."""
        key, now = (state.sha256, state.name), self._clock()
        if key not in self._since:
            told = (self._desk.now() - (state.accepted_at or state.changed_at)) / timedelta(seconds=1)
            self._since[key] = now - min(max(told, 0.0), _LONGEST)
        return now - self._since[key]

    def ask(self, sha256: str, name: str, wiring: Wiring) -> float | None:
        """Ask about one order; returns seconds until the next time, None when there is nothing more to ask."""
        again = self._ask(sha256, name, wiring)
        if again is None:
            self._since.pop((sha256, name), None)
        return again

    def _ask(self, sha256: str, name: str, wiring: Wiring) -> float | None:
        state = self._desk.index.package(sha256, name)
        if state is None or state.stage is not Stage.SUBMITTED or not state.order_id or state.destination is None:
            return None
        port = wiring.transcription
        if port is None:
            return self.next_poll(state, wiring.policy.poll_seconds)
        with logger.contextualize(**_fields(state)):
            return self._ask_at(port, state, state.destination, wiring)

    def _ask_at(
        self, port: TranscriptionPort, state: PackageState, destination: Destination, wiring: Wiring
    ) -> float | None:
        asked, timeout = self._clock(), call_timeout(wiring.policy.timeout_seconds)
        try:
            with self._board.working(state.name, "asking about", 0, timeout=timeout):
                report = port.fetch_status(OrderId(state.order_id), destination)
        except (TransientError, ServiceError) as failure:
            self._note_trouble(state, failure, asked=asked)
            return self.next_poll(state, wiring.policy.poll_seconds)
        self._note_answer()
        if report.verdict is Verdict.PENDING:
            self._note_word(state, report.word)
            return self.next_poll(state, wiring.policy.poll_seconds)
        return self._settle(state, report)

    def _settle(self, state: PackageState, report: StatusReport) -> float | None:
        with self._desk.in_work.holding(state.name) as mine:
            if not mine:
                return 1.0
            now = self._desk.index.package(state.sha256, state.name)
            if now is None or now.stage is not Stage.SUBMITTED or now.order_id != state.order_id:
                return None
            where = Whereabouts(file=Stage.SUBMITTED, log=Stage.SUBMITTED, status=now.status)
            since = now.accepted_at or now.changed_at
            settled = settle_verdict(
                self._desk, package_of(now), where, report.verdict, order_id=now.order_id, word=report.word,
                message=report.message, code=report.code,
                duration_ms=max(0, round((self._desk.now() - since) / timedelta(milliseconds=1))),
            )  # fmt: skip
        if settled.log is Stage.DELIVERED:
            self._delivered(settled.named(package_of(now)))
        return None

    def is_back(self) -> bool:
        """Whether the service has answered again after an outage; true once for each."""
        is_back, self._is_back = self._is_back, False
        return is_back

    def _note_answer(self) -> None:
        since, self._silent_since, self.episode = self._silent_since, None, None
        if since is not None and self._clock() - since >= _OUTAGE_SECONDS:
            self._is_back = True

    def _note_word(self, state: PackageState, word: str) -> None:
        """A word the contract doesn't know is taken as pending; somebody should know of it, once."""
        is_strange = bool(word) and word.casefold() not in VERDICTS and word not in self._strange_words
        if is_strange and len(self._strange_words) < MOST_STRANGE_WORDS:
            self._strange_words.add(word)
            logger.bind(**_fields(state)).warning(
                "order {}: the service says {!r}, a word tfwatch doesn't know; taken as pending", state.order_id, word
            )

    def _note_trouble(self, state: PackageState, failure: TransientError | ServiceError, *, asked: float) -> None:
        """Once per episode: the same words for every order would drown all others."""
        if self._silent_since is None:
            self._silent_since = asked
        trouble = tr("orders can't be asked about: {why}", why=failure.in_words)
        if trouble != self.trouble:
            logger.bind(**_fields(state)).warning("{}", trouble)
        self.episode = Trouble.of(trouble, before=self.episode, failure=failure)


def _fields(state: PackageState) -> dict[str, str]:
    return fields(state, state.name, order_id=state.order_id) | {"INTEGRATION": Integration.GOTRANSCRIPT.value}
