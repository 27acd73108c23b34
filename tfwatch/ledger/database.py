"""The projection's SQLite file: its schema, and ways to open it that never believe a damaged one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from tfwatch import disk
from tfwatch.language import tr

TABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "package": "sha256, name",
        "content": "sha256",
        "receipt": "order_id",
        "integration": "name",
        "total": "figure, integration, word",
        "running": "second",
        "call": "integration, message",
        "told": "order_id, sha256",
        "awaited": "job_id",
    }
)
"""All that is computed from the log's rows, with what tells a table's rows apart; `meta` says how far that went."""

_SCHEMA_VERSION: Final = 7

ROLLING: Final = (
    *("accepted", "completed", "failed", "sending_ms", "sendings"),
    *("backed_up", "backup_failed", "fallback"),
)
"""The counters that are kept for each second; `figures` says what they count."""

BESIDE_BYTES: Final = 4 << 20
"""Of changes beside the file, after which they are brought into it."""

_CHECKED_BYTES: Final = 32 << 20
"""A larger file is not read as a whole at each start. Damage that is met later ends the process, and the file is made
anew; `tfwatch fsck` and `doctor` look for it."""

_CACHE_ANEW_KIB: Final = 16 << 10
"""Of memory for the pages of a file that is made anew: hashes come in no order, so each row lands on another page."""

_TABLES: Final = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE package (
    name BLOB NOT NULL, sha256 TEXT NOT NULL, trace_id TEXT NOT NULL, bytes INTEGER NOT NULL,
    stage TEXT, stage_since TEXT NOT NULL, status TEXT, first_at TEXT NOT NULL, changed_at TEXT NOT NULL,
    event TEXT NOT NULL,
    rounds INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
    order_id TEXT NOT NULL DEFAULT '', profile TEXT, base_url TEXT,
    accepted_at TEXT, settled_at TEXT, retry_at TEXT, code INTEGER, reason TEXT NOT NULL DEFAULT '', flaw TEXT,
    forced INTEGER NOT NULL DEFAULT 0, by_rollback INTEGER NOT NULL DEFAULT 0, by_hand INTEGER NOT NULL DEFAULT 0,
    requeued_by TEXT, backed_up INTEGER NOT NULL DEFAULT 0, backup_key TEXT, backup_failures INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sha256, name)
);
CREATE TABLE content (
    sha256 TEXT PRIMARY KEY, generation INTEGER NOT NULL DEFAULT 0, ended INTEGER NOT NULL DEFAULT 1,
    unknown INTEGER NOT NULL DEFAULT 0, profile TEXT, base_url TEXT, accepted_as BLOB, accepted_at TEXT, order_id TEXT
) WITHOUT ROWID;
CREATE TABLE receipt (order_id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, name BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE integration (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, since TEXT NOT NULL, reason TEXT NOT NULL, exec_id TEXT NOT NULL,
    package BLOB NOT NULL, configured INTEGER
) WITHOUT ROWID;
CREATE TABLE total (
    figure TEXT NOT NULL, integration TEXT NOT NULL, word TEXT NOT NULL, value INTEGER NOT NULL,
    PRIMARY KEY (figure, integration, word)
) WITHOUT ROWID;
CREATE TABLE running (second INTEGER PRIMARY KEY, {", ".join(f"{name} INTEGER NOT NULL" for name in ROLLING)});
CREATE TABLE call (
    integration TEXT NOT NULL, message TEXT NOT NULL, outcome TEXT NOT NULL, trace_id TEXT NOT NULL,
    PRIMARY KEY (integration, message)
) WITHOUT ROWID;
CREATE TABLE told (
    order_id TEXT NOT NULL, sha256 TEXT NOT NULL, verdict TEXT NOT NULL, word TEXT NOT NULL, message TEXT NOT NULL,
    at TEXT NOT NULL, PRIMARY KEY (order_id, sha256)
) WITHOUT ROWID;
CREATE TABLE awaited (job_id BLOB PRIMARY KEY, trace_id TEXT NOT NULL) WITHOUT ROWID;
"""
# `package` has rowids: an order's facts then change its row where it lies and only those indexes whose columns changed,
# and each index names a row in a few bytes, where the 64 of a hash and a file's name would stand in all of them.

_INDEXES: Final = """
CREATE INDEX package_stage ON package (stage, changed_at);
CREATE INDEX package_since ON package (stage, stage_since) WHERE stage IN ('delivered', 'rejected');
CREATE INDEX package_name ON package (name);
CREATE INDEX package_order ON package (order_id) WHERE order_id != '';
CREATE INDEX package_trace ON package (trace_id);
CREATE INDEX package_settled ON package (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX package_unbacked ON package (changed_at) WHERE stage = 'delivered' AND backed_up = 0;
"""


class IndexUnusable(disk.Unworkable, sqlite3.OperationalError):
    """SQLite can't read or write its file. Nothing is lost: the projection is made anew at the next start."""


