"""How each fact changes the projection: one function a table, one rule an event."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from tfwatch.ledger.calls import CallKeeper
from tfwatch.ledger.database import spelled_out
from tfwatch.ledger.figures import Counting
from tfwatch.ledger.states import COLUMNS
from tfwatch.model import Actor, DeliveryRecord, Event, Stage, read_detail, rfc3339

_SWITCHING: Final = frozenset((Event.ROLLBACK, Event.ENABLED, Event.DISABLED))
_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM package WHERE sha256 = ? AND name = ?"  # noqa: S608  our own names
_INSERT: Final = f"INSERT INTO package ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608


_Key = tuple[str, bytes]


class Projector:
    """Applies facts, in the log's order, through one connection, inside the caller's transaction.

    One is made for each transaction: a package's row is written once at its end, however many facts it had.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._writer = connection
        self._counting = Counting(connection)
        self._calls = CallKeeper(connection)
        self._rows: dict[_Key, dict[str, Any]] = {}
        self._stored: dict[_Key, dict[str, Any] | None] = {}

    def apply(self, record: DeliveryRecord) -> None:
        """Add one fact."""
        facts, message = read_detail(record.detail)
        self._counting.add(record, facts)
        self._calls.add(record, facts, message)
        if record.package:
            self._apply_package(record, facts, message)
        if record.event in _SWITCHING:
            self._apply_integration(record, facts, message)

    def finish(self) -> None:
        """Write what the facts have come to."""
        for key, row in self._rows.items():
            self._store(row, self._stored[key])
        self._rows, self._stored = {}, {}
        self._counting.finish()

    def _store(self, row: dict[str, Any], stored: Mapping[str, Any] | None) -> None:
        """A column that is set to what it was would have its indexes written anew all the same."""
        if stored is None:
            self._write(_INSERT, *[row[column] for column in COLUMNS])
            return
        changed = [column for column in COLUMNS if row[column] != stored[column]]
        if changed:
            sql = f"UPDATE package SET {', '.join(f'{name} = ?' for name in changed)} WHERE sha256 = ? AND name = ?"  # noqa: S608  our own names
            self._write(sql, *[row[column] for column in changed], stored["sha256"], stored["name"])

    def _apply_package(self, record: DeliveryRecord, facts: Mapping[str, str], message: str) -> None:
        name, at = os.fsencode(record.package), rfc3339(record.at)
        before = os.fsencode(facts["was"]) if "was" in facts else name
        row = self._row(record.sha256, before)
        if before != name:
            self._writer.execute("DELETE FROM package WHERE sha256 = ? AND name = ?", (record.sha256, before))
            self._rows.pop((record.sha256, before), None)
            # What this content was under the new name, long ago perhaps, is written over.
            self._counting.moved(self._row(record.sha256, name)["stage"], None)
        left = row["stage"]
        row |= {"name": name, "changed_at": at}
        if not row["first_at"]:
            self._calls.package_began(record.package)
        row["first_at"] = row["first_at"] or at
        if record.from_stage is not record.to_stage or row["stage_since"] is None:
            row["stage_since"] = at
        row["trace_id"] = record.trace_id or row["trace_id"]
        row["bytes"] = record.bytes if record.bytes is not None else row["bytes"]
        row["status"] = record.status.value if record.status else row["status"]
        row["stage"] = record.to_stage.value if record.to_stage else None
        self._counting.moved(left, row["stage"])
        row["code"] = record.code
        if record.event is not Event.RECOVERED or record.to_stage is Stage.CLAIMED or not row["event"]:
            # A finished move says nothing new, and a crash amid the repair must find what the first one found.
            row |= {"event": record.event.value, "reason": message}
        _PACKAGE_RULES.get(record.event, _nothing)(row, record, facts)
        self._rows[record.sha256, name] = row
        self._apply_content(record, facts, at)
        if record.event is Event.ACCEPTED:
            self._write("INSERT OR REPLACE INTO receipt VALUES (?, ?, ?)", record.order_id, record.sha256, name)

    def _row(self, sha256: str, name: bytes) -> dict[str, Any]:
        if (sha256, name) in self._rows:
            return self._rows[sha256, name]
        found = self._writer.execute(_SELECT, (sha256, name)).fetchone()
        stored = self._stored[sha256, name] = dict(zip(COLUMNS, found, strict=True)) if found else None
        if stored is not None:
            return dict(stored)
        blank: dict[str, Any] = dict.fromkeys(COLUMNS)
        counters = ("bytes", "rounds", "failures", "forced", "by_rollback", "by_hand", "backed_up", "backup_failures")
        blank.update(dict.fromkeys(counters, 0))
        return blank | {"sha256": sha256, "trace_id": "", "order_id": "", "reason": ""}

    def _apply_content(self, record: DeliveryRecord, facts: Mapping[str, str], at: str) -> None:
        sha256, name = record.sha256, os.fsencode(record.package)
        match record.event:
            case Event.ATTEMPTED:
                self._write(
                    "INSERT INTO content (sha256, generation, ended, unknown, profile, base_url) VALUES (?,?,0,1,?,?) "
                    "ON CONFLICT (sha256) DO UPDATE SET generation = excluded.generation, ended = 0, unknown = 1, "
                    "profile = excluded.profile, base_url = excluded.base_url",
                    sha256,
                    int(facts.get("generation", 1)),
                    facts.get("profile"),
                    facts.get("base_url"),
                )
            case Event.ACCEPTED:
                self._write(
                    "UPDATE content SET ended = 1, unknown = 0, accepted_as = ?, accepted_at = ?, order_id = ? "
                    "WHERE sha256 = ?",
                    name,
                    at,
                    record.order_id,
                    sha256,
                )
            case Event.REFUSED if facts.get("by") == "service":
                self._write("UPDATE content SET ended = 1, unknown = 0, accepted_as = NULL WHERE sha256 = ?", sha256)
            case Event.DEFERRED | Event.ROLLBACK if facts.get("sent") == "no":
                # The key stays the same, but it is certain that nothing got through.
                self._write("UPDATE content SET unknown = 0 WHERE sha256 = ?", sha256)
            case Event.MOVED if record.to_stage is Stage.DELIVERED and record.from_stage is not Stage.DELIVERED:
                self._write(
                    "INSERT INTO content (sha256, accepted_as, accepted_at) VALUES (?,?,?) ON CONFLICT (sha256) "
                    "DO UPDATE SET ended = 1, unknown = 0, accepted_as = excluded.accepted_as, "
                    "accepted_at = excluded.accepted_at",
                    sha256,
                    name,
                    at,
                )
            case Event.MOVED if "was" in facts:
                self._write(
                    "UPDATE content SET accepted_as = ? WHERE sha256 = ? AND accepted_as = ?",
                    name,
                    sha256,
                    os.fsencode(facts["was"]),
                )
            case _:
                pass

    def _apply_integration(self, record: DeliveryRecord, facts: Mapping[str, str], message: str) -> None:
        integration = facts.get("integration")
        if integration is None:
            return
        state = {Event.ENABLED: "enabled", Event.ROLLBACK: "rolled back"}.get(record.event)
        if record.event is Event.DISABLED:
            state = {"configuration": "enabled", "service": "paused"}.get(facts.get("by", ""), "disabled")
        if state is None:
            return
        configured = record.event is Event.ENABLED if facts.get("by") == "configuration" else None
        self._write(
            "INSERT INTO integration VALUES (?,?,?,?,?,?,?) ON CONFLICT (name) DO UPDATE SET state = excluded.state, "
            "since = excluded.since, reason = excluded.reason, exec_id = excluded.exec_id, package = excluded.package, "
            "configured = coalesce(excluded.configured, configured)",
            integration,
            state,
            rfc3339(record.at),
            message,
            record.exec_id,
            os.fsencode(record.package or facts.get("package", "")),
            configured,
        )

    def _write(self, sql: str, *values: object) -> None:
        """Text that UTF-8 can't hold (a file name's bytes, half a character) is spelled out: SQLite takes no other."""
        try:
            self._writer.execute(sql, values)
        except UnicodeEncodeError:
            self._writer.execute(sql, [spelled_out(value) if isinstance(value, str) else value for value in values])


