"""Those who call tfwatch: each signs in its own way, with code of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

import httpx

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def body_of(document: Mapping[str, Any] | bytes) -> bytes:
    """A body as callers write it."""
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def standard(
    body: bytes, *, secret: str = SECRET, message_id: str | None = None, at: float | None = None
) -> dict[str, str]:
    """The headers of Standard Webhooks 1.0, by its specification."""
    message_id = message_id or f"msg_{uuid.uuid4().hex}"
    timestamp = str(int(time.time() if at is None else at))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def legacy(
    body: bytes, *, secret: str = SECRET, integration: str = "gotranscript", at: float | None = None
) -> dict[str, str]:
    """The older headers: the time is not signed."""
    return {
        "x-integration-id": integration,
        "x-signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
        "x-signature-timestamp": str(int(time.time() if at is None else at)),
    }


def call(
    url: str, document: Mapping[str, Any] | bytes, *, integration: str = "gotranscript", **how: Any
) -> httpx.Response:
    """One call, signed by Standard Webhooks; `how` as `standard` takes it."""
    body = body_of(document)
    return httpx.post(f"{url}/webhooks/{integration}", content=body, headers=standard(body, **how), timeout=30)
