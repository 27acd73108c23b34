"""The spool's folders: may the daemon's user work in each, and can a file be renamed through all of them?"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, ok, skipped, warning
from tfwatch.doctor.who import user_name
from tfwatch.model import Stage
from tfwatch.spool.filesystem import kind_of
from tfwatch.spool.folders import SpoolUnusable

_ALL = os.R_OK | os.W_OK | os.X_OK


def folders(case: Case) -> Iterator[Finding]:
    """Each folder and file of the spool, for the daemon's user."""
    root = case.folders.root
    if (wrong := _trouble(case, root, _ALL)) is not None:
        yield wrong
        return
    missing, fine = [], True
    for path in case.folders.everything():
        if not os.path.lexists(path):
            missing += [path] if path in case.folders.all_folders() else []
        elif (wrong := _trouble(case, path, _ALL if os.path.isdir(path) else os.R_OK | os.W_OK)) is not None:
            fine = False
            yield wrong
    if fine and missing:
        yield ok("folders", f"{len(missing)} folder(s) are not there yet; the daemon makes them when it starts")
    elif fine:
        mode = stat.S_IMODE(os.stat(case.folders.folder(Stage.OUTBOX)).st_mode)
        yield ok("folders", f"{case.user.name} may work in every folder of {root}; outbox/ has mode {mode:04o}")


def _trouble(case: Case, path: str, need: int) -> Finding | None:
    """Why the daemon's user can't work with what is there; None when it can."""
    try:
        info = os.stat(path)
    except FileNotFoundError:
        seen = f"{path}: there is no such folder"
        do = f"sudo install -d -o {case.user.name} -g {case.user.group} -m 2770 {path}, or mend spool.root"
        return failure("folders", seen, do)
    except OSError as error:
        me = user_name(os.geteuid())
        return failure("folders", f"{path}: {me} can't get there ({error.strerror})", f"see who may: namei -l {path}")
    if path in (case.folders.root, *case.folders.all_folders()) and not stat.S_ISDIR(info.st_mode):
        return failure("folders", f"{path}: is not a folder", f"move it away: mv {path} {path}.old")
    if os.access(path, need, effective_ids=True):
        return _sticky(case, path, info)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return failure("folders", f"{path}: its file system is read-only", "see dmesg, then mount it writable")
    who = f"{user_name(info.st_uid)}, mode {stat.S_IMODE(info.st_mode):04o}"
    return failure("folders", f"{path}: {case.user.name} may not work in it (it is {who})", case.give(path))


def _sticky(case: Case, path: str, info: os.stat_result) -> Finding | None:
    """In a sticky folder only its owner may rename another user's file away."""
    if path != case.folders.folder(Stage.OUTBOX) or not info.st_mode & stat.S_ISVTX:
        return None
    if info.st_uid == os.geteuid() or os.geteuid() == 0:
        return None
    seen = f"{path}: is sticky and not {case.user.name}'s, so what others drop can't be taken out of it"
    return failure("folders", seen, f"sudo chown {case.user.name} {path}")


def rename(case: Case) -> Iterator[Finding]:
    """One hidden file is renamed through all folders: that, and no device number, proves that they are one place."""
    there = [stage for stage in Stage if os.path.isdir(case.folders.folder(stage))]
    if len(there) < 2:
        yield skipped("rename", "the folders are not there yet; the daemon makes them when it starts")
        return
    try:
        case.folders.prove(there)
    except SpoolUnusable as error:
        yield failure("rename", f"{error.path}: {error.problem}", error.hint)
        return
    except OSError as error:
        yield failure("rename", f"{case.folders.root}: no file can be moved through it: {error.strerror}", _mend(error))
        return
    if not case.folders.atomic_renames:
        seen = f"{case.folders.root}: this file system has no RENAME_NOREPLACE, so a file put in the way in the same "
        yield warning("rename", seen + "instant could be overwritten", "move the spool to ext4, xfs or btrfs")
        return
    which = "all" if len(there) == len(Stage) else "the"
    yield ok("rename", f"a file can be renamed through {which} folders, and never over another")


def _mend(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space (df -h, df -i)"
    return "see dmesg: the disk may be failing"


def file_system(case: Case) -> Iterator[Finding]:
    """What the outbox lies on: only where this machine sees every writer do leases and events say it all."""
    outbox = case.folders.folder(Stage.OUTBOX)
    if not os.path.isdir(outbox):
        yield skipped("file system", f"{outbox} is not there yet; the daemon makes it when it starts")
        return
    kind = kind_of(outbox)
    if case.folders.sees_every_writer(Stage.OUTBOX):
        yield ok("file system", f"outbox/ is on {kind}, which only this machine writes")
        return
    seen = f"outbox/ is on {kind}, which other machines may write: it is polled, and a ZIP is sent only once it has "
    seen += f"been still for {case.config.spool.settle_seconds:g} s"
    yield warning("file system", seen, "put the spool on a local ext4, xfs or btrfs")
