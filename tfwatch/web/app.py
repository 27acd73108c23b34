"""The application: all routes, behind the guard."""

from __future__ import annotations

from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from tfwatch.web import answers, figures, health, page, webhooks
from tfwatch.web.guard import Guard
from tfwatch.web.rate import Rate
from tfwatch.web.site import Serving, Site

MOST_BODY_BYTES: Final = 64 * 1024
"""What a request may bring along; a route that needs more says so itself (`max_body_size`)."""


def create_app(site: Site, serving: Serving, rate: Rate) -> ASGIApp:
    """Everything that is served under this configuration."""
    routes = [
        *health.routes(site.running),
        *figures.routes(site.figures),
        *page.routes(site.sight),
        *webhooks.routes(site.callers),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _told, Exception: _failed},
        max_body_size=MOST_BODY_BYTES,
    )
    app.router.redirect_slashes = False  # a redirect would quote the caller's own `Host`
    return Guard(app, serving, rate)


def _told(request: Request, error: Exception) -> Response:
    """What no route takes. `OPTIONS` asks what one does take, and that is no failure."""
    assert isinstance(error, HTTPException)
    if error.status_code != 405:
        return answers.refusal(error.status_code, dict(error.headers or {}))
    methods = sorted({*(error.headers or {}).get("Allow", "").split(", "), "OPTIONS"} - {""})
    headers = {"allow": ", ".join(methods)}
    return Response(status_code=204, headers=headers) if request.method == "OPTIONS" else answers.refusal(405, headers)


def _failed(request: Request, error: Exception) -> Response:
    return answers.refusal(500)
