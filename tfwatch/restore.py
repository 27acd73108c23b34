"""`tfwatch restore`: bring one package back from its backup, verified as it comes, over nobody's file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tfwatch import disk
from tfwatch.ask import NotPossible, unknown
from tfwatch.connections import connect_s3
from tfwatch.errors import ServiceFailure
from tfwatch.ledger.states import PackageState
from tfwatch.look import View, as_caller
from tfwatch.model import Event, Sha256, Stage, Status, read_detail
from tfwatch.outlook import size_of
from tfwatch.ports import BackupStoragePort, Kept
from tfwatch.spool.folders import ROOM_TO_WORK
from tfwatch.spool.names import printable
from tfwatch.spool.placing import placing

_MODE_IN_SPOOL: Final = 0o660
_MODE_ELSEWHERE: Final = 0o640
_MOST_LISTED: Final = 10

Document = dict[str, Any]


class Progress(Protocol):
    """Who watches while it takes long."""

    def begin(self, what: str, total: int) -> None:
        """It begins: what, and how many bytes it has."""
        ...

    def advance(self, steps: int = 1) -> None:
        """So many more are here."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a package is brought back to. `stage` None: a folder of the caller's choice."""

    folder: str
    stage: Stage | None


class _Broken(Exception):
    """What came is not the package: nothing of it stays."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept


def choose(view: View, word: str) -> PackageState:
    """The one package with a backup that a word names; raises `NotPossible`, listing them when there are several."""
    states = view.find(word)
    if not states:
        raise NotPossible(unknown(view, word))
    kept = [state for state in states if state.backed_up and state.backup_key]
    if not kept:
        name = printable(states[0].name)
        raise NotPossible(f"{name}: has no backup that was ever read back, so it can't be restored: tfwatch why {name}")
    if len({state.sha256 for state in kept}) > 1:
        raise NotPossible(
            f"{printable(word)}: names several packages, give the SHA-256 digits of one: tfwatch restore SHA",
            *_listed(kept),
        )
    # Several names of one content have the same bytes: the one that was in delivered/ has its place there.
    return next((state for state in kept if state.stage is None and state.status is Status.DELIVERED), kept[0])


def _listed(states: Sequence[PackageState]) -> list[str]:
    lines = [
        f"  {state.sha256[:16]}  {printable(state.name)}, {state.bytes:,} bytes, first seen {state.first_at:%Y-%m-%d}"
        for state in states[:_MOST_LISTED]
    ]
    more = len(states) - len(lines)
    return [*lines, f"  and {more} more"] if more else lines


def target_of(view: View, state: PackageState, to: str | None) -> Target:
    """Where it goes: the folder that was asked for, else delivered/, if that is where it was. Raises `NotPossible`."""
    name = printable(state.name)
    if to is not None:
        with as_caller():
            if not os.path.isdir(to):
                raise NotPossible(f"{printable(to)}: there is no such folder: make it, or name another one with --to")
        return Target(folder=os.path.abspath(to), stage=None)
    elsewhere = [place for place in view.places(state.name) if place is not Stage.DELIVERED]
    if view.folders.is_taken(Stage.DELIVERED, state.name):
        lies = "lies there already" if state.stage is Stage.DELIVERED else "is in its way: another file of that name"
        raise NotPossible(f"delivered/{name}: {lies}; to have a copy of the backup: --to FOLDER")
    if state.status is not Status.DELIVERED or state.stage not in (None, Stage.DELIVERED) or elsewhere:
        lies = f"is in {elsewhere[0]}/" if elsewhere else "was not in delivered/ last"
        raise NotPossible(f"{name}: {lies}, so say where to put it: tfwatch restore --to FOLDER {name}")
    return Target(folder=view.folders.folder(Stage.DELIVERED), stage=Stage.DELIVERED)


def bring_back(view: View, state: PackageState, target: Target, progress: Progress) -> Document:
    """Fetch it, and put it there once every byte is proven and on disk. Raises `NotPossible`.

    The daemon, if it runs, sees it come and logs it; else its next start does.
    """
    storage = connect_s3(view.settings.config)
    if storage is None:
        raise NotPossible("integrations.s3 is off, and that is where backups are: set it up with enabled: true")
    name = printable(state.name)
    with closing(storage):
        try:
            with nullcontext() if target.stage else as_caller():
                _require_room(target, state)
                _place(storage, state, target, progress)
        except _Broken as broken:
            raise NotPossible(_told(view, state, broken.kept)) from None
        except ServiceFailure as failure:
            hint = f"; {failure.hint}" if failure.hint else "; try again later"
            raise NotPossible(f"{name}: can't be fetched: {failure}{hint}") from failure
        except OSError as error:
            raise NotPossible(_failed(name, target, error)) from error
    return {
        "package": name,
        "sha256": state.sha256,
        "bytes": state.bytes,
        "backup_key": printable(state.backup_key or ""),
        "path": printable(f"{target.folder}/{state.name}"),
        "stage": target.stage.value if target.stage else None,
        "daemon_running": view.running,
    }


def _place(storage: BackupStoragePort, state: PackageState, target: Target, progress: Progress) -> None:
    progress.begin(f"restoring {printable(state.name)}, bytes", state.bytes)
    mode = _MODE_IN_SPOOL if target.stage else _MODE_ELSEWHERE
    with placing(target.folder, state.name, mode=mode) as file:

        def write(piece: bytes) -> None:
            file.write(piece)
            progress.advance(len(piece))

        kept = storage.fetch(
            state.backup_key or "", Sha256(state.sha256), state.bytes, write=write, stopping=lambda: False
        )  # fmt: skip
        if kept != "found":
            raise _Broken(kept)


def _require_room(target: Target, state: PackageState) -> None:
    info = os.statvfs(target.folder)
    free = info.f_bavail * info.f_frsize
    if info.f_blocks and free < state.bytes + ROOM_TO_WORK:
        raise NotPossible(
            f"{printable(target.folder)}: no room: {size_of(free)} are free, and {printable(state.name)} has "
            f"{size_of(state.bytes)}: free some space, or put it elsewhere with --to FOLDER"
        )


def _told(view: View, state: PackageState, kept: Kept) -> str:
    """What is wrong with the backup, and where the package may be had still."""
    now = view.settings.config.integrations.s3.bucket
    key, then = printable(state.backup_key or ""), _bucket_of(view, state) or now
    if then != now:
        what = f"its backup was stored in bucket {printable(then)}, and integrations.s3.bucket is {printable(now)} now"
        return f"{printable(state.name)}: {what}, which has no {key}: restore it with -c and the old bucket's settings"
    what = "is not in the bucket any more" if kept == "missing" else "is another object: these are not its bytes"
    return (
        f"{printable(state.name)}: its backup {key} {what}; nothing was written. If the bucket keeps versions, bring "
        "back the right one there; then: tfwatch fsck"
    )


def _bucket_of(view: View, state: PackageState) -> str:
    rows = [row for row in view.story_rows({state.sha256}) if row.event is Event.BACKED_UP]
    keys = [facts for row in rows if (facts := read_detail(row.detail)[0]).get("key") == state.backup_key]
    return keys[-1].get("bucket", "") if keys else ""


def _failed(name: str, target: Target, error: OSError) -> str:
    where = printable(target.folder)
    if isinstance(error, FileExistsError):
        return f"{where}/{name}: a file of that name lies there, and stays as it is: name another folder with --to"
    if error.errno in disk.NO_ROOM:
        return f"{where}: {error.strerror}; nothing of {name} stays there: free some space, or use --to FOLDER"
    if isinstance(error, PermissionError):
        return f"{where}: user {os.geteuid()} may not write there; name another folder with --to, or run it with sudo"
    return f"{where}/{name}: can't be written: {error.strerror or error}; see dmesg for what the disk says"
