"""Whether a call comes from whom it says: three ways to prove it. Pure; any octets may come, and nothing here raises.

Comparing takes as long for a wrong proof as for a right one, and for an integration that nobody knows.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from standardwebhooks import Webhook

from tfwatch.webhook_secrets import Keys, Kind

_TIMESTAMP: Final = re.compile(r"[0-9]{1,11}")
_MESSAGE_ID: Final = re.compile(r"[!-~]{1,255}")
_STANDARD_SECRET: Final = re.compile(r"(?:whsec_)?(?:[A-Za-z0-9+/]{4}){5,}(?:[A-Za-z0-9+/]{2,3}={0,2})?")
"""Base64 of 15 octets or more. The library would take less, and skip what is no base64: such a key could be guessed."""

_MOST_SIGNATURES: Final = 16
_MOST_VALID: Final = 2
_DECOYS: Final = tuple(secrets.token_hex(32) for _ in range(_MOST_VALID))
"""Nobody has these. Each proof is compared with two secrets, however many there are: it takes as long for everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How a caller proved who it is: `standard`, `legacy` or `token`; and its message's id, '' where it has none."""

    via: str
    message_id: str = ""


def prove(
    keys: Keys | None,
    *,
    integration: str,
    token: str | None,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    tolerance: timedelta,
) -> Proof | None:
    """How this call proves that it comes from `integration`; None when it does not.

    `keys` None: nobody knows that integration. `token`: the end of the address, where there is one. `headers`:
    lower-case names. Signed calls must bear a time within `tolerance` of `now`.
    """
    kind: Kind = "secret" if token is None else "path_token"
    valid = ((keys.valid(kind, now) if keys is not None else ()) + _DECOYS)[:_MOST_VALID]
    if token is not None:
        return Proof(via="token") if _is_one_of(token, valid) else None
    if "webhook-signature" in headers:
        return _prove_standard(valid, headers, body, now, tolerance)
    return _prove_legacy(valid, integration, headers, body, now, tolerance)


def _prove_standard(
    valid: tuple[str, ...], headers: Mapping[str, str], body: bytes, now: datetime, tolerance: timedelta
) -> Proof | None:
    """Standard Webhooks 1.0: `v1,` and the HMAC-SHA256 of id, time and body in base64; several while rotating."""
    message_id = headers.get("webhook-id", "")
    at = _moment(headers.get("webhook-timestamp", ""), now, tolerance)
    if at is None or not _MESSAGE_ID.fullmatch(message_id):
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None  # no sender signs what is no text
    given = [each.encode() for each in headers["webhook-signature"].split(" ")[:_MOST_SIGNATURES]]
    is_right = False
    for secret in valid:
        if not _STANDARD_SECRET.fullmatch(secret):
            continue
        signed = Webhook(secret).sign(message_id, at, text).encode()
        for one in given:
            is_right |= hmac.compare_digest(signed, one)
    return Proof(via="standard", message_id=message_id) if is_right else None


def _prove_legacy(
    valid: tuple[str, ...],
    integration: str,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    tolerance: timedelta,
) -> Proof | None:
    """The older headers: the HMAC-SHA256 of the body in hex. Its time is not signed: the body's hash tells replays."""
    is_theirs = headers.get("x-integration-id") == integration
    in_time = _moment(headers.get("x-signature-timestamp", ""), now, tolerance) is not None
    given = headers.get("x-signature", "").lower().encode()
    is_right = False
    for secret in valid:
        signed = hmac.new(secret.encode("utf-8", "surrogatepass"), body, hashlib.sha256).hexdigest().encode()
        is_right |= hmac.compare_digest(signed, given)
    return Proof(via="legacy") if is_right and is_theirs and in_time else None


def _moment(text: str, now: datetime, tolerance: timedelta) -> datetime | None:
    """A time in whole seconds since 1970 that is not too far from now; None for any other."""
    if not _TIMESTAMP.fullmatch(text):
        return None
    seconds = int(text)
    if abs(now.timestamp() - seconds) > tolerance.total_seconds():
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _is_one_of(token: str, valid: tuple[str, ...]) -> bool:
    is_right = False
    for each in valid:
        is_right |= hmac.compare_digest(
            each.encode("utf-8", "surrogatepass"), token.encode("utf-8", "surrogatepass")
        )  # fmt: skip
    return is_right
