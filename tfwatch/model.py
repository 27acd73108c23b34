"""The words of the house as types: pure, frozen, no I/O.

A package is one ZIP, known by its SHA-256. A fact is one thing that happened to it; once numbered, dated
and chained it is a `DeliveryRecord`: one row of log.csv and one row of the sheet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import BinaryIO, Final, NewType

Sha256 = NewType("Sha256", str)
"""A package's identity: 64 lower-case hex digits."""

TraceId = NewType("TraceId", str)
"""What follows one package through every system: from its manifest.json, else 32 new hex digits."""

OrderId = NewType("OrderId", str)
"""The receipt: the id under which the transcription service accepted a package."""

ExecId = NewType("ExecId", str)
"""One run of the daemon: `20251113T103533Z_MSJTU6`."""


class Stage(StrEnum):
    """Where a ZIP lies. The folder is the state."""

    OUTBOX = "outbox"
    CLAIMED = "claimed"
    SUBMITTED = "submitted"
    DELIVERED = "delivered"
    REJECTED = "rejected"


class Event(StrEnum):
    """What a row of log.csv says happened."""

    ATTEMPTED = "ATTEMPTED"
    ACCEPTED = "ACCEPTED"
    COMPLETED = "COMPLETED"
    REFUSED = "REFUSED"
    DEFERRED = "DEFERRED"
    UNKNOWN = "UNKNOWN"
    REQUEUED = "REQUEUED"
    MOVED = "MOVED"
    BACKED_UP = "BACKED_UP"
    BACKUP_FAILED = "BACKUP_FAILED"
    ROLLBACK = "ROLLBACK"
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    WEBHOOK = "WEBHOOK"
    PRUNED = "PRUNED"
    RECOVERED = "RECOVERED"


class Status(StrEnum):
    """The tag people filter the log and the sheet by."""

    WAITING = "waiting"
    SENDING = "sending"
    SUBMITTED = "submitted"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Actor(StrEnum):
    """Who did it."""

    TFWATCH = "tfwatch"
    OPERATOR = "operator"


class Verdict(StrEnum):
    """What a service says of an order, in three words."""

    PENDING = "pending"
    COMPLETED = "completed"
    REFUSED = "refused"


VERDICTS: Final[Mapping[str, Verdict]] = MappingProxyType(
    dict.fromkeys(("queued", "received", "submitted", "accepted", "processing", "in_progress"), Verdict.PENDING)
    | dict.fromkeys(("delivered", "completed", "complete", "done", "transcribed"), Verdict.COMPLETED)
    | dict.fromkeys(("rejected", "refused", "failed", "cancelled", "canceled"), Verdict.REFUSED)
)
"""What a service's status word means, in small letters. A word that isn't here is pending, with a warning."""


def verdict_of(word: str) -> Verdict:
    """A status word in three words; a missing or unknown one is pending."""
    return VERDICTS.get(word.casefold(), Verdict.PENDING)


class Integration(StrEnum):
    """A service outside that can be switched on and off."""

    GOTRANSCRIPT = "gotranscript"
    S3 = "s3"
    SHEETS = "sheets"


class Profile(StrEnum):
    """How a transcription service is spoken to."""

    DELIVERIES = "deliveries"
    GOTRANSCRIPT_V4 = "gotranscript-v4"