class IndexUnwritable(disk.Unworkable, sqlite3.OperationalError):
    """There is no room for what was to be written, and none of it was: try again later."""


_NOT_OURS: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""What SQLite says when the disk is to blame, and not the one who asked."""

_NEVER_FOR_WANT_OF_ROOM: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
    }
)
"""Errors of a disk that fails, however full it is. A failed fsync above all must never be tried again."""

_LEAST_ROOM: Final = 128 << 10
"""More than SQLite asks for at once: less than this may have been too little."""


@contextmanager
def on_disk(path: str) -> Iterator[None]:
    """Raise `IndexUnwritable` or `IndexUnusable` for what SQLite says of the disk. Anything else is a bug and passes.

    SQLite has no word of its own for a shared-memory file that finds no room, nor for a quota that is used up: that is
    told by trying.
    """
    try:
        yield
    except sqlite3.Error as error:
        extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        code = extended & 0xFF
        if code not in _NOT_OURS:
            raise
        why = str(error) if code == sqlite3.SQLITE_FULL else ""
        if code == sqlite3.SQLITE_IOERR and extended not in _NEVER_FOR_WANT_OF_ROOM:
            why = _want_of_room(f"{path}.room")
        if why:
            words = tr("{path}: {why}; free some space (df -h, df -i) or raise the quota", path=path, why=why)
            raise IndexUnwritable(words) from error
        mend = "see dmesg for what the disk says, mend that"
        if code == sqlite3.SQLITE_BUSY:
            mend = f"another program holds it (fuser '{path}' shows which), or no locks are to be had: end that"
        raise IndexUnusable(
            f"{path}: {error}; {mend}, then start tfwatch again: this file is made anew from log.csv"
        ) from error


def _want_of_room(trial: str) -> str:
    """Why a file there can't grow, in the system's words; empty when it can, or when that is not for want of room.

    A quota shows in no figure of the file system's, so a little is written, into a file that has no name any more.
    """
    try:
        fd = os.open(trial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.unlink(trial)
            rest = memoryview(bytes(_LEAST_ROOM))
            while rest:
                rest = rest[os.pwrite(fd, rest, _LEAST_ROOM - len(rest)) :]
        finally:
            os.close(fd)
    except OSError as error:
        return str(error.strerror) if error.errno in disk.NO_ROOM else ""
    return ""


def open_or_make(path: str) -> sqlite3.Connection:
    try:
        connection = connect(path)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == _SCHEMA_VERSION and (_is_long(path) or is_sound(connection)):
            return connection
        connection.close()
        if version != 0 or (path != ":memory:" and os.path.getsize(path) > 0):
            remove(path)
    except sqlite3.DatabaseError:
        remove(path)
    connection = connect(path)
    connection.executescript(f"BEGIN; {_TABLES} {_INDEXES} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
    return connection


def _is_long(path: str) -> bool:
    return path != ":memory:" and os.path.getsize(path) > _CHECKED_BYTES


def is_sound(connection: sqlite3.Connection) -> bool:
    """Whether SQLite finds all of a file in order."""
    return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))


def begin_anew(path: str) -> sqlite3.Connection:
    """A new, empty file for all rows of a log: nobody believes it before `finish_anew`, so it needs neither a journal
    nor any sync, and what is looked up by other things than its keys is sorted in once, at the end."""
    remove(path)
    connection = sqlite3.connect(path, check_same_thread=False, cached_statements=64)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_ANEW_KIB}")
        connection.executescript(f"BEGIN; {_TABLES} COMMIT;")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def finish_anew(connection: sqlite3.Connection, path: str, target: str) -> None:
    """Put it on disk, whole, then in the place of `target`, which nobody has open. Raises `NotSynced`, OSError."""
    connection.executescript(f"BEGIN; {_INDEXES} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
    connection.close()
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        disk.sync(fd, path)
    finally:
        os.close(fd)
    remove(target)
    os.rename(path, target)
    disk.sync_folder(os.path.dirname(target))


def connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, check_same_thread=False, cached_statements=64)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # A torn projection would be believed; NORMAL syncs at each checkpoint and keeps it whole.
        connection.execute("PRAGMA synchronous = NORMAL")
        # SQLite keeps to itself what goes wrong in a checkpoint of its own, and would sync again next time.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        # Once all is in the file, the one beside it starts anew and is cut to this: its size tells what waits in it.
        connection.execute(f"PRAGMA journal_size_limit = {BESIDE_BYTES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def checkpoint(connection: sqlite3.Connection, path: str, *, beyond: int) -> None:
    """Bring what was written into the file itself, once the log beside it has more than `beyond` bytes."""
    try:
        waiting = os.path.getsize(f"{path}-wal")
    except FileNotFoundError:
        return
    if waiting > beyond:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def connect_read_only(path: str) -> sqlite3.Connection:
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


def spelled_out(word: str) -> str:
    """A word for a TEXT column, which takes no undecodable bytes: they stand in it as `\\udcff`."""
    return word if word.isascii() else word.encode("utf-8", "backslashreplace").decode()
