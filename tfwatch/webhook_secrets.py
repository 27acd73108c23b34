"""The file with the secrets of those who call in: read, judged, and read again whenever it changes.

A JSON object, integration → its keys: `secret` signs bodies, `path_token` stands in the address of callers that can't
sign; `previous_secret` and `previous_path_token` are valid until their `valid_until`. The flat form that other programs
write, `{"integration": "secret"}`, is read too. Secrets are in no message and in no `repr`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal

from tfwatch.language import tr
from tfwatch.model import parse_rfc3339

Kind = Literal["secret", "path_token"]

KINDS: Final[tuple[Kind, ...]] = ("secret", "path_token")
INTEGRATION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What an integration may be called."""

FORBIDDEN_MODE: Final = 0o027
"""Of a file with secrets others may have nothing, and its group may only read: 0600 or 0640."""

_LARGEST: Final = 1 << 20
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One secret. `valid_until` None: it is the current one."""

    value: str = field(repr=False)
    created_at: datetime
    valid_until: datetime | None = None

    @property
    def fingerprint(self) -> str:
        """What tells it from others and gives nothing away: the first 16 digits of its SHA-256."""
        return fingerprint(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """All that one integration may prove itself with: of each kind the current one first, then the previous one."""

    secret: tuple[Secret, ...] = ()
    path_token: tuple[Secret, ...] = ()

    def valid(self, kind: Kind, now: datetime) -> tuple[str, ...]:
        """The values of a kind that are valid at a moment."""
        found: tuple[Secret, ...] = getattr(self, kind)
        return tuple(secret.value for secret in found if secret.valid_until is None or now < secret.valid_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something about the secrets that a person should mend. `message` says all. `integration` '': about the file.

    `kind`: `exposed` or `unusable` turn all webhooks off; `old` only asks for a new secret.
    """

    kind: Literal["exposed", "unusable", "old"]
    integration: str
    message: str


class SecretsUnusable(Exception):
    """The file can't be used, so all webhooks are off. `trouble` says why, and what to do."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble


def fingerprint(value: str) -> str:
    """The first 16 hex digits of a secret's SHA-256."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def load(path: str) -> Mapping[str, Keys]:
    """Integration → keys; empty when there is no such file. Raises `SecretsUnusable`."""
    raw, changed_at = read_raw(path)
    return MappingProxyType({name: _keys(path, name, entry, changed_at) for name, entry in raw.items()})


def read_raw(path: str) -> tuple[dict[str, Any], datetime]:
    """The file's JSON object as it stands, and when it was last changed. Raises `SecretsUnusable`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}, datetime.now(UTC)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise _unusable(path, tr("is no regular file"))
        if info.st_mode & FORBIDDEN_MODE:
            raise _exposed(path, info.st_mode)
        with os.fdopen(os.dup(fd), "rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    finally:
        os.close(fd)
    return _parsed(path, text), datetime.fromtimestamp(info.st_mtime, UTC)


def troubles(path: str, *, now: datetime, max_age_days: int) -> tuple[Trouble, ...]:
    """All that a person should mend about the secrets: for alerts, `doctor` and `status`. Reads the file."""
    try:
        found = load(path)
    except SecretsUnusable as error:
        return (error.trouble,)
    return too_old(found, now=now, max_age_days=max_age_days)


def too_old(found: Mapping[str, Keys], *, now: datetime, max_age_days: int) -> tuple[Trouble, ...]:
    """The secrets in use for which it is time to make new ones."""
    old = []
    for name, keys in sorted(found.items()):
        for kind in KINDS:
            days = max(((now - secret.created_at) // _DAY for secret in getattr(keys, kind)[:1]), default=0)
            if days > max_age_days:
                old.append(Trouble(kind="old", integration=name, message=_told_old(name, kind, days, max_age_days)))
    return tuple(old)


class SecretsFile:
    """The file as it is now: a change counts with the next call. Thread-safe."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._seen: object = ()
        self._keys: Mapping[str, Keys] = {}
        self._trouble: Trouble | None = None

    def keys(self) -> Mapping[str, Keys]:
        """Integration → keys. Raises `SecretsUnusable`."""
        with self._lock:
            seen = _look(self.path)
            if seen != self._seen:
                self._seen = seen
                try:
                    self._keys, self._trouble = load(self.path), None
                except SecretsUnusable as error:
                    self._trouble = error.trouble
            if self._trouble is not None:
                raise SecretsUnusable(self._trouble)
            return self._keys


