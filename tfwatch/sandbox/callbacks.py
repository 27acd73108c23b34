"""Tells clients of verdicts: POSTs to their callback address, signed, repeated a few times until taken."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from standardwebhooks import Webhook

from tfwatch.sandbox.orders import Order, OrderBook
from tfwatch.sandbox.outbound import CallFailed, NotLoopback, call
from tfwatch.sandbox.settings import CallbackScheme, PortalSettings

_AT_ONCE = 16
_TIMEOUT_SECONDS = 10.0
_REPLY_KEPT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """One verdict to be told: where, what, under which message id (the same on every repeat)."""

    url: str
    body: bytes
    message_id: str
    secret: str | None
    v4: bool


class Courier:
    """Carries verdicts to whoever is to be told, when they are due. Lives on the event loop's thread."""

    def __init__(self, book: OrderBook, base_url: str) -> None:
        self._book = book
        self._base_url = base_url
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    def watch(self, order: Order) -> None:
        """Tell the client when this order's verdict falls."""
        if not (order.callback_url or self._book.settings.callback_url):
            return
        if order.due is not None:
            delay = max(0.0, order.due - time.monotonic())
            asyncio.get_running_loop().call_later(delay, self._at_due, order)
        elif order.word == order.final:
            self.tell(order)

    def tell(self, order: Order) -> None:
        """Tell the client of the order as it stands, in the background; nothing if it left no address."""
        callback = self._callback(order)
        order.told = True
        if callback is not None:
            task = asyncio.get_running_loop().create_task(self._deliver(order, callback))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _at_due(self, order: Order) -> None:
        # an order forgotten by a reset, or settled by hand and told of already, has nothing to tell
        if order.told or self._book.get(order.id) is not order:
            return
        if order.due is not None:  # the timer may be a hair early
            self._book.give_verdict(order.id, order.final, "")
        self.tell(order)

    def _callback(self, order: Order) -> Callback | None:
        settings = self._book.settings
        message_id = f"msg_{uuid.uuid4().hex}"
        if order.callback_url is not None:
            if self._book.is_refusal(order):
                return None  # the v4 API documents a callback for finished transcriptions only
            body = {
                "mode": order.mode,
                "order_id": int(order.id),
                "transcription_url": f"{self._base_url}/_sandbox/transcriptions?order_id={order.id}",
                "language": order.language,
            }
            return _callback(order.callback_url, body, message_id, secret=None, v4=True)
        if settings.callback_url is None:
            return None
        body = {
            "id": order.id,
            "status": order.word,
            "client_reference": order.client_reference,
            "trace_id": order.trace_id,
            "message": order.message,
        }
        return _callback(settings.callback_url, body, message_id, secret=settings.callback_secret, v4=False)

    async def _deliver(self, order: Order, callback: Callback) -> None:
        settings = self._book.settings
        attempts = settings.v4_callback_attempts if callback.v4 else settings.callback_attempts
        for attempt in range(1, attempts + 1):
            async with self._slots:
                order.callbacks += 1
                order.callback_taken = await _send(callback, self._book.settings)
            if order.callback_taken:
                return
            if attempt < attempts:
                await asyncio.sleep(settings.callback_retry_seconds)


def _callback(url: str, body: dict[str, object], message_id: str, *, secret: str | None, v4: bool) -> Callback:
    return Callback(url=url, body=json.dumps(body).encode(), message_id=message_id, secret=secret, v4=v4)


async def _send(callback: Callback, settings: PortalSettings) -> bool:
    reply = bytearray()

    def keep(data: bytes) -> None:
        reply.extend(data[: _REPLY_KEPT - len(reply)])

    headers = {"Content-Type": "application/json", **sign(callback, settings, datetime.now(UTC))}
    try:
        status = await call(
            "POST", callback.url, headers=headers, body=callback.body, timeout=_TIMEOUT_SECONDS, sink=keep
        )
    except (CallFailed, NotLoopback):
        return False
    return bytes(reply) == b"ok" if callback.v4 else 200 <= status < 300


def sign(callback: Callback, settings: PortalSettings, now: datetime) -> dict[str, str]:
    """The signature headers of the chosen scheme, made anew for each try; none without a secret."""
    if callback.secret is None:
        return {}
    timestamp = str(int(now.timestamp()))
    if settings.callback_scheme is CallbackScheme.LEGACY:
        return {
            "X-Integration-Id": settings.integration_id,
            "X-Signature": hmac.new(callback.secret.encode(), callback.body, hashlib.sha256).hexdigest(),
            "X-Signature-Timestamp": timestamp,
        }
    return {
        "webhook-id": callback.message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": Webhook(callback.secret).sign(callback.message_id, now, callback.body.decode()),
    }
