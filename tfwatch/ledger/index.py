"""The projection of log.csv in SQLite: what the facts add up to. Delete it and it is rebuilt.

It is written by the log's committer, one transaction for each group commit, and never trusted over the log: the
position stored with it says up to which row it has read.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from tfwatch.ledger.log import Position
from tfwatch.model import (
    Actor,
    DeliveryRecord,
    Destination,
    Event,
    Integration,
    Profile,
    Stage,
    Status,
    parse_rfc3339,
    read_detail,
    rfc3339,
)

_SCHEMA_VERSION: Final = 3

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE package (
    name BLOB NOT NULL, sha256 TEXT NOT NULL, trace_id TEXT NOT NULL, bytes INTEGER NOT NULL,
    stage TEXT, status TEXT, first_at TEXT NOT NULL, changed_at TEXT NOT NULL, event TEXT NOT NULL,
    rounds INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
    order_id TEXT NOT NULL DEFAULT '', profile TEXT, base_url TEXT,
    accepted_at TEXT, settled_at TEXT, retry_at TEXT, code INTEGER, reason TEXT NOT NULL DEFAULT '',
    forced INTEGER NOT NULL DEFAULT 0, by_rollback INTEGER NOT NULL DEFAULT 0, by_hand INTEGER NOT NULL DEFAULT 0,
    requeued_by TEXT, backed_up INTEGER NOT NULL DEFAULT 0, backup_key TEXT, backup_failures INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sha256, name)
) WITHOUT ROWID;
CREATE INDEX package_stage ON package (stage, changed_at);
CREATE INDEX package_name ON package (name);
CREATE INDEX package_order ON package (order_id) WHERE order_id != '';
CREATE INDEX package_trace ON package (trace_id);
CREATE INDEX package_settled ON package (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX package_unbacked ON package (changed_at) WHERE stage = 'delivered' AND backed_up = 0;
CREATE TABLE content (
    sha256 TEXT PRIMARY KEY, generation INTEGER NOT NULL DEFAULT 0, ended INTEGER NOT NULL DEFAULT 1,
    unknown INTEGER NOT NULL DEFAULT 0, profile TEXT, base_url TEXT, accepted_as BLOB, accepted_at TEXT, order_id TEXT
) WITHOUT ROWID;
CREATE TABLE receipt (order_id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, name BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE integration (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, since TEXT NOT NULL, reason TEXT NOT NULL, exec_id TEXT NOT NULL,
    package BLOB NOT NULL, configured INTEGER
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageState:
    """What the log says of one package now. `stage` None: in no folder (taken away or pruned).

    `rounds`: delivery attempts begun; `failures`: of those, how many failed since the last success. `event`, `reason`:
    the last row and its words for people; a finished move changes neither. `by_rollback`: a rollback put it into
    rejected/. `forced`: an operator asked for a further order. `requeued_by`: who put it back into the outbox since it
    was last attempted. Moments are UTC.
    """

    name: str
    sha256: str
    trace_id: str
    bytes: int
    stage: Stage | None
    status: Status | None
    first_at: datetime
    changed_at: datetime
    event: Event
    rounds: int
    failures: int
    order_id: str
    profile: str | None
    base_url: str | None
    accepted_at: datetime | None
    settled_at: datetime | None
    retry_at: datetime | None
    code: int | None
    reason: str
    forced: bool
    by_rollback: bool
    by_hand: bool
    requeued_by: Actor | None
    backed_up: bool
    backup_key: str | None
    backup_failures: int

    @property
    def destination(self) -> Destination | None:
        """The service that was given this package last, as ATTEMPTED and ACCEPTED recorded it."""
        return _destination(self.profile, self.base_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentState:
    """What the log says of one SHA-256, whatever names it came under.

    `generation`: the number of the idempotency key used last, 0 before the first. `ended`: that key's outcome is
    known, so a further delivery takes the next. `unknown`: it was sent and nobody knows what became of it.
    `accepted_as`: the name under which it was accepted and not refused since.
    """

    generation: int = 0
    ended: bool = True
    unknown: bool = False
    destination: Destination | None = None
    accepted_as: str | None = None
    accepted_at: datetime | None = None
    order_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrationState:
    """What the log says of an integration: `state` is `enabled`, `disabled`, `paused` or `rolled back`.

    `exec_id`, `package`: the run in which that happened, and the package it happened to, if one did.
    `configured`: whether the configuration had it on when that last changed; None before any such change.
    """

    state: str = "enabled"
    since: datetime | None = None
    reason: str = ""
    exec_id: str = ""
    package: str = ""
    configured: bool | None = None

    @property
    def held(self) -> bool:
        """Whether it is off whatever the configuration says."""
        return self.state != "enabled"


_COLUMNS: Final = tuple(field.name for field in fields(PackageState))
_SWITCHING: Final = frozenset((Event.ROLLBACK, Event.ENABLED, Event.DISABLED))
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM package"  # noqa: S608  our own column names
_REPLACE: Final = f"INSERT OR REPLACE INTO package ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608


class Index:
    """The projection. Safe to use from several threads: one connection writes, one reads."""

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        """Open or make it; a file of another version, or one that is damaged, is replaced by an empty one.

        `read_only`: nothing is made or changed, not even a side file; raises sqlite3.Error when that can't be done.
        """
        self._path = path
        self._lock = threading.Lock()
        if read_only:
            self._writer = self._reader = _connect_read_only(path)
        else:
            self._writer = _open(path)
            self._reader = _connect(path) if path != ":memory:" else self._writer

    def in_memory(self) -> Index:
        """A copy that goes with the process, to be brought up to date without touching the file."""
        copy = Index(":memory:")
        with self._lock:
            self._reader.backup(copy._writer)
        return copy

    def close(self) -> None:
        """Close both connections."""
        with self._lock:
            self._reader.close()
            self._writer.close()

    # --- reading the log -------------------------------------------------------------------------------------------

    @property
    def position(self) -> Position | None:
        """Up to where the log was read; None for a new projection."""
        values = dict(self._all("SELECT key, value FROM meta"))
        if "seq" not in values:
            return None
        return Position(offset=int(values["offset"]), seq=int(values["seq"]), chain=values["chain"])

    def clear(self) -> None:
        """Forget everything: it will be read again from the log's first row."""
        with self._lock, self._writer:
            for table in ("meta", "package", "content", "receipt", "integration"):
                self._writer.execute(f"DELETE FROM {table}")  # noqa: S608  our own table names

    def apply(self, records: Iterable[DeliveryRecord], position: Position) -> None:
        """Add records in the log's order, then `position`, in one transaction."""
        with self._lock, self._writer:
            for record in records:
                if record.package:
                    self._apply_package(record)
                if record.event in _SWITCHING:
                    self._apply_integration(record)
            self._writer.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                (("offset", str(position.offset)), ("seq", str(position.seq)), ("chain", position.chain)),
            )

    def _apply_package(self, record: DeliveryRecord) -> None:
        facts, message = read_detail(record.detail)
        name, at = os.fsencode(record.package), rfc3339(record.at)
        before = os.fsencode(facts["was"]) if "was" in facts else name
        row = self._row(record.sha256, before)
        if before != name:
            self._writer.execute("DELETE FROM package WHERE sha256 = ? AND name = ?", (record.sha256, before))
        row |= {"name": name, "changed_at": at}
        row["first_at"] = row["first_at"] or at
        row["trace_id"] = record.trace_id or row["trace_id"]
        row["bytes"] = record.bytes if record.bytes is not None else row["bytes"]
        row["status"] = record.status.value if record.status else row["status"]
        row["stage"] = record.to_stage.value if record.to_stage else None
        row["code"] = record.code
        if record.event is not Event.RECOVERED or record.to_stage is Stage.CLAIMED or not row["event"]:
            # A finished move says nothing new, and a crash amid the repair must find what the first one found.
            row |= {"event": record.event.value, "reason": message}
        _PACKAGE_RULES.get(record.event, _nothing)(row, record, facts)
        self._write(_REPLACE, *(row[column] for column in _COLUMNS))
        self._apply_content(record, facts, at)
        if record.event is Event.ACCEPTED:
            self._write("INSERT OR REPLACE INTO receipt VALUES (?, ?, ?)", record.order_id, record.sha256, name)

    def _row(self, sha256: str, name: bytes) -> dict[str, Any]:
        found = self._writer.execute(f"{_SELECT} WHERE sha256 = ? AND name = ?", (sha256, name)).fetchone()
        if found:
            return dict(zip(_COLUMNS, found, strict=True))
        blank: dict[str, Any] = dict.fromkeys(_COLUMNS)
        counters = ("bytes", "rounds", "failures", "forced", "by_rollback", "by_hand", "backed_up", "backup_failures")
        blank.update(dict.fromkeys(counters, 0))
        return blank | {"sha256": sha256, "trace_id": "", "order_id": "", "reason": ""}

    def _apply_content(self, record: DeliveryRecord, facts: Any, at: str) -> None:
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

    def _apply_integration(self, record: DeliveryRecord) -> None:
        facts, message = read_detail(record.detail)
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
        self._writer.execute(sql, [_text(value) if isinstance(value, str) else value for value in values])

    # --- asking ----------------------------------------------------------------------------------------------------

    def package(self, sha256: str, name: str) -> PackageState | None:
        """One package under one name."""
        return next(self._states("WHERE sha256 = ? AND name = ?", sha256, os.fsencode(name)), None)

    def packages_of(self, sha256: str) -> list[PackageState]:
        """Every name this content has had, the latest first."""
        return list(self._states("WHERE sha256 = ? ORDER BY changed_at DESC", sha256))

    def named(self, name: str) -> list[PackageState]:
        """Every content that has had this name, the latest first."""
        return list(self._states("WHERE name = ? ORDER BY changed_at DESC", os.fsencode(name)))

    def search(self, word: str) -> list[PackageState]:
        """Packages by name, SHA-256 (or at least 8 digits of one), trace id or order id; the latest first."""
        if not word:
            return []
        name = _file_name(word)
        found = list(
            self._states(
                "WHERE name = ? OR trace_id = ? OR order_id = ? OR sha256 = ? "
                "OR sha256 IN (SELECT sha256 FROM receipt WHERE order_id = ?) ORDER BY changed_at DESC",
                name, _text(word), _text(word), _text(word), _text(word),
            )
        )  # fmt: skip
        if not found and len(word) >= 8 and all(digit in "0123456789abcdef" for digit in word):
            found = list(self._states("WHERE sha256 >= ? AND sha256 < ? ORDER BY changed_at DESC", word, word + "g"))
        return found

    def at_stage(self, stage: Stage) -> list[PackageState]:
        """All packages the log has at a stage, the longest unchanged first."""
        return list(self._states("WHERE stage = ? ORDER BY changed_at", stage.value))

    def names_at(self, stage: Stage) -> dict[str, str]:
        """Name → SHA-256 of all packages the log has at a stage: cheaper than `at_stage`."""
        rows = self._all("SELECT name, sha256 FROM package WHERE stage = ?", stage.value)
        return {os.fsdecode(name): sha256 for name, sha256 in rows}

    def content(self, sha256: str) -> ContentState:
        """What is known of a SHA-256; all defaults when nothing is."""
        rows = self._all(
            "SELECT generation, ended, unknown, profile, base_url, accepted_as, accepted_at, order_id FROM content "
            "WHERE sha256 = ?",
            sha256,
        )
        if not rows:
            return ContentState()
        generation, ended, unknown, profile, base_url, accepted_as, accepted_at, order_id = rows[0]
        return ContentState(
            generation=generation,
            ended=bool(ended),
            unknown=bool(unknown),
            destination=_destination(profile, base_url),
            accepted_as=os.fsdecode(accepted_as) if accepted_as is not None else None,
            accepted_at=_moment(accepted_at),
            order_id=order_id or "",
        )

    def knows_order(self, order_id: str) -> bool:
        """Whether an order id stands in the log already."""
        return bool(self._all("SELECT 1 FROM receipt WHERE order_id = ?", _text(order_id)))

    def integration(self, integration: Integration) -> IntegrationState:
        """What the log says of an integration."""
        rows = self._all(
            "SELECT state, since, reason, exec_id, package, configured FROM integration WHERE name = ?",
            integration.value,
        )
        if not rows:
            return IntegrationState()
        state, since, reason, exec_id, package, configured = rows[0]
        return IntegrationState(
            state=state,
            since=_moment(since),
            reason=reason,
            exec_id=exec_id,
            package=os.fsdecode(package),
            configured=None if configured is None else bool(configured),
        )

    def unbacked(self) -> list[PackageState]:
        """Delivered packages without a verified backup, the longest waiting first."""
        return list(self._states("WHERE stage = 'delivered' AND backed_up = 0 ORDER BY changed_at"))

    def rolled_back(self) -> list[PackageState]:
        """Packages that lie in rejected/ because of a rollback."""
        return list(self._states("WHERE stage = 'rejected' AND by_rollback = 1 ORDER BY changed_at"))

    def stage_counts(self) -> dict[Stage, int]:
        """How many packages the log has at each stage."""
        counts = dict(self._all("SELECT stage, count(*) FROM package WHERE stage IS NOT NULL GROUP BY stage"))
        return {stage: counts.get(stage.value, 0) for stage in Stage}

    def oldest_at(self, stage: Stage) -> datetime | None:
        """Since when the longest unchanged package of a stage has been there."""
        return _moment(self._all("SELECT min(changed_at) FROM package WHERE stage = ?", stage.value)[0][0])

    def unbacked_count(self) -> int:
        """How many delivered packages have no verified backup yet."""
        return int(self._all("SELECT count(*) FROM package WHERE stage = 'delivered' AND backed_up = 0")[0][0])

    def settled_since(self, moment: datetime) -> int:
        """How many packages were delivered since a moment."""
        return int(self._all("SELECT count(*) FROM package WHERE settled_at >= ?", rfc3339(moment))[0][0])

    def parked(self) -> list[PackageState]:
        """Packages in rejected/ whose outcome nobody knows: a person decides. The longest waiting first."""
        return list(self._states("WHERE stage = 'rejected' AND status = 'unknown' ORDER BY changed_at"))

    def recent_problems(self, limit: int) -> list[PackageState]:
        """The packages that last came to harm and still are: rejected, unknown or waiting to be tried again."""
        return list(
            self._states(
                "WHERE stage = 'rejected' OR (stage IN ('outbox', 'claimed') AND (failures > 0 OR status = 'unknown')) "
                "ORDER BY changed_at DESC LIMIT ?",
                limit,
            )
        )

    # --- the sheet's cursor: where mirroring goes on -----------------------------------------------------------------

    def sheet_cursor(self, sheet: str) -> Position | None:
        """Up to which row a sheet shows the log; None when that isn't known."""
        rows = self._all("SELECT value FROM meta WHERE key = ?", f"sheet:{sheet}")
        if not rows:
            return None
        offset, seq, chain = rows[0][0].split()
        return Position(offset=int(offset), seq=int(seq), chain=chain)

    def move_sheet_cursor(self, sheet: str, position: Position) -> None:
        """Remember it. Losing it costs reading the sheet again, nothing else."""
        with self._lock, self._writer:
            self._writer.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                (f"sheet:{sheet}", f"{position.offset} {position.seq} {position.chain}"),
            )

    # --- plumbing --------------------------------------------------------------------------------------------------

    def _all(self, sql: str, *values: object) -> list[Any]:
        with self._lock:
            return self._reader.execute(sql, values).fetchall()

    def _states(self, where: str, *values: object) -> Iterator[PackageState]:
        return map(_state, self._all(f"{_SELECT} {where}", *values))


