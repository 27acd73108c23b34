"""One fact as one line of log.csv, and back. Pure: no file is touched here.

A line is `row + "," + chain + "\\r\\n"`, UTF-8, quoted as RFC 4180 asks and only where it must be.
`chain` is `sha256(previous chain + "\\n" + row)`, so no row can be edited, removed or reordered unnoticed.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from tfwatch.model import Actor, DeliveryRecord, Event, Fact, Stage, Status, rfc3339

COLUMNS: Final = (
    *("seq", "at", "exec_id", "trace_id", "event", "package", "sha256", "bytes", "from_stage", "to_stage"),
    *("attempt", "order_id", "status", "code", "duration_ms", "actor", "detail", "chain"),
)
HEADER: Final = ",".join(COLUMNS).encode() + b"\r\n"
"""The first line of log.csv, with its line end."""

GENESIS: Final = hashlib.sha256(HEADER.removesuffix(b"\r\n")).hexdigest()
"""What the first row chains onto."""

CHAIN_BYTES: Final = 64
MAX_ROW_BYTES: Final = 128 * 1024
"""A line's length with its end, at most. Python's csv module takes no longer cell by default."""

_TAIL_BYTES: Final = len(",") + CHAIN_BYTES + len("\r\n")
_MAX_BODY_BYTES: Final = MAX_ROW_BYTES - 1024
_BODY_COMMAS: Final = len(COLUMNS) - 5


class BadRow(ValueError):
    """A line that is no row of log.csv; the message says what is wrong with it."""


# --- text cells -----------------------------------------------------------------------------------------------------

_UNSAFE: Final = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ESCAPED: Final = re.compile(r"(?P<bytes>(?:\\x[0-9a-f]{2})+)|\\u(?P<unit>d[89a-f][0-9a-f]{2})|\\(?P<backslash>\\?)")
_SUSPECT: Final = ("=", "+", "-", "@", "'")
_RUNS: Final = re.compile(r"'*[=+\-@]")
_RUNS_NOT: Final = re.compile(r"'+[=+\-@]")


def escape(text: str) -> str:
    """Write any text as one line that no spreadsheet runs; `unescape` gives back exactly this text.

    Control characters, line separators and undecodable bytes (as `os.fsdecode` gives them) become `\\xNN` for each of
    their UTF-8 or raw bytes, a backslash `\\\\`. What would be a formula gets a leading `'`.
    A surrogate that stands for no byte of a file name (JSON can hold one) becomes `\\uNNNN`.
    """
    if not text.isprintable() or "\\" in text:
        text = _UNSAFE.sub(_as_bytes if _came_from_bytes(text) else _as_units, text)
    return "'" + text if text.startswith(_SUSPECT) and _RUNS.match(text) else text


def unescape(cell: str) -> str:
    """Give back the text that `escape` wrote; raises ValueError when it can't have written this."""
    if cell.startswith("'") and _RUNS_NOT.match(cell):
        cell = cell[1:]
    return _ESCAPED.sub(_unescaped, cell) if "\\" in cell else cell


def _came_from_bytes(text: str) -> bool:
    """Whether every surrogate in it is an undecodable byte: only then do its bytes give this very text back."""
    try:
        return text == text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _as_bytes(found: re.Match[str]) -> str:
    if found[0] == "\\":
        return "\\\\"
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))


def _as_units(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}" if _SURROGATE.match(found[0]) else _as_bytes(found)


def _unescaped(found: re.Match[str]) -> str:
    if found["bytes"]:
        return bytes.fromhex(found["bytes"].replace("\\x", "")).decode("utf-8", "surrogateescape")
    if found["unit"]:
        return chr(int(found["unit"], 16))
    if found["backslash"]:
        return "\\"
    raise ValueError("a cell holds a backslash that begins no escape")


# --- a row as the sheet shows it -------------------------------------------------------------------------------------

ERASED: Final = "erased"
"""What a person writes over a cell of the sheet that names somebody; docs/PRIVACY.md tells when."""

_MAY_BE_ERASED: Final = frozenset(map(COLUMNS.index, ("trace_id", "package", "order_id", "detail")))


def shows(shown: Sequence[str], meant: Sequence[str]) -> bool:
    """Whether a row of the sheet shows a row of the log, cell for cell; what can name somebody may be `erased`."""
    if tuple(shown) == tuple(meant):
        return True
    return len(shown) == len(meant) and all(
        there == cell or (there == ERASED and column in _MAY_BE_ERASED)
        for column, (there, cell) in enumerate(zip(shown, meant, strict=True))
    )


# --- a fact as a line -----------------------------------------------------------------------------------------------


def cells(record: DeliveryRecord) -> tuple[str, ...]:
    """The 18 cells of a record as they stand in log.csv, before quoting, and in the sheet."""
    return (
        str(record.seq),
        rfc3339(record.at),
        escape(record.exec_id),
        *_fact_cells(record),
        record.chain,
    )


def body(fact: Fact) -> bytes:
    """The part of a row that is known before its turn comes: `trace_id` to `detail`, quoted.

    Raises ValueError for a negative number, and for a row that would pass `MAX_ROW_BYTES`.
    """
    parts = _fact_cells(fact)
    text = ",".join(parts)
    if '"' in text or text.count(",") != _BODY_COMMAS:
        text = ",".join(map(_quoted, parts))
    written = text.encode()
    if len(written) > _MAX_BODY_BYTES:
        raise ValueError(f"a row of {len(written)} bytes is too long for the log (limit {_MAX_BODY_BYTES})")
    return written


