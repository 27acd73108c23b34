"""Who may ask what: stands before every route, and answers in its place when it refuses."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from typing import Final

from loguru import logger
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tfwatch.web import answers
from tfwatch.web.rate import Rate, caller
from tfwatch.web.site import Serving

MOST_HEADERS: Final = 64
MOST_HEAD_BYTES: Final = 16 * 1024
MOST_TARGET_BYTES: Final = 4 * 1024

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "OPTIONS"))
_NEVER_HERE: Final = frozenset(("PUT", "DELETE", "PATCH", "TRACE", "CONNECT"))
_OPEN_PATH: Final = "/healthz"
_CALLERS_PREFIX: Final = "/webhooks/"


class Guard:
    """One application with its guard. Refuses by rate, size, method, name and token, in this order."""

    def __init__(self, app: ASGIApp, serving: Serving, rate: Rate) -> None:
        self._app = app
        self._serving = serving
        self._rate = rate
        self._failing: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                added = [header for header in answers.HEADERS if header[0] not in own]
                message = {**message, "headers": [*message["headers"], *added, answers.date()]}
            await send(message)

        answer = self._refusal(scope)
        if answer is not None:
            await answer(scope, receive, sending)
            return
        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            return
        except Exception as error:
            self._tell(scope, error)
            raise  # the server closes the connection, if an answer was begun; what it says goes nowhere
        self._failing.discard(_part(scope))

    def _refusal(self, scope: Scope) -> Response | None:
        """Why this request is not answered; None when it is."""
        headers = Headers(scope=scope)
        if wait := self._rate.take(caller((scope["client"] or ("",))[0])):
            return answers.refusal(429, {"retry-after": str(wait)})
        if len(scope["raw_path"]) + len(scope["query_string"]) > MOST_TARGET_BYTES:
            return answers.refusal(414)
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        if size > MOST_HEAD_BYTES or len(scope["headers"]) > MOST_HEADERS:
            return answers.refusal(431)
        if "content-length" in headers and "transfer-encoding" in headers:
            # Two lengths: a proxy before us may have believed the other one.
            return answers.refusal(400, {"connection": "close"})
        if scope["method"] not in _METHODS:
            is_known = scope["method"] in _NEVER_HERE
            allowed = {"allow": "GET, HEAD, OPTIONS"}
            return answers.refusal(405, allowed) if is_known else answers.refusal(501)
        if not self._is_called_right(headers.getlist("host")):
            return answers.refusal(421)
        if not self._may_come_in(scope["path"], headers.get("authorization", "")):
            return answers.refusal(401, {"www-authenticate": answers.CHALLENGE})
        return None

    def _is_called_right(self, hosts: list[str]) -> bool:
        """Whether it is called by a name of its own, so that no stranger's page in a browser reaches it by another.

        An address can't be given to somebody else's name, and programs without a `Host` are no browsers.
        """
        if self._serving.is_exposed and not self._serving.hosts:
            return True
        return all(self._is_own(host) for host in hosts)

    def _is_own(self, host: str) -> bool:
        name = host.strip().lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        name = name.removesuffix(".")
        if name == "localhost" or name in self._serving.hosts or name == self._serving.host.lower():
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _may_come_in(self, path: str, authorization: str) -> bool:
        """Whether the token is there. Health is told to everybody, and whoever calls a webhook proves it there."""
        token = self._serving.token
        if not token or path == _OPEN_PATH or path.startswith(_CALLERS_PREFIX):
            return True
        return hmac.compare_digest(_given(authorization), token.encode())

    def _tell(self, scope: Scope, error: Exception) -> None:
        """A part that fails is told of once, until it works again: it may be asked for every few seconds."""
        part = _part(scope)
        if part not in self._failing:
            self._failing.add(part)
            logger.opt(exception=error).error("the web server could not answer; deliveries go on: {}", part)


def _part(scope: Scope) -> str:
    """Which route it was, in our own words: what was asked for is a stranger's."""
    endpoint = scope.get("endpoint")
    return f"{getattr(endpoint, '__module__', '')}.{getattr(endpoint, '__qualname__', '')}"


def _given(authorization: str) -> bytes:
    """The token in an `Authorization`: behind `Bearer`, or as the password of `Basic`, as browsers ask for it."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    if scheme.lower() != "basic":
        return b""
    try:
        pair = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return pair.partition(b":")[2]
