"""What WEBHOOK rows add up to: which messages were taken, verdicts not applied yet, traces awaited by job."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from tfwatch.ledger.database import spelled_out
from tfwatch.model import DeliveryRecord, Event, TraceId, Verdict, job_version, parse_rfc3339, rfc3339

KEPT_FOR: Final = timedelta(days=7)
"""A verdict whose order nobody knows is kept for so long. Services repeat theirs for up to two days."""


class Subject(NamedTuple):
    """What a verdict is about: an order id, or where the service named none, a content's SHA-256. Either may be ''."""

    order_id: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A final verdict that a webhook told and that no package was settled by yet. `message`: the service's words."""

    subject: Subject
    verdict: Verdict
    word: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A message that was taken once: what came of it, and the trace it was answered with."""

    outcome: str
    trace_id: TraceId


def message_key(facts: Mapping[str, str]) -> str:
    """Under which key a message is known for ever: its id, else the hash of its body and whose address it came to."""
    if "id" in facts:
        return f"id {facts['id']}"
    return f"body {facts.get('body', '')} {facts.get('client_reference', '')}".rstrip()


class CallKeeper:
    """Applies facts to the tables about webhooks, inside the projection's transaction; made for each transaction.

    Most of the time nothing is told or awaited: that is asked once, and not for each row of a long log.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._writer = connection
        self._filled: dict[str, bool] = {}

    def add(self, record: DeliveryRecord, facts: Mapping[str, str], message: str) -> None:
        """Add one fact; of most there is nothing to add."""
        match record.event:
            case Event.WEBHOOK if "integration" in facts:
                self._add_call(record, facts, message)
            case Event.COMPLETED | Event.REFUSED if record.order_id and self._has_rows("told"):
                self._write(
                    "DELETE FROM told WHERE order_id = ? OR (order_id = '' AND sha256 = ?)",
                    record.order_id, record.sha256,
                )  # fmt: skip
            case _:
                pass

    def package_began(self, name: str) -> None:
        """The first fact about a package of that name: the trace its job was waiting with is given away."""
        if self._has_rows("awaited") and (found := job_version(name)) is not None:
            # As its bytes: a name may hold what no text column takes.
            self._writer.execute("DELETE FROM awaited WHERE job_id = ?", (_job_key(found[0]),))

    def _has_rows(self, table: str) -> bool:
        if table not in self._filled:
            self._filled[table] = self._writer.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None  # noqa: S608  our own names
        return self._filled[table]

    def _add_call(self, record: DeliveryRecord, facts: Mapping[str, str], message: str) -> None:
        outcome = facts.get("outcome", "")
        self._filled.clear()  # what follows may fill them
        self._write(
            "INSERT OR IGNORE INTO call VALUES (?, ?, ?, ?)",
            facts["integration"], message_key(facts), outcome, record.trace_id,
        )  # fmt: skip
        if outcome in ("settled", "kept") and facts.get("verdict") in set(Verdict):
            self._write("DELETE FROM told WHERE at < ?", rfc3339(record.at - KEPT_FOR))
            self._write(
                "INSERT OR IGNORE INTO told VALUES (?, ?, ?, ?, ?, ?)",
                record.order_id, record.sha256, facts["verdict"], facts.get("word", ""), message, rfc3339(record.at),
            )  # fmt: skip
        if "job_id" in facts:
            self._writer.execute(
                "INSERT OR REPLACE INTO awaited VALUES (?, ?)", (_job_key(facts["job_id"]), record.trace_id)
            )

    def _write(self, sql: str, *values: str) -> None:
        self._writer.execute(sql, [spelled_out(value) for value in values])


class Calls:
    """What the projection answers about webhooks. `rows` runs one query."""

    def __init__(self, rows: Callable[..., list[Any]]) -> None:
        self._rows = rows

    def taken(self, integration: str, facts: Mapping[str, str]) -> Taken | None:
        """A message with the same id or body that was taken before; None for a new one."""
        rows = self._rows(
            "SELECT outcome, trace_id FROM call WHERE integration = ? AND message = ?",
            spelled_out(integration), spelled_out(message_key(facts)),
        )  # fmt: skip
        return Taken(outcome=rows[0][0], trace_id=TraceId(rows[0][1])) if rows else None

    def told(self, subject: Subject) -> Told | None:
        """The verdict that was told of an order, or of a content without naming an order; the one told first."""
        rows = self._rows(
            "SELECT order_id, sha256, verdict, word, message, at FROM told "
            "WHERE (order_id != '' AND order_id = ?) OR (order_id = '' AND sha256 != '' AND sha256 = ?) "
            "ORDER BY at LIMIT 1",
            spelled_out(subject.order_id), spelled_out(subject.sha256),
        )  # fmt: skip
        return _told(rows[0]) if rows else None

    def told_of_content(self, sha256: str) -> Told | None:
        """The first verdict that was told of a content and names the order it had there."""
        rows = self._rows(
            "SELECT order_id, sha256, verdict, word, message, at FROM told WHERE sha256 = ? AND order_id != '' "
            "ORDER BY at LIMIT 1", spelled_out(sha256),
        )  # fmt: skip
        return _told(rows[0]) if rows else None

    def all_told(self) -> list[Subject]:
        """All that verdicts were told of and not applied yet, the oldest first."""
        return [Subject(*row) for row in self._rows("SELECT order_id, sha256 FROM told ORDER BY at")]

    def awaited_trace(self, name: str) -> TraceId | None:
        """The trace that a webhook bound to the next package of this one's job; None when there is none."""
        found = job_version(name)
        if found is None:
            return None
        rows = self._rows("SELECT trace_id FROM awaited WHERE job_id = ?", _job_key(found[0]))
        return TraceId(rows[0][0]) if rows else None


def _told(row: tuple[str, str, str, str, str, str]) -> Told:
    order_id, sha256, verdict, word, message, at = row
    subject = Subject(order_id, sha256)
    return Told(subject=subject, verdict=Verdict(verdict), word=word, message=message, at=parse_rfc3339(at))


def _job_key(job_id: str) -> bytes:
    return os.fsencode(job_id)
