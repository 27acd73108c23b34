"""What the checks look at: one spool, the settings that name it, and who runs the daemon there."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from tfwatch.config import Config
from tfwatch.doctor.unit import Unit
from tfwatch.doctor.who import User
from tfwatch.look import Settings
from tfwatch.spool import lock
from tfwatch.spool.folders import Folders


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One spool as the checks see it. `unit`: the installed one, when it runs with these settings."""

    settings: Settings
    folders: Folders
    user: User
    unit: Unit | None

    @property
    def config(self) -> Config:
        return self.settings.config

    @property
    def is_running(self) -> bool:
        """Whether a daemon holds the spool now. Raises PermissionError."""
        return lock.is_held(self.folders.lock)

    @property
    def pid(self) -> int | None:
        """The process that holds it; None when that can't be read."""
        try:
            with open(self.folders.lock, "rb") as file:
                return int(file.read(32))
        except (OSError, ValueError):
            return None

    def give(self, path: str) -> str:
        """The command that lets the daemon's user work with a file or folder."""
        rights = "u+rwx" if os.path.isdir(path) else "u+rw"
        quoted = shlex.quote(path)
        owner = "" if _owner(path) == self.user.uid else f"sudo chown {self.user.name}:{self.user.group} {quoted} && "
        return f"{owner}sudo chmod {rights} {quoted}"


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None
