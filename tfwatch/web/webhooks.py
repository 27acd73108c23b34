"""`POST /webhooks/{integration}` and, for callers that can't sign, `POST /webhooks/{integration}/{token}`."""

from __future__ import annotations

import time
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tfwatch.web import answers
from tfwatch.web.callers import UNAVAILABLE, Callers

MOST_BYTES: Final = 64 * 1024
"""The longest body a call may have."""

_RETRY_SECONDS: Final = 30


def routes(callers: Callers) -> list[Route]:
    """Both routes. Whatever is wrong with a call, it is refused without a word why."""

    async def take(request: Request) -> Response:
        began = time.monotonic()
        body = await _body(request)
        if body is None:
            return answers.refusal(413)
        answer = await run_in_threadpool(
            callers.answer,
            request.path_params["integration"],
            request.path_params.get("token"),
            {name.lower(): value for name, value in reversed(request.headers.items())},
            body,
            request.query_params.get("client_reference", ""),
        )
        if isinstance(answer, int):
            headers = {"retry-after": str(_RETRY_SECONDS)} if answer == UNAVAILABLE else None
            return answers.refusal(answer, headers)
        if answer.outcome == "unreadable":
            return answers.refusal(400)
        if answer.plain_ok:
            return PlainTextResponse("ok")
        latency_ms = round((time.monotonic() - began) * 1000, 1)
        return answers.JSON({"status": answer.outcome, "trace_id": answer.trace_id, "latency_ms": latency_ms})

    return [
        Route("/webhooks/{integration}", take, methods=["POST"]),
        Route("/webhooks/{integration}/{token}", take, methods=["POST"]),
    ]


async def _body(request: Request) -> bytes | None:
    """The body; None as soon as it is longer than it may be."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > MOST_BYTES:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)
