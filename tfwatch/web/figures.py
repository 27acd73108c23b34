"""`GET /metrics` and `GET /metrics/webhooks`: all figures, as Prometheus reads them and as one JSON document."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfwatch.observe import exposition
from tfwatch.observe.metrics import Metrics, Source, snapshot_metrics
from tfwatch.observe.observability import document
from tfwatch.web.answers import JSON


def routes(source: Source) -> list[Route]:
    """Both routes. Each answer is of its own look, taken after the request came."""
    one_at_a_time = asyncio.Lock()

    async def look(show: Callable[[Metrics], Response]) -> Response:
        # However many ask, the index is read for one of them at a time: it is the deliveries' too.
        async with one_at_a_time:
            return await run_in_threadpool(lambda: show(snapshot_metrics(source)))

    async def metrics(request: Request) -> Response:
        return await look(_as_text)

    async def webhooks(request: Request) -> Response:
        return await look(_as_json)

    return [Route("/metrics", metrics), Route("/metrics/webhooks", webhooks)]


def _as_text(metrics: Metrics) -> Response:
    return Response(exposition.render(metrics), media_type=exposition.CONTENT_TYPE)


def _as_json(metrics: Metrics) -> Response:
    return JSON(document(metrics))
