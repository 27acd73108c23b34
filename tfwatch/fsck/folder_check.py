"""The folders against the log: is each package where its last fact says, and is nothing else there?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tfwatch.fsck.difference import Difference, FinishMove, Progress, RemoveReason, WriteReason
from tfwatch.fsck.tally import Entry, Tally
from tfwatch.model import Event, Sha256, Stage, read_detail
from tfwatch.spool.folders import Folders
from tfwatch.spool.intake import hash_file
from tfwatch.spool.listing import NotAPackage
from tfwatch.spool.names import printable, reason_name
from tfwatch.spool.places import REMOVING

_SETTLED: Final = (Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED)
_ORDER: Final = tuple(Stage)
_OURS: Final = re.compile(r"(?:\.zip|~[0-9a-f]{8})\.reason\.txt\Z", re.IGNORECASE)
"""A reason file that we may have written; somebody's own notes are left alone."""


@dataclass(slots=True)
class Shown:
    """What lies in the folders now: sizes by name, oddities, which folders are missing, what is on its way out."""

    sizes: dict[Stage, dict[str, int]] = field(default_factory=dict)
    oddities: list[tuple[Stage, str, str]] = field(default_factory=list)
    missing: list[Stage] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    removing: set[tuple[Stage, str]] = field(default_factory=set)


def look(folders: Folders) -> Shown:
    """List every folder once. Raises OSError for one that can't be read."""
    shown = Shown()
    for stage in Stage:
        shown.sizes[stage] = {}
        try:
            listing = folders.list(stage)
        except (FileNotFoundError, NotADirectoryError):
            shown.missing.append(stage)
            continue
        shown.sizes[stage] = {entry.name: entry.size for entry in listing.entries}
        shown.oddities += [(stage, name, kind) for name, kind in listing.oddities]
    if Stage.REJECTED not in shown.missing:
        shown.reasons = folders.reasons()
    shown.removing = set(folders.taken_out())
    return shown