# --- what each event does to a package's row ------------------------------------------------------------------------


def _nothing(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    """This event changes nothing beyond the columns every row sets."""


def _attempted(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    row |= {"rounds": row["rounds"] + 1, "retry_at": None, "by_rollback": 0, "by_hand": 0, "order_id": ""}
    row |= {"requeued_by": None, "flaw": None}
    row |= {"profile": facts.get("profile"), "base_url": facts.get("base_url"), "accepted_at": None, "settled_at": None}


def _accepted(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    row |= {"order_id": record.order_id, "accepted_at": rfc3339(record.at), "failures": 0, "forced": 0}
    row |= {"profile": facts.get("profile"), "base_url": facts.get("base_url")}


def _completed(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    row["settled_at"] = rfc3339(record.at)


def _refused(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    row |= {"failures": 0, "retry_at": None, "forced": 0, "flaw": facts.get("flaw")}


def _failed(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    row["retry_at"] = facts.get("retry_at")
    row["failures"] += facts.get("failed") == "yes"


def _rolled_back(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    # One that lay there already was parked for a person to decide, or taken there: lifting the rollback leaves it.
    row |= {"by_rollback": int(record.from_stage is not record.to_stage), "retry_at": None}


def _requeued(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    row |= {"forced": int(facts.get("forced") == "yes"), "by_rollback": 0, "by_hand": 0, "retry_at": None}
    row |= {"failures": 0, "settled_at": None, "requeued_by": record.actor.value, "flaw": None}


def _moved(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    if record.from_stage is record.to_stage:
        return  # another name, nothing else
    row |= {"by_rollback": 0, "retry_at": None, "flaw": None}
    if record.to_stage is Stage.DELIVERED:
        settled_before = record.from_stage is Stage.SUBMITTED or row["settled_at"] is not None
        by_hand = record.actor is Actor.OPERATOR and not settled_before
        row |= {"settled_at": row["settled_at"] or rfc3339(record.at), "by_hand": int(by_hand or row["by_hand"])}
    elif record.to_stage is not None:
        row |= {"settled_at": None, "by_hand": 0}


def _backed_up(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    row |= {"backed_up": 1, "backup_key": facts.get("key"), "backup_failures": 0}


def _backup_failed(row: dict[str, Any], record: DeliveryRecord, facts: Mapping[str, str]) -> None:
    # Also said of a copy that was verified once and is gone: a new one is due.
    row |= {"backup_failures": row["backup_failures"] + 1, "backed_up": 0}


_PACKAGE_RULES: Final = {
    Event.ATTEMPTED: _attempted,
    Event.ACCEPTED: _accepted,
    Event.COMPLETED: _completed,
    Event.REFUSED: _refused,
    Event.DEFERRED: _failed,
    Event.UNKNOWN: _failed,
    Event.ROLLBACK: _rolled_back,
    Event.REQUEUED: _requeued,
    Event.MOVED: _moved,
    Event.BACKED_UP: _backed_up,
    Event.BACKUP_FAILED: _backup_failed,
}
