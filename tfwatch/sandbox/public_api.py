"""The transcription portal, profile `gotranscript-v4`: it fetches the package itself and calls back.

Shapes follow GoTranscript's public API v4 as far as it is documented; how it signals an unusable URL is not, and is
our guess: 400 with `error`.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
import time
from urllib.parse import parse_qsl, unquote, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfwatch.sandbox.callbacks import Courier
from tfwatch.sandbox.faults import Faults, Target
from tfwatch.sandbox.orders import BooksFull, Order, OrderBook
from tfwatch.sandbox.outbound import CallFailed, NotLoopback, call
from tfwatch.sandbox.upload import BadUpload, read_upload
from tfwatch.sandbox.wire import JSON, TooLarge, arrival_of, read_body

_MAX_BODY = 64 * 1024


class V4Refused(Exception):
    """The API's answer is 400 with this `error`."""


class PublicApi:
    """POST /api/v4/transcriptions. No status endpoint and no idempotency, as in the real one."""

    def __init__(self, book: OrderBook, courier: Courier) -> None:
        self._book = book
        self._courier = courier
        self._numbers = itertools.count(int(time.time()) * 1000)  # grows, also across restarts
        self.wallet = book.settings.wallet

    def refill(self) -> None:
        """Set the wallet to what the settings say."""
        self.wallet = self._book.settings.wallet

    def routes(self, faults: Faults) -> list[Route]:
        """The endpoints, made to fail as told."""
        submit = faults.guard(Target.SUBMIT, self._submit, _fault)
        return [
            Route("/api/v4/transcriptions", submit, methods=["POST"]),
            Route("/_sandbox/transcriptions", self._transcription, methods=["GET"]),
        ]

    async def _submit(self, request: Request) -> Response:
        mode = ""
        try:
            fields = await _fields(request)
            mode = fields.get("mode", "")
            return await self._order(request, fields)
        except V4Refused as refused:
            return JSON({"mode": mode, "status": "error", "error": str(refused)}, status_code=400)

    async def _order(self, request: Request, fields: dict[str, str]) -> Response:
        settings = self._book.settings
        if not hmac.compare_digest(fields.get("api_token", "").encode(), settings.api_key.encode()):
            raise V4Refused("Invalid api_token")
        mode = fields.get("mode")
        if mode not in ("test", "live"):
            raise V4Refused("mode must be test or live")
        missing = [name for name in ("url", "language", "callback_url") if not fields.get(name)]
        if missing:
            raise V4Refused(f"missing: {', '.join(missing)}")
        if mode == "live" and self.wallet < settings.price:
            raise V4Refused("Insufficient balance in your wallet")
        sha256, size = await self._fetch(fields["url"])
        order = self._open(request, fields, sha256, size)
        if mode == "live":
            self.wallet -= settings.price
        self._courier.watch(order)
        return JSON(
            {
                "mode": mode,
                "status": order.word,
                "order_id": int(order.id),
                "order_total": settings.price,
                "seconds": max(1, size // 16_000),
                "in_wallet": self.wallet,
            }
        )

    def _open(self, request: Request, fields: dict[str, str], sha256: str, size: int) -> Order:
        arrival = arrival_of(request.scope)
        filename = os.path.basename(unquote(urlsplit(fields["url"]).path))
        order = Order(
            id=str(next(self._numbers)),
            client_reference=sha256,
            sha256=sha256,
            bytes=size,
            job_id=filename.removesuffix(".zip"),
            version="",
            filename=filename,
            trace_id="",
            idempotency_key="",
            traceparent=request.headers.get("traceparent", ""),
            created_at=time.time(),
            first_byte_at=arrival.at,
            first_byte_monotonic=arrival.monotonic,
            callback_url=fields["callback_url"],
            mode=fields["mode"],
            language=fields["language"],
        )
        try:
            return self._book.open(order)
        except BooksFull as error:
            raise V4Refused(str(error)) from error

    async def _fetch(self, url: str) -> tuple[str, int]:
        """SHA-256 and size of what the URL holds, read in constant memory."""
        settings = self._book.settings
        digest, size = hashlib.sha256(), 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size > settings.fetch_max_bytes:
                raise V4Refused("The file behind the url is too large")
            digest.update(data)

        try:
            status = await call("GET", url, timeout=settings.fetch_timeout, sink=take)
        except (CallFailed, NotLoopback, ValueError) as error:
            raise V4Refused(f"The url could not be fetched: {error}") from error
        if status != 200:
            raise V4Refused(f"The url could not be fetched: HTTP {status}")
        return digest.hexdigest(), size

    async def _transcription(self, request: Request) -> Response:
        order = self._book.get(request.query_params.get("order_id", ""))
        if order is None or order.word != self._book.settings.completed_word:
            return JSON({"error": "not found"}, status_code=404)
        return Response(f"Transcript of order {order.id}.\n", media_type="text/plain")


async def _fields(request: Request) -> dict[str, str]:
    """The form's or JSON object's values as text."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()
    try:
        if media_type == "multipart/form-data":
            return (await read_upload(request)).fields
        body = await read_body(request, _MAX_BODY)
        if media_type != "application/json":
            return dict(parse_qsl(body.decode(), keep_blank_values=True))
        given = json.loads(body)
    except (BadUpload, TooLarge, ValueError) as error:
        raise V4Refused(f"the body could not be read: {error}") from error
    if not isinstance(given, dict):
        raise V4Refused("the body must be a JSON object")
    return {str(name): str(value) for name, value in given.items()}


def _fault(status: int, message: str, headers: dict[str, str]) -> Response:
    return JSON({"mode": "", "status": "error", "error": message}, status_code=status, headers=headers)