_JOB_VERSION = re.compile(r"\A(?P<job>.+)_v(?P<version>\d+(?:\.\d+)*)\Z", re.DOTALL | re.ASCII)
_TRACE_ID = re.compile(r"[!-~]{1,128}")
_TWIN = re.compile(r"~\d+\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One ZIP whose bytes were read to the end: who it is, under the name fixed at its claim.

    `name` may hold undecodable bytes as surrogate escapes (`os.fsdecode`). `bytes` counts octets.
    """

    name: str
    sha256: Sha256
    bytes: int
    trace_id: TraceId

    @property
    def job_id(self) -> str:
        """`job` of `{job}_v{version}.zip`, else the whole stem; a trailing `~N` is not part of it."""
        return self._job()[0]

    @property
    def version(self) -> str:
        """`version` of `{job}_v{version}.zip`, else `1`."""
        return self._job()[1]

    def _job(self) -> tuple[str, str]:
        return job_version(self.name) or (_stem(self.name), "1")


def job_version(name: str) -> tuple[str, str] | None:
    """`job` and `version` of a package called `{job}_v{version}.zip`; None for one that isn't called so."""
    found = _JOB_VERSION.match(_stem(name))
    return (found["job"], found["version"]) if found else None


def _stem(name: str) -> str:
    return _TWIN.sub("", name[:-4]) or name[:-4]


def sound_trace_id(value: object) -> TraceId | None:
    """A trace id that came from outside: 1 to 128 printing ASCII characters without spaces; None for anything else."""
    return TraceId(value) if isinstance(value, str) and _TRACE_ID.fullmatch(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that happened, not yet numbered: what a caller hands to the ledger.

    A fact about a package carries its name and SHA-256; a fact about an integration carries neither.
    `from_stage`/`to_stage` None: an empty cell (nowhere, or not about a place). `duration_ms`: milliseconds.
    """

    event: Event
    package: str = ""
    sha256: str = ""
    trace_id: str = ""
    bytes: int | None = None
    from_stage: Stage | None = None
    to_stage: Stage | None = None
    attempt: int | None = None
    order_id: str = ""
    status: Status | None = None
    code: int | None = None
    duration_ms: int | None = None
    actor: Actor = Actor.TFWATCH
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord(Fact):
    """One fact on disk = one row of log.csv = one row of the sheet."""

    seq: int
    at: datetime
    exec_id: str
    chain: str

    @classmethod
    def of(cls, fact: Fact, *, seq: int, at: datetime, exec_id: str, chain: str) -> DeliveryRecord:
        """Number, date and chain a fact."""
        return cls(seq=seq, at=at, exec_id=exec_id, chain=chain, **{name: getattr(fact, name) for name in FACT_FIELDS})


FACT_FIELDS = tuple(field.name for field in fields(Fact))


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Which service an order was given to: it is asked about there and nowhere else."""

    profile: Profile
    base_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A service's promise: the order it opened for a package.

    `tries`: HTTP requests this attempt took, at least 1. `word`: the service's own status word.
    """

    order_id: OrderId
    verdict: Verdict
    word: str = ""
    message: str = ""
    code: int | None = None
    tries: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """What a service answers when asked about an order."""

    verdict: Verdict
    word: str = ""
    message: str = ""
    code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One delivery attempt: what is sent, under which key, and how it may be stopped.

    `open_zip` gives a new reader at byte 0 each time. `maybe_sent`: an earlier try's outcome is unknown, so the
    service may already hold this package. `known_order` says whether an order id is already in the log (a lookup
    must not take such an order for this package's). `stopping` is asked between chunks; `progress` is told the
    bytes sent so far. `source_url`: a presigned URL of the package, for profiles that fetch it themselves.
    `decided`: a person who knows that an earlier outcome is unknown has asked for it to be sent again.
    """

    package: Package
    open_zip: Callable[[], BinaryIO]
    idempotency_key: str
    maybe_sent: bool
    known_order: Callable[[str], bool]
    stopping: Callable[[], bool]
    progress: Callable[[int], None]
    source_url: str | None = field(default=None, repr=False)
    decided: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One package to be stored under one key, and what is written beside it."""

    package: Package
    key: str
    order_id: str
    open_zip: Callable[[], BinaryIO]
    stopping: Callable[[], bool]
    progress: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """A backup that was read back: its place, its size in bytes, and whether it was there already."""

    bucket: str
    key: str
    bytes: int
    existed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertMessage:
    """What one address is told at once, in plain text. `is_over`: nothing in it is new, it only says what is over."""

    title: str
    body: str
    is_over: bool


# --- the detail cell: facts a program reads back, then words for people ---------------------------------------------

_BARE = re.compile(r"[^\s\"=;]+\Z")
_FACT = re.compile(r'(?P<key>[a-z][a-z0-9_]*)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s"=;]+))(?: |(?=;)|\Z)')


def write_detail(message: str = "", /, **facts: str | int | None) -> str:
    """Write a `detail` cell: `key=value key="two words"; a sentence for people`.

    None values are left out. `read_detail` gives back exactly what went in, whatever the values hold.
    """
    words = []
    for key, value in facts.items():
        if value is not None:
            text = str(value)
            words.append(f"{key}={text if _BARE.match(text) else json.dumps(text, ensure_ascii=False)}")
    head = " ".join(words)
    if not message:
        return head
    if not head:
        return f"; {message}" if _FACT.match(message) or message.startswith(";") else message
    return f"{head}; {message}"


def read_detail(detail: str) -> tuple[Mapping[str, str], str]:
    """Read a `detail` cell back: its facts and its message. A hand-written cell is all message; never raises."""
    facts: dict[str, str] = {}
    at = 0
    while found := _FACT.match(detail, at):
        quoted = found["quoted"]
        try:
            facts[found["key"]] = found["bare"] if quoted is None else json.loads(f'"{quoted}"', strict=False)
        except ValueError:
            return {}, detail
        at = found.end()
    rest = detail[at:]
    if rest.startswith("; "):
        return facts, rest[2:]
    return (facts, "") if not rest else ({}, detail)


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as log.csv writes it: `2025-11-13T10:35:33.120Z`."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """Read such a moment back; raises ValueError."""
    return datetime.fromisoformat(text).astimezone(UTC)
