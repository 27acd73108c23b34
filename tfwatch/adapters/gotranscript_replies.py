"""Reading what a transcription service answers: pure, no I/O.

Every reply becomes a receipt, a report, or one of the errors of `tfwatch.errors`. A reply is a stranger's text:
what is passed on is bounded, free of control characters, and free of our secrets should the service echo them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from tfwatch.adapters.http_date import moment
from tfwatch.adapters.secrecy import blot, holds
from tfwatch.errors import OutcomeUnknown, PermanentError, ServiceError, ServiceFailure, TransientError
from tfwatch.foreign import LONGEST_LINE, find_id, json_object, one_line, words_in
from tfwatch.language import tr
from tfwatch.model import Receipt, StatusReport, verdict_of

_THIS_PACKAGE_NEVER: Final = frozenset({400, 409, 410, 413, 415, 422})
_TRY_LATER: Final = frozenset({408, 425, 429})
_LONGEST_RETRY_AFTER: Final = 86_400.0
_QUERY_SPELLED: Final = re.compile(r"(https?%3A%2F%2F[^\s\"'<>&]*?)%3F[^\s\"'<>&]*", re.IGNORECASE)
_QUERY: Final = re.compile(r"(https?://[^\s?\"'<>]+)\?[^\s\"'<>]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP answer, as far as it could be read.

    `headers`: lower-case names. `body`: decoded octets, perhaps cut short. `at`: when it came. `secrets`: strings
    that must not leave in any message.
    """

    code: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    at: datetime
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.code < 300


def read_receipt(reply: Reply) -> Receipt:
    """The order a `POST /deliveries` opened. Raises `refusal(reply)`, or `OutcomeUnknown` for a 2xx without an id."""
    if not reply.success:
        raise refusal(reply)
    answer = document(reply)
    order_id = find_id(answer, "id", "delivery_id", "reference")
    if order_id is None or holds(order_id, reply.secrets):
        raise without_receipt(reply)
    word = words_of(answer.get("status"), reply)
    return Receipt(
        order_id=order_id, verdict=verdict_of(word), word=word, message=_message(answer, reply), code=reply.code
    )


def read_status(reply: Reply) -> StatusReport:
    """What the service says of an order. Raises `ServiceError`, or `TransientError` for anything that is no verdict."""
    if not reply.success:
        failure = refusal(reply)
        if reply.code == 404 or not isinstance(failure, ServiceError | TransientError):
            raise TransientError(failure.message, code=reply.code)
        raise failure
    answer = document(reply)
    if not answer:
        raise TransientError(tr("the service answered with something that is not a status"), code=reply.code)
    word = words_of(answer.get("status"), reply)
    return StatusReport(verdict=verdict_of(word), word=word, message=_message(answer, reply), code=reply.code)


def read_lookup(reply: Reply, *, client_reference: str, known_order: Callable[[str], bool]) -> Receipt | None:
    """The order a lookup by client reference found, or None when there is none.

    Orders the log knows already belong to earlier deliveries, and items that name another client reference to other
    packages: both are passed over. Raises `refusal(reply)`, or `TransientError` when the list can't be read.
    """
    if not reply.success:
        raise refusal(reply)
    items = document(reply).get("items")
    if not isinstance(items, list):
        raise TransientError(tr("the service answered a lookup with something that is not a list"), code=reply.code)
    for item in items:
        if not isinstance(item, dict) or item.get("client_reference") not in (None, client_reference):
            continue
        order_id = find_id(item, "id", "delivery_id", "reference")
        if order_id is not None and not holds(order_id, reply.secrets) and not known_order(order_id):
            word = words_of(item.get("status"), reply)
            return Receipt(
                order_id=order_id, verdict=verdict_of(word), word=word, message=_message(item, reply), code=reply.code
            )
    return None


def refusal(reply: Reply) -> ServiceFailure:
    """The error a reply that isn't 2xx stands for, by its status."""
    said, code = words(reply), reply.code
    asked = retry_after(reply)
    conflict_may_pass = code == 409 and ("retry-after" in reply.headers or b"idempoten" in reply.body.lower())
    if code in _TRY_LATER or code >= 500 or conflict_may_pass:
        return TransientError(said, code=code, retry_after=asked)
    if code in _THIS_PACKAGE_NEVER:
        return PermanentError(said, code=code)
    if code < 400:
        return ServiceError(said, code=code, hint=_moved(reply))
    return ServiceError(said, code=code, hint=_hint(code))


def _hint(code: int) -> str:
    """What a person can do about a status that concerns everybody."""
    hints = {
        401: tr("check integrations.gotranscript.api_key: the service does not know it"),
        402: tr("add funds to the account at the service"),
        403: tr("ask the service whether this API key may deliver"),
        404: tr("check integrations.gotranscript.base_url and profile: the service has no such address"),
        405: tr("check integrations.gotranscript.base_url and profile: the service takes no deliveries there"),
    }
    return hints.get(code) or tr("ask the service what its answer {code} means", code=code)


def without_receipt(reply: Reply) -> OutcomeUnknown:
    """The error for a success that names no order."""
    return OutcomeUnknown(
        tr(
            "the service answered {code}, but without an order id that can be read: it may have this package",
            code=reply.code,
        ),
        code=reply.code,
        hint=tr("ask the service whether it has this package"),
    )


def document(reply: Reply) -> Mapping[str, Any]:
    """The reply's JSON object; empty when the body is anything else."""
    return json_object(reply.body) or {}


def retry_after(reply: Reply) -> float | None:
    """Seconds the service asks us to wait (RFC 9110 §10.2.3: seconds or a date), at most a day; None: it doesn't."""
    value = reply.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value[:10]), _LONGEST_RETRY_AFTER)
    until = moment(value)
    return None if until is None else min(max((until - reply.at).total_seconds(), 0.0), _LONGEST_RETRY_AFTER)


def words(reply: Reply) -> str:
    """The service's own words about a failure, else the name of its status. Never empty."""
    answer = document(reply)
    for key in ("detail", "message", "error", "title"):
        if said := words_of(answer.get(key), reply):
            return said
    plain = reply.headers.get("content-type", "").startswith("text/plain")
    said = words_of(reply.body[: 4 * LONGEST_LINE].decode("utf-8", "replace"), reply) if plain else ""
    return said or _status_line(reply.code)


def words_of(value: object, reply: Reply) -> str:
    """Any JSON value as one line for people: at most 500 characters, nothing secret, nothing that moves a cursor."""
    text = blot(words_in(value), reply.secrets)
    return one_line(_QUERY_SPELLED.sub(r"\1%3F***", _QUERY.sub(r"\1?***", text)))


def _message(answer: Mapping[str, Any], reply: Reply) -> str:
    return words_of(answer.get("message"), reply)


def _status_line(code: int) -> str:
    try:
        return f"HTTP {code} {HTTPStatus(code).phrase}"
    except ValueError:
        return f"HTTP {code}"


def _moved(reply: Reply) -> str:
    try:
        host = urlsplit(reply.headers.get("location", "")).hostname
    except ValueError:
        host = None
    if not host:
        return tr("the service points elsewhere: check integrations.gotranscript.base_url")
    to = words_of(host, reply)
    return tr("the service points elsewhere, to {host}: check integrations.gotranscript.base_url", host=to)