def _look(path: str) -> object:
    """What changes whenever the file, its owner or its mode does."""
    try:
        info = os.stat(path)
    except OSError as error:
        return error.errno
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode


def _parsed(path: str, text: bytes) -> dict[str, Any]:
    if len(text) > _LARGEST:
        raise _unusable(path, tr("is larger than a file with secrets can be"))
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise _unusable(path, tr("is no JSON")) from None
    if not isinstance(raw, dict) or not all(INTEGRATION.fullmatch(name) for name in raw):
        raise _unusable(path, tr("is no JSON object with one key for each integration"))
    return raw


def _keys(path: str, name: str, entry: object, changed_at: datetime) -> Keys:
    if isinstance(entry, str):
        entry = {"secret": entry}
    if not isinstance(entry, dict):
        raise _wrong(path, name)
    found: dict[Kind, tuple[Secret, ...]] = {}
    for kind in KINDS:
        slots = (entry.get(kind), entry.get(f"previous_{kind}"))
        found[kind] = tuple(
            _secret(path, name, slot, changed_at, is_previous=n > 0) for n, slot in enumerate(slots) if slot is not None
        )
    return Keys(secret=found["secret"], path_token=found["path_token"])


def _secret(path: str, name: str, slot: object, changed_at: datetime, *, is_previous: bool) -> Secret:
    """One secret; without a date it is as old as the file. A previous one without an end is over."""
    if isinstance(slot, str):
        slot = {"value": slot}
    if not isinstance(slot, dict) or not isinstance(value := slot.get("value"), str) or not value:
        raise _wrong(path, name)
    try:
        created_at = parse_rfc3339(slot["created_at"]) if "created_at" in slot else changed_at
        valid_until = parse_rfc3339(slot["valid_until"]) if "valid_until" in slot else None
    except (TypeError, ValueError, OverflowError):
        raise _wrong(path, name) from None
    if is_previous:
        valid_until = valid_until or created_at
    return Secret(value=value, created_at=created_at, valid_until=valid_until)


# --- told ---------------------------------------------------------------------------------------------------------


def _exposed(path: str, mode: int) -> SecretsUnusable:
    message = tr(
        "{file}: others can read or change it (mode {mode}), so all webhooks are off; deliveries go on. What stands in "
        "it may be known to others: chmod 640 '{file}', then make new secrets: tfwatch rotate-secret INTEGRATION",
        file=path, mode=f"{stat.S_IMODE(mode):04o}",
    )  # fmt: skip
    return SecretsUnusable(Trouble(kind="exposed", integration="", message=message))


def _unusable(path: str, why: str) -> SecretsUnusable:
    message = tr("{file}: {why}, so all webhooks are off; deliveries go on: mend the file", file=path, why=why)
    return SecretsUnusable(Trouble(kind="unusable", integration="", message=message))


def _wrong(path: str, name: str) -> SecretsUnusable:
    return _unusable(path, tr("what it has for {integration} is no secret", integration=name))


def _told_old(name: str, kind: Kind, days: int, limit: int) -> str:
    if kind == "path_token":
        return tr(
            "webhooks: the path token of {integration} is {days} days old, more than webhooks.max_secret_age_days "
            "({limit}): tfwatch rotate-secret {integration} --path-token",
            integration=name, days=days, limit=limit,
        )  # fmt: skip
    return tr(
        "webhooks: the secret of {integration} is {days} days old, more than webhooks.max_secret_age_days ({limit}): "
        "tfwatch rotate-secret {integration}",
        integration=name, days=days, limit=limit,
    )  # fmt: skip
