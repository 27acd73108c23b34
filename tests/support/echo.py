"""A server that repeats whatever it is sent, in every place where a client may look for words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

_KEPT = 3000


class Echo:
    """The portal, S3, Google's login and its sheets at one address, told apart by their paths; none is of any help.

    `code`: what the portal answers; `order_id`: its orders' id, where empty what it was sent. `token`: what the login
    gives; None: it refuses. `seen`: each request whole, under the service it was meant for.
    """

    def __init__(self) -> None:
        self.code = 500
        self.order_id = ""
        self.token: str | None = None
        self.seen: list[tuple[str, bytes]] = []
        echo = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                echo.answer(self)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _any  # noqa: N815

            def log_message(self, *words: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def requests(self, service: str) -> bytes:
        """All that was sent to one service."""
        return b"\n".join(data for whom, data in list(self.seen) if whom == service)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        sent = f"{request.command} {request.path}\n{request.headers}".encode() + body
        authorization = request.headers.get("Authorization", "")
        # What is secret first, since messages are cut: the header, then a form.
        words = b" ".join((authorization.encode(), body[:1000], sent)).decode("utf-8", "replace")[:_KEPT]
        path = request.path
        if path.startswith("/token"):
            self.seen.append(("google", sent))
            if self.token is not None:
                self._say(request, 200, {"access_token": self.token, "expires_in": 3600, "token_type": "Bearer"})
            else:
                self._say(request, 400, {"error": "invalid_grant", "error_description": words})
        elif path.startswith("/v4/spreadsheets"):
            self.seen.append(("google", sent))
            self._say(request, 403, {"error": {"code": 403, "message": words, "status": "PERMISSION_DENIED"}})
        elif path.startswith(("/deliveries", "/api/v4")):
            self.seen.append(("gotranscript", sent))
            found = {"message": words, "error": quote_plus(words), "status": authorization}
            found["id"] = self.order_id or authorization
            self._say(request, self.code, found, Location=f"http://{authorization[-20:]}.example/")
        else:
            self.seen.append(("s3", sent))
            error = f"<Error><Code>AccessDenied</Code><Message>{escape(words)}</Message></Error>"
            self._send(request, 403, error.encode(), {"Content-Type": "application/xml"})

    def _say(self, request: BaseHTTPRequestHandler, code: int, document: object, **headers: str) -> None:
        self._send(request, code, json.dumps(document).encode(), {"Content-Type": "application/json", **headers})

    def _send(self, request: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict[str, str]) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@contextmanager
def echo() -> Iterator[Echo]:
    """One for the length of the block."""
    made = Echo()
    try:
        yield made
    finally:
        made.close()
