"""Who the daemon is on this machine: for that user everything is tried."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass

from tfwatch.doctor.finding import Finding, ok, warning
from tfwatch.doctor.unit import Unit
from tfwatch.look import become
from tfwatch.spool.folders import Folders


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One user of this machine. `why`: what says that it is the daemon's."""

    uid: int
    gid: int
    why: str

    @property
    def name(self) -> str:
        return user_name(self.uid)

    @property
    def group(self) -> str:
        try:
            return grp.getgrgid(self.gid).gr_name
        except KeyError:
            return str(self.gid)


def user_name(uid: int) -> str:
    """A user's name; its number when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def daemon_user(folders: Folders, unit: Unit | None) -> User:
    """Whom the daemon runs as: the unit says so, else whose the spool is."""
    if unit is not None:
        try:
            found = pwd.getpwnam(unit.last("User", "root"))
        except KeyError:
            pass  # the check of the unit says so
        else:
            return User(uid=found.pw_uid, gid=_group_of(unit, found.pw_gid), why=f"{unit.path} runs it so")
    for path in (os.path.dirname(folders.lock), folders.root):
        try:
            owner = os.stat(path)
        except OSError:
            continue
        return User(uid=owner.st_uid, gid=owner.st_gid, why=f"{path} is theirs")
    return User(uid=os.geteuid(), gid=os.getegid(), why="nothing names another")


def _group_of(unit: Unit, default: int) -> int:
    try:
        return grp.getgrnam(unit.last("Group")).gr_gid
    except KeyError:
        return default


def take_over(user: User) -> None:
    """Go on as that user where this process may; else everything is tried as whoever it is."""
    if os.geteuid() == 0:
        become(user.uid, user.gid)


def check(user: User) -> Iterator[Finding]:
    """As whom everything was tried. Call after `take_over`."""
    me = os.geteuid()
    if me != user.uid:
        seen = f"tried as {user_name(me)}, but the daemon runs as {user.name} ({user.why})"
        yield warning("user", seen, "sudo tfwatch doctor tries it as that user")
    elif me == 0:
        seen = f"tried as root, as whom the daemon runs ({user.why}): it needs no such power"
        yield warning("user", seen, "give it a user of its own: docs/OPERATIONS.md, First day")
    else:
        yield ok("user", f"tried as {user.name}, as whom the daemon runs ({user.why})")