# --- what each event does to a package's row ------------------------------------------------------------------------


def _nothing(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    """This event changes nothing beyond the columns every row sets."""


def _attempted(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    row |= {"rounds": row["rounds"] + 1, "retry_at": None, "by_rollback": 0, "by_hand": 0, "order_id": ""}
    row["requeued_by"] = None
    row |= {"profile": facts.get("profile"), "base_url": facts.get("base_url"), "accepted_at": None, "settled_at": None}


def _accepted(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    row |= {"order_id": record.order_id, "accepted_at": rfc3339(record.at), "failures": 0, "forced": 0}
    row |= {"profile": facts.get("profile"), "base_url": facts.get("base_url")}


def _completed(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    row["settled_at"] = rfc3339(record.at)


def _refused(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    row |= {"failures": 0, "retry_at": None, "forced": 0}


def _failed(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    row["retry_at"] = facts.get("retry_at")
    row["failures"] += facts.get("failed") == "yes"


def _rolled_back(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    # One that lay in rejected/ already was parked for a person to decide: lifting the rollback leaves it there.
    row |= {"by_rollback": int(record.from_stage is not Stage.REJECTED), "retry_at": None}


def _requeued(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    row |= {"forced": int(facts.get("forced") == "yes"), "by_rollback": 0, "by_hand": 0, "retry_at": None}
    row |= {"failures": 0, "settled_at": None, "requeued_by": record.actor.value}


def _moved(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    if record.from_stage is record.to_stage:
        return  # another name, nothing else
    row |= {"by_rollback": 0, "retry_at": None}
    if record.to_stage is Stage.DELIVERED:
        settled_before = record.from_stage is Stage.SUBMITTED or row["settled_at"] is not None
        by_hand = record.actor is Actor.OPERATOR and not settled_before
        row |= {"settled_at": row["settled_at"] or rfc3339(record.at), "by_hand": int(by_hand or row["by_hand"])}
    elif record.to_stage is not None:
        row |= {"settled_at": None, "by_hand": 0}


def _backed_up(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    row |= {"backed_up": 1, "backup_key": facts.get("key"), "backup_failures": 0}


def _backup_failed(row: dict[str, Any], record: DeliveryRecord, facts: Any) -> None:
    row["backup_failures"] += 1


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


# --- SQLite ---------------------------------------------------------------------------------------------------------


def _open(path: str) -> sqlite3.Connection:
    try:
        connection = _connect(path)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == _SCHEMA_VERSION and connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
            return connection
        connection.close()
        if version != 0 or (path != ":memory:" and os.path.getsize(path) > 0):
            remove(path)
    except sqlite3.DatabaseError:
        remove(path)
    connection = _connect(path)
    connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
    return connection


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False, cached_statements=64)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # A torn projection would be believed; NORMAL syncs at each checkpoint and keeps it whole.
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _connect_read_only(path: str) -> sqlite3.Connection:
    """While somebody has it open its side files are there and are read too; without them it is whole by itself.

    SQLite would make missing side files even for a reader, so it is told then that nobody writes.
    """
    sides = {os.path.exists(path + suffix) for suffix in ("-wal", "-shm")}
    if len(sides) > 1:
        raise sqlite3.OperationalError(f"{path}: one of its side files is missing")
    how = "mode=ro&readonly_shm=1" if sides == {True} else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"file:{quote(os.fsencode(path))}?{how}", uri=True, check_same_thread=False, timeout=5)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != _SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"{path}: of version {version}, not {_SCHEMA_VERSION}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def remove(path: str) -> None:
    """Delete a projection with its side files."""
    for suffix in ("", "-wal", "-shm"):
        try:
            os.unlink(path + suffix)
        except FileNotFoundError:
            continue


def _state(row: Sequence[Any]) -> PackageState:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["name"] = os.fsdecode(values["name"])
    values["stage"] = Stage(values["stage"]) if values["stage"] else None
    values["status"] = Status(values["status"]) if values["status"] else None
    values["event"] = Event(values["event"])
    values["requeued_by"] = Actor(values["requeued_by"]) if values["requeued_by"] else None
    for key in ("first_at", "changed_at", "accepted_at", "settled_at", "retry_at"):
        values[key] = _moment(values[key])
    for key in ("forced", "by_rollback", "by_hand", "backed_up"):
        values[key] = bool(values[key])
    return PackageState(**values)


def _destination(profile: str | None, base_url: str | None) -> Destination | None:
    if profile not in set(Profile) or base_url is None:
        return None
    return Destination(profile=Profile(profile), base_url=base_url)


def _moment(text: str | None) -> datetime | None:
    return parse_rfc3339(text) if text else None


def _file_name(word: str) -> bytes:
    """A word as a file's name; empty when no file can be called so (half a character, as JSON may hold it)."""
    try:
        return os.fsencode(word)
    except UnicodeEncodeError:
        return b""


def _text(word: str) -> str:
    """A word for a TEXT column, which takes no undecodable bytes: they stand in it as `\\udcff`."""
    return word.encode("utf-8", "backslashreplace").decode()