def seal(
    fact: Fact, body: bytes, *, seq: int, at: datetime, exec_id: str, previous_chain: str
) -> tuple[DeliveryRecord, bytes]:
    """Number, date and chain a fact whose `body` is written already: its record and its line."""
    head = f"{seq},{rfc3339(at)},{_quoted(escape(exec_id))},"
    row = head.encode() + body
    chain = chained(previous_chain, row)
    # Rows hold milliseconds: the record must be what a reader will find.
    at = at.astimezone(UTC).replace(microsecond=at.microsecond // 1000 * 1000)
    record = DeliveryRecord.of(fact, seq=seq, at=at, exec_id=exec_id, chain=chain)
    return record, b"%b,%b\r\n" % (row, chain.encode())


def encode(fact: Fact, *, seq: int, at: datetime, exec_id: str, previous_chain: str) -> tuple[DeliveryRecord, bytes]:
    """Write a fact as a line: the record a reader will find, and the line with its `\\r\\n`. Raises as `body` does."""
    return seal(fact, body(fact), seq=seq, at=at, exec_id=exec_id, previous_chain=previous_chain)


def chained(previous_chain: str, row: bytes) -> str:
    """The chain of a row, 64 hex digits; `row` is its line up to and without the comma before `chain`."""
    return hashlib.sha256(previous_chain.encode() + b"\n" + row).hexdigest()


def chained_part(line: bytes) -> bytes:
    """The part of a well-formed line that its chain covers."""
    return line[:-_TAIL_BYTES]


def _fact_cells(fact: Fact) -> tuple[str, ...]:
    return (
        escape(fact.trace_id),
        fact.event.value,
        escape(fact.package),
        escape(fact.sha256),
        _number(fact.bytes),
        fact.from_stage.value if fact.from_stage is not None else "",
        fact.to_stage.value if fact.to_stage is not None else "",
        _number(fact.attempt),
        escape(fact.order_id),
        fact.status.value if fact.status is not None else "",
        _number(fact.code),
        _number(fact.duration_ms),
        fact.actor.value,
        escape(fact.detail),
    )


def _number(value: int | None) -> str:
    if value is None:
        return ""
    if value < 0:
        raise ValueError(f"a log cell can't hold the negative number {value}")
    return str(value)


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if '"' in cell or "," in cell else cell


# --- a line as a record ---------------------------------------------------------------------------------------------

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_CHAIN: Final = re.compile(r"[0-9a-f]{64}")
_EVENTS: Final = {event.value: event for event in Event}
_ACTORS: Final = {actor.value: actor for actor in Actor}
_STAGES: Final[dict[str, Stage | None]] = {"": None} | {stage.value: stage for stage in Stage}
_SETTERS: Final = tuple(getattr(DeliveryRecord, column).__set__ for column in COLUMNS)
_STATUSES: Final[dict[str, Status | None]] = {"": None} | {status.value: status for status in Status}


def decode(line: bytes) -> DeliveryRecord:
    """Read one line, with its `\\r\\n`, back; raises `BadRow`. Whether the chain is right is the reader's to check."""
    if not line.endswith(b"\r\n"):
        raise BadRow("its line end is missing")
    parts = _split(line)
    if len(parts) != len(COLUMNS):
        raise BadRow(f"it has {len(parts)} columns where {len(COLUMNS)} belong")
    try:
        # Few rows hold an escape; looking once for the whole line is what makes reading a long log fast.
        return _record([unescape(part) for part in parts] if b"\\" in line or b"'" in line else parts)
    except KeyError as error:
        raise BadRow(f"{error.args[0]!r:.80} is no word of this log") from error
    except ValueError as error:
        raise BadRow(str(error)) from error


def _split(line: bytes) -> list[str]:
    try:
        text = line[:-2].decode()
        return next(csv.reader((text,), strict=True)) if '"' in text else text.split(",")
    except UnicodeDecodeError as error:
        raise BadRow("it is not UTF-8") from error
    except csv.Error as error:
        raise BadRow(f"its quoting is wrong ({error})") from error


def _record(parts: list[str]) -> DeliveryRecord:
    seq, at, exec_id, trace_id, event, package, sha256, size, from_stage = parts[:9]
    to_stage, attempt, order_id, status, code, duration_ms, actor, detail, chain = parts[9:]
    if not _CHAIN.fullmatch(chain):
        raise ValueError("its chain is not 64 hex digits")
    values = (
        *(_count(seq), _moment(at), exec_id, trace_id, _EVENTS[event], package, sha256, _optional(size)),
        *(_STAGES[from_stage], _STAGES[to_stage], _optional(attempt), order_id, _STATUSES[status], _optional(code)),
        *(_optional(duration_ms), _ACTORS[actor], detail, chain),
    )
    # A frozen dataclass's own __init__ takes 40 % of the time it takes to read a row; a log has millions.
    record = object.__new__(DeliveryRecord)
    for set_field, value in zip(_SETTERS, values, strict=True):
        set_field(record, value)
    return record


def _moment(cell: str) -> datetime:
    if not _MOMENT.fullmatch(cell):
        raise ValueError(f"{cell!r:.80} is no moment like 2025-11-13T10:35:33.120Z")
    return datetime.fromisoformat(cell)


def _optional(cell: str) -> int | None:
    return _count(cell) if cell else None


def _count(cell: str) -> int:
    if cell.isascii() and cell.isdigit() and (cell[0] != "0" or cell == "0"):
        return int(cell)
    raise ValueError(f"{cell!r:.80} is no whole number")