class FolderCheck:
    """One comparison. `running`: a daemon works there, so what it holds in claimed/ is its own affair."""

    def __init__(self, folders: Folders, tally: Tally, *, running: bool) -> None:
        self._folders = folders
        self._tally = tally
        self._running = running
        self._shown = look(folders)
        self._there: set[tuple[Stage, str]] = set()
        """Files that are some package's: where the log has it, or where it got to instead."""
        self._in_place: list[tuple[Stage, str, str]] = []
        self._missed: list[tuple[str, str, Entry]] = []

    def differences(self) -> Iterator[Difference]:
        """All but what only the bytes of the ZIPs can tell."""
        for stage in self._shown.missing if self._tally.packages else []:
            yield Difference(
                kind="folder",
                what=f"the folder is missing, and with it every package the log has in {stage}/",
                where=f"{stage}/",
                mend="put it back or mount it; an empty one is made at the next start",
            )
        yield from self._sizes()
        yield from filter(None, (self._misplaced(*missed) for missed in self._missed))
        yield from self._strangers()
        yield from self._removals()
        yield from self._reasons()

    def contents(self, progress: Progress) -> Iterator[Difference]:
        """What is wrong with the bytes of the files that are in their places. After `differences`."""
        progress.begin("hashing ZIPs, bytes", sum(self._shown.sizes[stage][name] for stage, name, _ in self._in_place))
        for stage, name, sha256 in self._in_place:
            if self._running and stage not in _SETTLED:
                continue
            try:
                found = hash_of(self._folders, stage, name, progress)
            except FileNotFoundError:
                continue  # the daemon or a person moved it just now
            except (OSError, NotAPackage) as error:
                said = getattr(error, "strerror", "") or str(error)
                yield _of_file(stage, name, f"it can't be read: {said}", "let the daemon's user read it")
                continue
            if found != sha256:
                yield _of_file(stage, name, f"its content is not the one that was logged ({sha256[:12]}…)", _RESTORE)

    # --- where the log has them --------------------------------------------------------------------------------------

    def _sizes(self) -> Iterator[Difference]:
        sizes = self._shown.sizes
        for (sha256, name), entry in self._tally.packages.items():
            stage = entry.stage
            if stage is None:
                continue
            if stage is Stage.OUTBOX and name not in sizes[stage] and name in sizes[Stage.CLAIMED]:
                stage = Stage.CLAIMED  # a claim is no fact
            if name not in sizes[stage]:
                self._missed.append((sha256, name, entry))
                continue
            self._there.add((stage, name))
            if sizes[stage][name] == entry.bytes:
                self._in_place.append((stage, name, sha256))
            elif stage is not Stage.OUTBOX:
                # In the outbox it is somebody's new file of the same name: the daemon will see what it is.
                yield _of_file(stage, name, f"it has {sizes[stage][name]} bytes, by the log {entry.bytes}", _RESTORE)

    def _misplaced(self, sha256: str, name: str, entry: Entry) -> Difference | None:
        assert entry.stage is not None
        if entry.stage in self._shown.missing or (entry.stage, name) in self._shown.removing:
            return None
        for stage in _ORDER:
            if name in self._shown.sizes[stage] and (stage, name) not in self._there:
                self._there.add((stage, name))
                same = self._shown.sizes[stage][name] == entry.bytes
                return self._elsewhere(sha256, name, entry, stage, is_same_size=same)
        return self._gone(name, entry)

    def _elsewhere(self, sha256: str, name: str, entry: Entry, stage: Stage, *, is_same_size: bool) -> Difference:
        assert entry.stage is not None
        is_ours = stage is Stage.CLAIMED or (
            stage is Stage.SUBMITTED and entry.event in (Event.COMPLETED, Event.REFUSED)
        )
        if is_ours and is_same_size and entry.stage in _SETTLED:
            reason = reason_text(name, entry) if entry.stage is Stage.REJECTED else None
            action = FinishMove(
                name=name, sha256=Sha256(sha256), source=stage, target=entry.stage, reason=reason
            )  # fmt: skip
            mend = f"tfwatch fsck --repair, or start the daemon: it is moved to {entry.stage}/"
            return Difference(
                kind="folder", what=f"a move to {entry.stage}/ was logged and not finished", where=_at(stage, name),
                mend=mend, action=action,
            )  # fmt: skip
        follows = "the daemon follows in a moment" if self._running else "the daemon logs that at its next start"
        return _of_file(stage, name, f"the log has it in {entry.stage}/: somebody moved it", f"nothing: {follows}")

    def _gone(self, name: str, entry: Entry) -> Difference:
        assert entry.stage is not None
        copy = f"its backup is {printable(entry.backup_key)}; " if entry.backed_up and entry.backup_key else ""
        logged = "the daemon logs it" if self._running else "the daemon logs it at its next start"
        mend = f"nothing, if it was taken away on purpose: {logged}; else {copy}put its ZIP back there"
        return _of_file(entry.stage, name, "it is in no folder", mend)

    # --- what the log doesn't have there -----------------------------------------------------------------------------

    def _strangers(self) -> Iterator[Difference]:
        for stage in _SETTLED if self._running else (Stage.CLAIMED, *_SETTLED):
            for name in self._shown.sizes[stage]:
                if (stage, name) in self._there:
                    continue
                if stage is Stage.CLAIMED:
                    mend = "nothing: at its next start the daemon puts it back into outbox/"
                    yield _of_file(stage, name, "it was taken into work and nothing is logged of that", mend)
                else:
                    follows = "in a moment" if self._running else "at its next start"
                    mend = f"nothing: the daemon reads it and logs it {follows}"
                    yield _of_file(stage, name, f"the log has no such package in {stage}/: somebody put it there", mend)
        for stage, name, kind in self._shown.oddities:
            yield _of_file(stage, name, f"it is a {kind}, not a regular file", "move it away; drop the ZIP itself")

    def _removals(self) -> Iterator[Difference]:
        for stage, name in sorted(self._shown.removing):
            what = f"retention was removing it from {stage}/ when the daemon ended"
            mend = "nothing: the next start finishes that if it was logged, and puts it back if it wasn't"
            yield Difference(kind="folder", what=what, where=printable(f"{REMOVING[stage]}/{name}"), mend=mend)

    def _reasons(self) -> Iterator[Difference]:
        rejected = self._shown.sizes[Stage.REJECTED]
        belonging = {reason_name(name) for name in rejected}
        for _, name, entry in self._tally.at(Stage.REJECTED):
            if name in rejected and reason_name(name) not in self._shown.reasons:
                yield Difference(
                    kind="reason", what="the file that says why it lies there is missing",
                    where=_at(Stage.REJECTED, name), mend="tfwatch fsck --repair writes it; tfwatch why NAME tells it",
                    action=WriteReason(name=name, text=reason_text(name, entry)),
                )  # fmt: skip
        for file in self._shown.reasons - belonging:
            if _OURS.search(file):
                yield Difference(
                    kind="reason", what="its package doesn't lie beside it any more", where=_at(Stage.REJECTED, file),
                    mend="tfwatch fsck --repair removes it", action=RemoveReason(file=file),
                )  # fmt: skip


_RESTORE: Final = "keep a copy if it is needed, then put back the ZIP that was delivered, from its backup or its maker"


def hash_of(folders: Folders, stage: Stage, name: str, progress: Progress | None = None) -> Sha256:
    """The SHA-256 of a file in the spool. Raises OSError, `NotAPackage`."""
    fd = folders.open(stage, name)
    done = 0

    def told(read: int) -> None:
        nonlocal done
        if progress is not None:
            progress.advance(read - done)
        done = read

    try:
        return hash_file(fd, stopping=lambda: False, progress=told)
    finally:
        os.close(fd)


def reason_text(name: str, entry: Entry) -> str:
    """What a reason file says when only the log is left to ask."""
    _, message = read_detail(entry.detail)
    return f"{printable(name)}: {message or 'no reason given'}\n\nThe whole story: tfwatch why {printable(name)}\n"


def _of_file(stage: Stage, name: str, what: str, mend: str) -> Difference:
    return Difference(kind="folder", what=what, where=_at(stage, name), mend=mend)


def _at(stage: Stage, name: str) -> str:
    return f"{stage}/{printable(name)}"
