"""Mend what is safe to mend. Never: edit the log, delete a ZIP, send anything."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

from tfwatch.ask import leave
from tfwatch.fsck.difference import (
    Action,
    BackUpAgain,
    Difference,
    FinishMove,
    NoteErased,
    Progress,
    RebuildIndex,
    RemoveReason,
    WriteReason,
)
from tfwatch.fsck.folder_check import hash_of
from tfwatch.ledger import database
from tfwatch.look import Unavailable, View
from tfwatch.requests import Request
from tfwatch.spool import lock
from tfwatch.spool.folders import Folders
from tfwatch.spool.listing import NotAPackage
from tfwatch.spool.names import printable

_STOP_FIRST: Final = (
    "the daemon runs and owns this: stop it first (systemctl stop tfwatch), then tfwatch fsck --repair, then start it"
)

_AGAIN: Final = ("the backup is missing or another object", "stores it")
_ERASED: Final = ("a person had taken the ZIP away, and the backup is gone, too", "logs it")

Outcome = tuple[Difference, bool, str]
"""A difference, whether it is mended, and what was done or why nothing."""


def repair(view: View, differences: Sequence[Difference], progress: Progress, *, user: str) -> list[Outcome]:
    """Mend the safe ones. While a daemon runs only what it can be asked for; the rest is refused, with words."""
    again = [found for found in differences if isinstance(found.action, BackUpAgain)]
    erased = [found for found in differences if isinstance(found.action, NoteErased)]
    ours = [found for found in differences if found.action is not None and found not in (*again, *erased)]
    outcomes = [*_requested(view, again, user, _AGAIN), *_requested(view, erased, user, _ERASED)]
    if ours:
        outcomes += _mended_under_lock(view, ours, progress)
    done = {id(difference) for difference, _, _ in outcomes}
    return [*outcomes, *((found, False, "") for found in differences if id(found) not in done)]


def _mended_under_lock(view: View, ours: Sequence[Difference], progress: Progress) -> list[Outcome]:
    if view.running:
        return [(found, False, _STOP_FIRST) for found in ours]
    try:
        with lock.hold(view.folders.lock):
            return [
                (found, *_mended(view.folders, found.action, progress)) for found in ours if found.action is not None
            ]
    except lock.Locked:
        return [(found, False, _STOP_FIRST) for found in ours]


def _mended(folders: Folders, action: Action, progress: Progress) -> tuple[bool, str]:
    try:
        return _mend(folders, action, progress)
    except (OSError, NotAPackage) as error:
        return False, f"not mended: {getattr(error, 'strerror', None) or error}"


def _mend(folders: Folders, action: Action, progress: Progress) -> tuple[bool, str]:
    match action:
        case FinishMove():
            return _finish(folders, action)
        case WriteReason():
            folders.write_reason(action.name, action.text)
            return True, "written"
        case RemoveReason():
            folders.remove_reason_file(action.file)
            return True, "removed"
        case RebuildIndex():
            _rebuild(folders, progress)
            return True, "made anew from the log"
        case BackUpAgain() | NoteErased():
            return False, ""


def _finish(folders: Folders, move: FinishMove) -> tuple[bool, str]:
    """What lies in claimed/ is told by its content, never by its name."""
    if hash_of(folders, move.source, move.name) != move.sha256:
        return False, "not moved: its content is not the one that was logged"
    if folders.is_taken(move.target, move.name):
        return False, f"not moved: a file of that name lies in {move.target}/"
    if move.reason is not None:
        folders.write_reason(move.name, move.reason)
    folders.move(move.source, move.name, move.target)
    folders.sync(move.source, move.target)
    return True, f"moved to {move.target}/"


def _rebuild(folders: Folders, progress: Progress) -> None:
    # The daemon's own way, so that it finds what it would have made.
    from tfwatch.app import anew_if_long, catch_up, open_index

    progress.begin("making the index anew, bytes of log.csv", os.path.getsize(folders.log))
    database.remove(folders.index)
    with closing(open_index(folders)) as index, anew_if_long(folders, index):
        catch_up(folders, index, read=progress.advance)


def _requested(view: View, wanted: Sequence[Difference], user: str, words: tuple[str, str]) -> Iterator[Outcome]:
    """Ask for what only the daemon may do. `words`: the reason that it logs, and what it does then."""
    reason, does = words
    actions = [found.action for found in wanted if isinstance(found.action, BackUpAgain | NoteErased)]
    if not actions:
        return
    request = Request(
        command="backup",
        user=user,
        names=tuple(action.name for action in actions),
        sha256s=tuple(action.sha256 for action in actions),
        reason=f"tfwatch fsck --repair by {printable(user)}: {reason}",
    )
    try:
        taken = leave(view, request)
    except Unavailable as error:
        yield from ((found, False, str(error)) for found in wanted)
        return
    said = f"asked for; the daemon {does} now" if taken else f"asked for; the daemon {does} once it runs"
    yield from ((found, False, said) for found in wanted)
