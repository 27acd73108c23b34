"""What fsck finds, in words and as a value, and what would mend it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from tfwatch.model import Sha256, Stage

Kind = Literal["log", "index", "folder", "reason", "backup", "sheet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishMove:
    """Bring a file where its last fact sent it, if it is that content. `reason`: what to say beside it."""

    name: str
    sha256: Sha256
    source: Stage
    target: Stage
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReason:
    """Say beside a rejected package why it lies there."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveReason:
    """Remove a reason file whose package is gone. `file`: its own name."""

    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildIndex:
    """Delete the projection and read the log into a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackUpAgain:
    """Ask the daemon for a new copy of a package."""

    name: str
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteErased:
    """Ask the daemon to log that a backup is gone, too, whose ZIP a person had taken away."""

    name: str
    sha256: Sha256


Action = FinishMove | WriteReason | RemoveReason | RebuildIndex | BackUpAgain | NoteErased


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two things that should agree and don't.

    `what`: what is wrong, in words. `where`: the file, row, object or cell. `mend`: what a person does, or why nothing
    is to be done. `action`: what `--repair` does; None when only a person can tell.
    """

    kind: Kind
    what: str
    where: str
    mend: str
    action: Action | None = None

    @property
    def safe(self) -> bool:
        """Whether `--repair` mends it: without touching the log, deleting a ZIP or sending anything."""
        return self.action is not None


class Progress(Protocol):
    """Who watches while it takes long. Safe to call from several threads."""

    def begin(self, what: str, total: int) -> None:
        """A comparison begins: its name, and how many steps it has."""
        ...

    def advance(self, steps: int = 1) -> None:
        """So many more of them are done."""
        ...
