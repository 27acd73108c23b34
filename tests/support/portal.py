"""What really reached the portal: by its own list of orders, never by our log."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

from tfwatch.sandbox.server import Sandbox


def digest(content: bytes) -> str:
    """The SHA-256 of some bytes, as the portal writes it."""
    return hashlib.sha256(content).hexdigest()


def ordered(sandbox: Sandbox) -> Counter[str]:
    """How many orders the portal holds of each SHA-256."""
    return Counter(str(order["sha256"]) for order in sandbox.orders())


def orders_of(sandbox: Sandbox, name: str) -> list[dict[str, Any]]:
    """The orders whose package bore this name, oldest first."""
    return [order for order in sandbox.orders() if order["filename"] == name]


def keys(sandbox: Sandbox) -> list[str]:
    """The idempotency keys of all orders without their quotes, oldest first."""
    return [str(order["idempotency_key"]).strip('"') for order in sandbox.orders()]
