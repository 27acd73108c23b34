"""What every answer has in common: its headers, and the words of those that refuse. Nothing of the machine is told."""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""On every answer, unless it brings its own header of that name, as the page does with its policy."""

CHALLENGE: Final = 'Basic realm="tfwatch", charset="UTF-8", Bearer realm="tfwatch"'


class JSON(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content; lone surrogates stay escaped."""
        return json.dumps(content, separators=(",", ":")).encode()


def refusal(status: int, headers: dict[str, str] | None = None) -> Response:
    """An RFC 9457 problem: the status and its usual words, never more."""
    body = {"type": "about:blank", "title": phrase(status), "status": status}
    return JSON(body, status_code=status, media_type="application/problem+json", headers=headers)


def raw_refusal(status: int, headers: dict[str, str] | None = None) -> bytes:
    """The same as bytes, for what is no request that could be answered; the connection is closed after it."""
    answer = refusal(status, {"connection": "close", **(headers or {})})
    lines = [f"HTTP/1.1 {status} {phrase(status)}".encode()]
    lines += [b": ".join(header) for header in (*answer.raw_headers, *HEADERS, date())]
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(answer.body)


def date() -> tuple[bytes, bytes]:
    """The header that says when an answer was made."""
    return b"date", formatdate(usegmt=True).encode()


def phrase(status: int) -> str:
    """`Not Found`; for a status nobody knows `Error`."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
