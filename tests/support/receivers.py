"""Where alerts go in tests: a real SMTP server and a real HTTP server on loopback."""

from __future__ import annotations

import email
import email.policy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.http import ScriptedServer, Step, reply

FINE = Step(send=reply(200, {}))


class Mailbox:
    """Takes every mail; `mails`: as they came."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        raw = envelope.original_content or b""
        self.recipients += envelope.rcpt_tos
        self.mails.append(email.message_from_bytes(raw, policy=email.policy.default))
        return "250 kept"

    def texts(self) -> list[str]:
        """Subject and plain or HTML text of each mail, on one line each."""
        return [" ".join(f"{mail['subject']} {_text(mail)}".split()) for mail in self.mails]


def _text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain", "html"))
    return body.get_content() if body is not None else ""


class _AnyPort(Controller):
    """Listens wherever there is room, and knows where."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def mail_server() -> Iterator[tuple[Mailbox, int]]:
    """A mail server's mailbox and its port."""
    mailbox = Mailbox()
    controller = _AnyPort(mailbox, hostname="127.0.0.1", port=0)
    controller.start()
    try:
        yield mailbox, controller.port
    finally:
        controller.stop()


def told(server: ScriptedServer) -> list[dict[str, Any]]:
    """What a receiver of `json://` was sent: `title`, `message`, `type`."""
    return [json.loads(seen.body) for seen in list(server.seen) if seen.length and seen.length == len(seen.body)]


def words(server: ScriptedServer) -> str:
    """All of it as one text."""
    return "\n".join(f"{each['title']}\n{each['message']}" for each in told(server))


def json_url(server: ScriptedServer, secret: str = "s3cret") -> str:
    """The address of that receiver, with a user, a password and a token in its path."""
    return f"json://{secret}user:{secret}pass@127.0.0.1:{server.port}/{secret}path?rto=1&cto=1&+X-Token={secret}token"


def mail_url(port: int, secret: str = "s3cret") -> str:
    """The address of that mailbox, without TLS."""
    return f"mailto://127.0.0.1:{port}?from={secret}from@example.org&to=ops@example.org&mode=insecure&format=text&rto=1"
