"""Take an authenticated call: one WEBHOOK row on disk, then what follows from it. Each message is taken once, ever."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from loguru import logger

from tfwatch.delivery.callback import Callback, read_callback
from tfwatch.delivery.desk import Desk, LogWriter
from tfwatch.delivery.told import ApplyTold
from tfwatch.language import tr
from tfwatch.ledger.calls import Subject
from tfwatch.ledger.index import IndexUnusable, PackageState
from tfwatch.ledger.log import LogPoisoned
from tfwatch.model import VERDICTS, Event, Fact, Integration, Stage, TraceId, Verdict, write_detail
from tfwatch.wording import call_in_words


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call whose caller is known. `message_id`: '' when the caller gives its messages none.

    `via`: how it proved who it is: `standard`, `legacy` or `token`. `client_reference`: what its address carries.
    """

    integration: str
    via: str
    message_id: str
    body: bytes
    client_reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a caller is told. `outcome`: one of `OUTCOMES`. `plain_ok`: it wants to read `ok` and nothing else."""

    outcome: str
    trace_id: TraceId
    plain_ok: bool = False


OUTCOMES: Final = ("settled", "kept", "pending", "late", "contradicted", "noted", "unreadable")
"""What comes of a message, explained by `wording.call_in_words`. A replay is no fact: it is answered `replayed`."""

_MOST_KEPT: Final = 50


class TakeWebhook:
    """The use case of whoever answers webhooks. Thread-safe."""

    def __init__(
        self,
        desk: Desk,
        log: LogWriter,
        told: ApplyTold,
        *,
        apply: Callable[[Subject], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`apply`: have a verdict applied that is on disk. `failed`: end the process, which can't trust its log."""
        self._desk = desk
        self._log = log
        self._told = told
        self._apply = apply
        self._failed = failed
        self._lock = threading.Lock()
        self.contradicted: Mapping[str, str] = {}
        """Order → what a person should ask the service, since the start."""

    def take(self, call: Call) -> Answer:
        """Put a call on disk, unless it is a replay; its package is moved right after, not before this returns.

        Raises `LogUnwritable` when there is no room for it (nothing was taken: it may be repeated), `LogPoisoned` and
        `IndexUnusable`, which end the process.
        """
        try:
            return self._take(call)
        except (LogPoisoned, IndexUnusable) as error:
            self._failed(error)
            raise

    def _take(self, call: Call) -> Answer:
        callback = read_callback(call.body, client_reference=call.client_reference)
        identity = _identity(call, callback)
        with self._lock:  # two of the same at once are one
            taken = self._desk.index.calls.taken(call.integration, identity)
            if taken is not None:
                outcome = "unreadable" if taken.outcome == "unreadable" else "replayed"
                return Answer(outcome=outcome, trace_id=taken.trace_id, plain_ok=_wants_ok(callback))
            fact, outcome = self._fact(call, callback, identity)
            self._log.append((fact,))
        self._say(call, fact, outcome, callback)
        if outcome in ("settled", "kept"):
            # Also when kept: its order may have become known while this was written.
            self._apply(Subject(fact.order_id, fact.sha256))
        return Answer(outcome=outcome, trace_id=TraceId(fact.trace_id), plain_ok=_wants_ok(callback))

    def _fact(self, call: Call, callback: Callback | None, identity: Mapping[str, str]) -> tuple[Fact, str]:
        order_id, state, outcome, job_id = "", None, "unreadable", None
        if callback is not None:
            speaks_of_orders = call.integration == Integration.GOTRANSCRIPT and callback.verdict is not None
            if speaks_of_orders:
                order_id, state = self._about(callback)
            outcome = self._outcome(callback, order_id, state) if speaks_of_orders else "noted"
            # A verdict that names the job it is about is no word about the next one.
            job_id = callback.job_id if callback.job_id and not speaks_of_orders else None
        reference = callback.client_reference if callback and callback.verdict else ""
        fact = Fact(
            event=Event.WEBHOOK,
            sha256=state.sha256 if state else reference,
            trace_id=(callback and callback.trace_id) or (state and state.trace_id) or secrets.token_hex(16),
            order_id=order_id,
            detail=write_detail(
                callback.message if callback else "",
                integration=call.integration, via=call.via, outcome=outcome, **identity,
                verdict=callback.verdict.value if callback and callback.verdict else None,
                word=callback.word or None if callback else None, job_id=job_id,
            ),
        )  # fmt: skip
        return fact, outcome

    def _about(self, callback: Callback) -> tuple[str, PackageState | None]:
        """The order a verdict is about, and the package that was last accepted under it."""
        index = self._desk.index
        for order_id in callback.order_ids:
            if (state := index.with_order(order_id)) is not None:
                return order_id, state
        if callback.order_ids:
            return callback.order_ids[0], None
        ordered = [state for state in index.packages_of(callback.client_reference) if state.order_id]
        state = next((s for s in ordered if s.stage is Stage.SUBMITTED), ordered[0] if ordered else None)
        return (state.order_id, state) if state is not None else ("", None)

    def _outcome(self, callback: Callback, order_id: str, state: PackageState | None) -> str:
        if not callback.names_an_order:
            return "noted"
        if callback.verdict is Verdict.PENDING:
            return "pending"
        sha256 = state.sha256 if state else callback.client_reference
        told = self._desk.index.calls.told(Subject(order_id, sha256))
        if told is not None:
            return "late" if told.verdict is callback.verdict else "contradicted"
        if state is None:
            if order_id and self._desk.index.knows_order(order_id):
                return "late"  # its package was sent anew since
            return "settled" if self._told.can_apply(Subject(order_id, sha256)) else "kept"
        if state.stage is Stage.SUBMITTED:
            return "settled"
        refused_before = state.event is Event.REFUSED and callback.verdict is Verdict.COMPLETED
        completed_before = state.stage is Stage.DELIVERED and callback.verdict is Verdict.REFUSED
        return "contradicted" if refused_before or completed_before else "late"

    def _say(self, call: Call, fact: Fact, outcome: str, callback: Callback | None) -> None:
        tell = logger.bind(
            EVENT=fact.event.value, TRACE_ID=fact.trace_id, ORDER_ID=fact.order_id, SHA256=fact.sha256
        )  # fmt: skip
        about = f"order {fact.order_id}" if fact.order_id else f"content {fact.sha256}" if fact.sha256 else "no order"
        word = callback.word if callback else ""
        tell.info("webhook of {}: {} ({}): {}", call.integration, about, word or "no word", call_in_words(outcome))
        if outcome == "contradicted":
            words = tr(
                "order {order}: the service now says {word}, but its package was settled otherwise before; nothing was "
                "moved: ask the service which of both holds",
                order=fact.order_id, word=word or "completed",
            )  # fmt: skip
            with self._lock:
                kept = list(self.contradicted.items())[1 - _MOST_KEPT :]
                self.contradicted = {**dict(kept), fact.order_id or fact.sha256: words}
        elif outcome == "pending" and word.casefold() not in VERDICTS:
            tell.warning(
                "order {}: the service says {!r}, a word tfwatch doesn't know; taken as pending", fact.order_id, word
            )


def _identity(call: Call, callback: Callback | None) -> Mapping[str, str]:
    """What tells a message from all others, as its row's detail has it."""
    if call.message_id:
        return {"id": call.message_id}
    identity = {"body": hashlib.sha256(call.body).hexdigest()}
    if callback is not None and callback.client_reference:
        identity["client_reference"] = callback.client_reference
    return identity


def _wants_ok(callback: Callback | None) -> bool:
    return callback is not None and callback.is_public_api
