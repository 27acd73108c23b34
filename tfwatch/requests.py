"""What commands ask of the daemon: small synced files in the spool, taken at once or at the next start."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass
from typing import Literal

from tfwatch.model import Integration
from tfwatch.spool.folders import Folders

Command = Literal["requeue", "enable", "disable"]


class BadRequest(Exception):
    """A request file that no command of ours wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One command: `requeue` names packages (and may force a second order), the others an integration."""

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
    folders.leave_request(name, json.dumps(asdict(request), ensure_ascii=True))
    return name


def read(folders: Folders, name: str) -> Request:
    """Read one back; raises `BadRequest`, OSError."""
    try:
        raw = json.loads(folders.read_request(name))
        command = raw["command"]
        if command not in ("requeue", "enable", "disable"):
            raise BadRequest(f"{name}: no such command: {command!r}")
        return Request(
            command=command,
            user=str(raw["user"]),
            names=tuple(map(str, raw.get("names", ()))),
            sha256s=tuple(map(str, raw.get("sha256s", ()))),
            integration=Integration(raw["integration"]) if raw.get("integration") else None,
            forced=bool(raw.get("forced")),
            reason=str(raw.get("reason", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"{name}: not a request of tfwatch's: {error}") from error
