"""What commands ask of the daemon: small synced files in the spool, taken at once or at the next start."""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
import time
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from tfwatch.model import Integration
from tfwatch.spool.folders import Folders
from tfwatch.spool.names import printable

Command = Literal["requeue", "cancel", "backup", "enable", "disable"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class BadRequest(Exception):
    """A request file that no command of ours wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One command: `requeue` (which may force a second order) and `backup` name packages, the switches an integration.

    `cancel` names files of outbox/, as they lie there; `forced`: of submitted/, too.
    """

    command: Command
    user: str
    names: tuple[str, ...] = ()
    sha256s: tuple[str, ...] = ()
    integration: Integration | None = None
    forced: bool = False
    reason: str = ""


def leave(folders: Folders, request: Request) -> str:
    """Put a request on disk; returns its file's name, which vanishes once it was taken."""
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
    put(folders, name, request)
    return name


def put(folders: Folders, name: str, request: Request) -> None:
    """Put a request on disk under a name, in the place of what stood there."""
    folders.leave_request(name, json.dumps(asdict(request), ensure_ascii=True))


def read(folders: Folders, name: str) -> Request:
    """Read one back; raises `BadRequest`, OSError.

    Whose file it is, that user asked. Only what lies there as the daemon's own says by itself who did: root's commands
    leave it so, and the daemon, what is left of a request.
    """
    try:
        content, owner = folders.read_request(name)
        raw = json.loads(content)
        command = raw["command"]
        if command not in get_args(Command):
            raise ValueError(f"no such command: {command!r}")
        return Request(
            command=command,
            user=str(raw["user"]) if owner in (0, os.geteuid()) else _user_name(owner),
            names=tuple(map(_file_name, raw.get("names", ()))),
            sha256s=tuple(map(_sha256, raw.get("sha256s", ()))),
            integration=Integration(raw["integration"]) if raw.get("integration") else None,
            forced=bool(raw.get("forced")),
            reason=str(raw.get("reason", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadRequest(f"{printable(name)}: not a request of tfwatch's: {error}") from error


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _file_name(name: str) -> str:
    """Raises ValueError for what no file can be called, TypeError for what is no text."""
    if not name or "/" in name or b"\0" in os.fsencode(name):
        raise ValueError(f"no file name: {name!r}")
    return name


def _sha256(digits: str) -> str:
    if not _SHA256.fullmatch(digits):
        raise ValueError(f"no SHA-256: {digits!r}")
    return digits
