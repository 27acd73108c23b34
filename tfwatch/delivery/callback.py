"""What a caller's body says, in our words. Pure; a body may hold anything, and nothing here raises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from tfwatch.foreign import find_id, json_object, one_line, words_in
from tfwatch.model import OrderId, TraceId, Verdict, sound_trace_id, verdict_of

_ORDER_KEYS: Final = ("id", "delivery_id", "order_id", "reference")
_SAID_KEYS: Final = ("message", "detail", "reason", "error")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MOST_FIELDS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """One call's content. `order_ids`: every id that may be the order's, the likeliest first.

    `client_reference`: the SHA-256 the caller names, '' for none. `verdict` None: it says nothing of an order's
    state. `word`: the caller's own. `is_public_api`: it has the shape of the public API's callback (profile
    `gotranscript-v4`), which comes once an order is done and wants the answer `ok`.
    """

    order_ids: tuple[OrderId, ...]
    client_reference: str
    verdict: Verdict | None
    word: str
    message: str
    trace_id: TraceId | None
    job_id: str
    is_public_api: bool

    @property
    def names_an_order(self) -> bool:
        """Whether it says which order or content it is about."""
        return bool(self.order_ids or self.client_reference)


def read_callback(body: bytes, *, client_reference: str = "") -> Callback | None:
    """Read a body: a JSON object, or the fields of a form. None when it is neither.

    `client_reference`: what the address called carries, for bodies that name none.
    """
    fields = json_object(body)
    if fields is None:
        fields = _form(body)
    if fields is None:
        return None
    is_public_api = "order_id" in fields and "transcription_url" in fields and "status" not in fields
    word = one_line(words_in(fields.get("status")))
    verdict = Verdict.COMPLETED if is_public_api else verdict_of(word) if word else None
    return Callback(
        order_ids=tuple(dict.fromkeys(found for key in _ORDER_KEYS if (found := find_id(fields, key)) is not None)),
        client_reference=_sha256(fields.get("client_reference")) or _sha256(client_reference),
        verdict=verdict,
        word=word,
        message=next((said for key in _SAID_KEYS if (said := one_line(words_in(fields.get(key))))), ""),
        trace_id=sound_trace_id(fields.get("trace_id")),
        job_id=find_id(fields, "job_id") or "",
        is_public_api=is_public_api,
    )


def _sha256(value: object) -> str:
    return value.lower() if isinstance(value, str) and _SHA256.fullmatch(value.lower()) else ""


def _form(body: bytes) -> Mapping[str, Any] | None:
    """The fields of `application/x-www-form-urlencoded`, each at its first value."""
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return None
    return dict(reversed(pairs)) or None
