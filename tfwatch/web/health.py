"""`GET /healthz`: whether packages can be delivered, as far as it is this daemon's own matter."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfwatch.observe.state import Running
from tfwatch.web.answers import JSON

SILENT_SECONDS: Final = 90.0
"""The loop finishes a pass at least every 30 s; after three times that it hangs."""


def routes(running: Running) -> list[Route]:
    """The one route."""

    async def healthz(request: Request) -> Response:
        reasons = reasons_against(running)
        body = {"status": "failing" if reasons else "ok", "reasons": reasons}
        return JSON(body, status_code=503 if reasons else 200)

    return [Route("/healthz", healthz)]


def reasons_against(running: Running) -> list[str]:
    """Why nothing can be delivered; empty when it can.

    Only what another machine, a restart or an administrator of this one would mend. A service outside that is down
    or switched off is no reason: whoever asks may restart or replace the daemon, and that would not help. The words
    are fixed: everybody may read them.
    """
    if running.beat_age > SILENT_SECONDS:
        # The disk may hang; looking at it could hang this thread, too.
        return [f"the daemon's loop has not finished a pass for {running.beat_age:.0f} s"]
    reasons = []
    if running.desk.folders.is_away:
        reasons.append("the spool is unmounted, moved away or another folder now")
    if running.desk.disk_full_since is not None:
        reasons.append("the disk is full; deliveries wait for room")
    if running.desk.index.no_room:
        reasons.append("the index has no room; deliveries wait for it")
    return reasons
