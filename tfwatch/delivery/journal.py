"""What the journal says of a package: the fields that make `journalctl TRACE_ID=…` its story, and each fact's words.

A lane sets them for all that is said while it works on a package (`logger.contextualize`), other libraries' records
too; whoever speaks of a package outside a lane binds them.
"""

from __future__ import annotations

from typing import Protocol

from loguru import logger

from tfwatch.ledger.index import Index
from tfwatch.model import Event, Package, read_detail
from tfwatch.spool.names import printable


class About(Protocol):
    """A package, what the log says of it now, or a row about it."""

    @property
    def sha256(self) -> str: ...

    @property
    def trace_id(self) -> str: ...


def fields(about: About, name: str, *, order_id: str = "") -> dict[str, str]:
    """The fields of a package that is known; those that are empty are not shown."""
    return {
        "PACKAGE": printable(name), "SHA256": about.sha256, "TRACE_ID": about.trace_id,
        "ORDER_ID": order_id,
    }  # fmt: skip


def fields_of(index: Index, name: str) -> dict[str, str]:
    """The fields of a file of which only the name is known yet: the log's, when it knows one package of that name."""
    states = index.named(name)
    if len(states) == 1:
        return fields(states[0], name, order_id=states[0].order_id)
    return {"PACKAGE": printable(name), "SHA256": "", "TRACE_ID": "", "ORDER_ID": ""}


def tell_claimed(package: Package, dropped_as: str) -> None:
    """Where a package's story begins: right before its first fact of this round, which has the same trace."""
    dropped = f", dropped as {printable(dropped_as)}" if dropped_as != package.name else ""
    logger.bind(EVENT="CLAIMED", **fields(package, package.name)).info(
        "{}: claimed{}; {} bytes", printable(package.name), dropped, package.bytes
    )


def sentence(event: Event, order_id: str, code: int | None, detail: str) -> str:
    """A fact in the journal's words: `accepted, order 4711, HTTP 201: the service's message`."""
    facts, message = read_detail(detail)
    parts = [
        event.value.lower().replace("_", " "),
        f"order {order_id}" if order_id else "",
        f"HTTP {code}" if code else "",
    ]
    parts += [f"to {facts['base_url']}"] if event is Event.ATTEMPTED and "base_url" in facts else []
    parts += [f"next try at {facts['retry_at']}"] if "retry_at" in facts else []
    return ", ".join(filter(None, parts)) + (f": {message}" if message else "")
