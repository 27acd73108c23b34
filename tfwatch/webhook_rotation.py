"""A new secret for one integration, written so that a running daemon sees the old file or the new one, never half."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tfwatch import disk
from tfwatch.model import rfc3339
from tfwatch.webhook_secrets import FORBIDDEN_MODE, Kind, Secret, fingerprint, load, read_raw

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What was done: the new secret and, while it stays valid, the one before it.

    `dropped`: the fingerprint of a still valid earlier one that had to go: only two are valid at once. '' for none.
    """

    integration: str
    kind: Kind
    path: str
    value: str = field(repr=False)
    created_at: datetime
    previous: Secret | None
    dropped: str

    @property
    def fingerprint(self) -> str:
        """The new secret's."""
        return fingerprint(self.value)


def rotate(path: str, integration: str, *, kind: Kind, overlap: timedelta, now: datetime, like: str) -> Rotation:
    """Make a new secret; the old one stays valid for `overlap`. The whole file is brought to the form with dates.

    A new file belongs to whom `like` belongs, and its group may read it if it may read that one. An old one keeps
    owner and mode. On disk before this returns. Raises `SecretsUnusable` and OSError: then nothing has changed.
    """
    path = os.path.realpath(path)
    with _alone(os.path.dirname(path)):
        raw, changed_at = read_raw(path)
        known = load(path)
        for name, entry in raw.items():
            raw[name] = _dated(entry, changed_at)
        entry = raw.setdefault(integration, {})
        before = getattr(known.get(integration), kind, ())
        value = _new_value(kind)
        current = next((secret for secret in before if secret.valid_until is None), None)
        dropped = next((s.fingerprint for s in before if s.valid_until is not None and now < s.valid_until), "")
        previous = None
        entry.pop(f"previous_{kind}", None)
        if current is not None and overlap > timedelta(0):
            previous = Secret(value=current.value, created_at=current.created_at, valid_until=now + overlap)
            entry[f"previous_{kind}"] = _slot(previous)
        entry[kind] = _slot(Secret(value=value, created_at=now))
        _replace(path, json.dumps(raw, indent=2) + "\n", like)
    return Rotation(
        integration=integration, kind=kind, path=path, value=value, created_at=now, previous=previous, dropped=dropped
    )


def _new_value(kind: Kind) -> str:
    """Standard Webhooks' form for a secret; letters that need no quoting in an address for a token."""
    if kind == "path_token":
        return secrets.token_urlsafe(_SECRET_BYTES)
    return f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"


def _slot(secret: Secret) -> dict[str, str]:
    slot = {"value": secret.value, "fingerprint": secret.fingerprint, "created_at": rfc3339(secret.created_at)}
    return slot if secret.valid_until is None else slot | {"valid_until": rfc3339(secret.valid_until)}


def _dated(entry: Any, changed_at: datetime) -> dict[str, Any]:
    """An entry in the form with dates: what had none is as old as the file was."""
    dated: dict[str, Any] = {"secret": entry} if isinstance(entry, str) else dict(entry)
    for key in ("secret", "path_token", "previous_secret", "previous_path_token"):
        slot = dated.get(key)
        if slot is not None:
            slot = {"value": slot} if isinstance(slot, str) else slot
            dated[key] = {"fingerprint": fingerprint(slot["value"]), "created_at": rfc3339(changed_at)} | slot
    return dated


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """One rotation at a time: two at once would each lose the other's secret."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _replace(path: str, text: str, like: str) -> None:
    owner = _look(path)
    mode = stat.S_IMODE(owner.st_mode) if owner else None
    if owner is None:
        owner = _look(like)
        mode = 0o600 | (stat.S_IMODE(owner.st_mode) & 0o040 if owner else 0)
    assert mode is not None
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{secrets.token_hex(6)}.tmp")
    fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with disk.about(temporary), os.fdopen(fd, "w", encoding="utf-8") as file:
            mine = os.fstat(fd)
            if owner is not None and (mine.st_uid, mine.st_gid) != (owner.st_uid, owner.st_gid):
                os.fchown(fd, owner.st_uid, owner.st_gid)
            os.fchmod(fd, mode & ~FORBIDDEN_MODE)
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    disk.sync_folder(os.path.dirname(path))


def _look(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
