"""Remove one package for good, and finish at the start what a crash cut short. Fact first, then the file."""

from __future__ import annotations

import os
from collections.abc import Callable

from loguru import logger

from tfwatch import disk
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.progress import Board
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.errors import Stopping
from tfwatch.language import tr
from tfwatch.ledger.states import PackageState
from tfwatch.model import Event, Stage
from tfwatch.spool.intake import Finish, Unfinished, hash_file, probe
from tfwatch.spool.listing import Entry, NotAPackage, entry_of
from tfwatch.spool.names import printable


class NotRemoved(Exception):
    """This one stays for now. `why`: for people; empty when there is nothing to tell and it is looked at again."""

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


def prove(desk: Desk, board: Board, state: PackageState, *, stopping: Callable[[], bool]) -> Entry:
    """The file under a package's name, read to its end just now and found to be it. Its name is held.

    Raises `NotRemoved` for any other file, `Stopping`, and OSError for what concerns more than this one.
    """
    assert state.stage is not None
    try:
        fd = desk.folders.open(state.stage, state.name)
    except FileNotFoundError:
        raise NotRemoved from None  # the sweep says who took it
    except NotAPackage:
        raise NotRemoved(tr("it is no regular file any more: look at it")) from None
    except OSError as error:
        raise _unreadable(desk, state, error) from error
    try:
        before = entry_of(state.name, os.fstat(fd))
        with board.working(state.name, "checking", state.bytes) as progress:
            is_it = before.size == state.bytes and hash_file(fd, stopping=stopping, progress=progress) == state.sha256
        if not is_it:
            raise NotRemoved(tr("it is not the file that was logged: compare it with log.csv, then move it away"))
        is_open = probe(fd, still_seconds=1.0, settle_seconds=0.0).state is Finish.BEING_WRITTEN
        after = entry_of(state.name, os.fstat(fd))
    except Unfinished:
        raise NotRemoved from None  # it became shorter just now
    except OSError as error:
        raise _unreadable(desk, state, error) from error
    finally:
        os.close(fd)
    if is_open or after != before:
        raise NotRemoved
    return after


def remove(desk: Desk, state: PackageState, entry: Entry, *, detail: str) -> None:
    """Remove the very file that `prove` has read: out of its folder, the fact, then gone. Its name is held.

    Raises `NotRemoved` when another one lies there by now, which is left or put back where it was; `Stopping`.
    """
    folders, stage = desk.folders, state.stage
    assert stage is not None
    if folders.look(stage, state.name) != entry:
        raise NotRemoved
    try:
        taken = folders.take_out(stage, state.name)
    except FileNotFoundError:
        raise NotRemoved from None
    except (FileExistsError, PermissionError) as error:
        words = tr("it can't be taken out: {error}; see .tfwatch/removing/ and the folder's mode", error=error.strerror)
        raise NotRemoved(words) from error
    if not _is_same(taken, entry):
        give_back(desk, stage, state.name)
        raise NotRemoved
    where = Whereabouts.of(state, file=stage)
    try:
        desk.settle(package_of(state), Event.PRUNED, where, order_id=state.order_id, detail=detail)
    except Stopping:
        give_back(desk, stage, state.name)
        raise
    folders.delete_taken(stage, state.name)


def give_back(desk: Desk, stage: Stage, name: str) -> None:
    """Back into its folder. Somebody's file that came there meanwhile stays: then this one waits, and it is said."""
    try:
        desk.folders.put_back(stage, name)
    except FileExistsError:
        path = printable(desk.folders.describe_taken(stage, name))
        words = tr(
            "{path}: can't be put back, since another file of that name lies in {stage}/: move that one away, then "
            "restart tfwatch",
            path=path, stage=stage,
        )  # fmt: skip
        desk.left_aside[path] = words


def finish_removals(desk: Desk, *, stopping: Callable[[], bool]) -> None:
    """At the start, before anything is compared: what was on its way out goes if the log says so, else it goes back.

    Whether it is what the log means is told by its content, never by its name.
    """
    for stage, name in list(desk.folders.taken_out()):
        try:
            is_logged = _is_pruned(desk, stage, name, stopping)
        except (NotAPackage, Unfinished):
            is_logged = False
        except OSError as error:
            if not disk.is_of_one_file(error):
                raise
            words = tr(
                "{path}: can't be read ({error}), so it is not known whether it may go; it is left there: see dmesg, "
                "then restart tfwatch",
                path=printable(desk.folders.describe_taken(stage, name)), error=error.strerror,
            )  # fmt: skip
            desk.left_aside[printable(desk.folders.describe_taken(stage, name))] = words
            continue
        if is_logged:
            desk.folders.delete_taken(stage, name)
            logger.info("{}: its removal from {}/ was logged, and is finished now", printable(name), stage)
        else:
            give_back(desk, stage, name)


def _is_pruned(desk: Desk, stage: Stage, name: str, stopping: Callable[[], bool]) -> bool:
    pruned = {state.sha256 for state in desk.index.named(name) if state.event is Event.PRUNED}
    if not pruned:
        return False
    fd = desk.folders.open_taken(stage, name)
    try:
        return hash_file(fd, stopping=stopping, progress=lambda _: None) in pruned
    finally:
        os.close(fd)


def _is_same(one: Entry, other: Entry) -> bool:
    """The same file, its bytes untouched. A rename alone changes its ctime."""
    return (one.device, one.inode, one.size, one.mtime_ns) == (other.device, other.inode, other.size, other.mtime_ns)


def _unreadable(desk: Desk, state: PackageState, error: OSError) -> Exception:
    if not disk.is_of_one_file(error):
        return error
    if isinstance(error, BlockingIOError):
        return NotRemoved()  # another program holds a lease on it; the kernel ends that within 45 s
    if isinstance(error, PermissionError):
        assert state.stage is not None
        mend = desk.folders.how_to_let_read(state.stage, state.name)
        return NotRemoved(tr("it can't be read: let the daemon read it: {mend}", mend=mend))
    return NotRemoved(tr("it can't be read: {error}; see dmesg for what the disk says", error=error.strerror))
