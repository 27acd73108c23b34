"""The spool on disk. The only module that looks into its folders or moves a package.

Everyone else holds a `Stage` and a name. A package moves by one no-clobber rename; both folders are then synced,
so that a power cut can't take the move back once its fact was logged.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import BinaryIO, Final

from tfwatch.language import number, tr
from tfwatch.model import Stage
from tfwatch.spool.access import inherits_rights, what_lets_read
from tfwatch.spool.durable import HALF_WRITTEN
from tfwatch.spool.filesystem import mount_of, sees_every_writer
from tfwatch.spool.listing import Entry, Listing, NotAPackage, entry_of, kind_of
from tfwatch.spool.names import REASON_SUFFIX, counts, free_name, printable
from tfwatch.spool.places import CANARY, LOGS, PRIVATE, PRIVATE_FOLDERS, ROLLBACKS, WHERE
from tfwatch.spool.placing import remove_abandoned
from tfwatch.spool.reader import reader_of, reading
from tfwatch.spool.removal import Removal
from tfwatch.spool.renames import rename_noreplace

_PROBE: Final = re.compile(r"\.probe-[0-9a-f]{8}")


def probe_name() -> str:
    """A new name for a file that only shows whether something works; one that is left behind is tidied away."""
    return f".probe-{secrets.token_hex(4)}"


ROOM_TO_WORK: Final = 1 << 20
"""Bytes of free space without which nothing is begun: the log and its projection must be able to grow."""

_FILES_TO_WORK: Final = 8
"""Files that may still be made, without which nothing is begun: the projection has two beside it."""


class SpoolUnusable(Exception):
    """The spool can't be worked in: what is wrong with which path, and the command that mends it."""

    def __init__(self, path: str, problem: str, hint: str) -> None:
        super().__init__(f"{path}: {problem}; {hint}")
        self.path = path
        self.problem = problem
        self.hint = hint


class Folders(Removal):
    """One spool. None of these methods follows a link into a package's place."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.atomic_renames = True

    # --- preparing -------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make missing folders below the root. Raises `SpoolUnusable`: the exact path and the mending command."""
        here = self._root.here
        if not os.path.isdir(here):
            problem = "is not a directory" if os.path.lexists(self.root) else "does not exist"
            raise SpoolUnusable(self.root, f"the spool folder {problem}", f"make it: {_install(self.root)}")
        for where in (PRIVATE, *WHERE.values(), *PRIVATE_FOLDERS):
            self._make(os.path.join(here, where), private=where.startswith(PRIVATE))

    def _make(self, path: str, *, private: bool) -> None:
        try:
            # With 0700 operators could not look into it, whatever the ACL says that it inherits.
            os.mkdir(path, 0o770 if not private else 0o750 if inherits_rights(os.path.dirname(path)) else 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise SpoolUnusable(
                    path, "is in the way: not a directory", f"move it away: mv {path} {path}.old"
                ) from None
        except PermissionError as error:
            raise SpoolUnusable(path, f"can't be made: {error.strerror}", f"make it: {_install(path)}") from error
        else:
            self._sync(os.path.dirname(path))

    def tidy(self) -> None:
        """Remove what daemons left behind that died while they wrote a small file. Hold the lock.

        A request that a command is just leaving is not ours to remove, nor anybody's file in outbox/.
        """
        half_written = (
            self._at(Stage.REJECTED),
            *(os.path.join(self.root, where) for where in (PRIVATE, ROLLBACKS, LOGS)),
        )
        for folder, pattern in (
            *((folder, _PROBE) for folder in (self._at(stage) for stage in Stage)),
            *((folder, HALF_WRITTEN) for folder in half_written),
        ):
            for name in filter(pattern.fullmatch, os.listdir(folder)):
                with suppress(OSError):  # it is in nobody's way
                    os.unlink(os.path.join(folder, name))
        remove_abandoned(self._at(Stage.DELIVERED))

    def prove(self, among: Sequence[Stage] = tuple(Stage)) -> None:
        """Take one probe file through these folders: two mounts may share a device number and still refuse.

        Raises `SpoolUnusable`; OSError when the disk itself fails.
        """
        probe = probe_name()
        here = self._at(among[0], probe)
        try:
            os.close(os.open(here, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except PermissionError as error:
            folder = os.path.dirname(here)
            raise SpoolUnusable(
                folder, f"can't be written: {error.strerror}", f"check its owner and mode: {_install(folder)}"
            ) from error
        try:
            for stage in (*among[1:], among[0]):
                there = self._at(stage, probe)
                self.atomic_renames &= rename_noreplace(here, there)
                here = there
            os.unlink(here)
        except BaseException as error:
            # Told to stop between two renames, it may lie in either folder.
            for left in Stage:
                with suppress(OSError):
                    os.unlink(self._at(left, probe))
            folder = self.folder(stage)
            if isinstance(error, OSError) and error.errno == errno.EXDEV:
                raise SpoolUnusable(
                    folder,
                    "is on another file system or mount than the rest of the spool, so no file can be renamed into it",
                    f"put all folders on one: unmount it (umount {folder}) or set spool.root to one file system",
                ) from error
            if not isinstance(error, PermissionError):
                raise
            raise SpoolUnusable(
                folder, f"can't be written: {error.strerror}", f"check its owner and mode: {_install(folder)}"
            ) from error

    # --- looking ---------------------------------------------------------------------------------------------------

    def list(self, stage: Stage) -> Listing:
        """What lies in a stage's folder. Nothing is opened; links are not followed. Raises OSError."""
        entries, oddities, ignored = [], [], 0
        with os.scandir(self._at(stage)) as found:
            for item in found:
                if not counts(item.name):
                    ignored += not item.name.endswith(REASON_SUFFIX) and not item.name.startswith(CANARY)
                    continue
                try:
                    info = item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(info.st_mode):
                    entries.append(entry_of(item.name, info))
                else:
                    oddities.append((item.name, kind_of(info.st_mode)))
        return Listing(tuple(entries), tuple(oddities), ignored)

    def names(self, stage: Stage) -> set[str]:
        """The names alone of everything that counts there: cheaper than `list` for a large folder."""
        with os.scandir(self._at(stage)) as found:
            return {item.name for item in found if counts(item.name)}

    def look(self, stage: Stage, name: str) -> Entry | None:
        """One package as it lies at a stage now; None when no regular file of that name does."""
        root = self._root.here
        try:
            info = os.lstat(os.path.join(root, WHERE[stage], name))
        except (FileNotFoundError, NotADirectoryError):
            return None if root == self._root.here else self.look(stage, name)
        return entry_of(name, info) if stat.S_ISREG(info.st_mode) else None

    def is_taken(self, stage: Stage, name: str) -> bool:
        """Whether anything of that name lies at a stage."""
        return os.path.lexists(self._at(stage, name))

    def find(self, name: str) -> Stage | None:
        """The stage in whose folder something of that name lies, the first in the order of work."""
        return next((stage for stage in Stage if self.is_taken(stage, name)), None)

    def describe(self, stage: Stage, name: str) -> str:
        """Owner and mode of a file, for a message about access: `owner 1000:1000, mode 0600`."""
        info = os.lstat(self._at(stage, name))
        return tr(
            "owner {owner}, mode {mode}",
            owner=f"{info.st_uid}:{info.st_gid}",
            mode=f"{stat.S_IMODE(info.st_mode):04o}",
        )

    def how_to_let_read(self, stage: Stage, name: str) -> str:
        """The command, for a file's owner or root, after which the daemon, whose folder it is, may read it."""
        path = self._at(stage, name)
        try:
            chmod = what_lets_read(path, os.stat(os.path.dirname(path)).st_uid)
        except OSError:
            chmod = "chmod a+r"
        return f"{chmod} '{printable(self.path(stage, name))}'"

    def how_to_let_go(self, stage: Stage, name: str, error: PermissionError) -> str:
        """The command after which a file that we may not rename out of its folder can be."""
        folder = self.folder(stage)
        if error.errno == errno.EACCES:
            return f"chmod u+wx {folder}"
        info = os.stat(folder)
        if info.st_mode & stat.S_ISVTX and info.st_uid != os.geteuid():
            return tr("its folder is sticky and not ours: chown {user} {folder}", user=os.geteuid(), folder=folder)
        return f"chattr -i -a '{printable(self.path(stage, name))}'"

    def sees_every_writer(self, stage: Stage) -> bool:
        """Whether nobody but this machine writes there, so that every arrival raises an event. Raises OSError."""
        fd = os.open(self._at(stage), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return sees_every_writer(fd)
        finally:
            os.close(fd)

    def apart(self) -> dict[Stage, str]:
        """Stages that lie on a mount somebody has put over the spool → the folder it is on.

        No file can be renamed into or out of these, and what lay there before is not to be seen.
        """
        home = mount_of(self._root.here)
        found = {}
        for stage in Stage:
            for where in accumulate(WHERE[stage].split("/"), os.path.join):
                with suppress(FileNotFoundError, NotADirectoryError):
                    if stage not in found and mount_of(self._in(where)) != home:
                        found[stage] = os.path.join(self.root, where)
        return found

    def changed_ns(self, stage: Stage) -> int:
        """When a name last came or went there, ns."""
        return os.stat(self._at(stage)).st_mtime_ns

    def free_bytes(self) -> int:
        """Room left for this process on the spool's file system; as much as can be where it doesn't say (ramfs)."""
        return _free_bytes(os.statvfs(self._root.here))

    def shortage(self, least: int) -> str:
        """What to tell a person when fewer than `least` bytes, or next to none, are left; empty when there is room."""
        info = os.statvfs(self._root.here)
        free = _free_bytes(info)
        if free < ROOM_TO_WORK:
            return tr(
                "{path}: the disk is full ({kib} KiB left): free some space", path=self.root, kib=number(free // 1024)
            )
        if info.f_files and info.f_favail < _FILES_TO_WORK:
            return tr(
                "{path}: the disk is full (room for {count} more files, see df -i): remove some files",
                path=self.root,
                count=number(info.f_favail),
            )
        if free < least:
            return tr(
                "{path}: only {mib} MiB free, less than spool.min_free_bytes ({least} MiB): free some space",
                path=self.root,
                mib=number(free // 2**20),
                least=number(least // 2**20),
            )
        return ""

    def open(self, stage: Stage, name: str) -> int:
        """Open a package for reading: a descriptor of a regular file, never one behind a link.

        Raises `NotAPackage`, or OSError: FileNotFoundError, PermissionError, BlockingIOError while another program
        holds a lease on it (Samba's oplocks; our try makes the kernel take it away within 45 s)…
        """
        try:
            fd = os.open(
                self._at(stage, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            )
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise NotAPackage(name) from error
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NotAPackage(name)
        return fd

    def reader(self, stage: Stage, name: str) -> BinaryIO:
        """The same as a binary reader at byte 0. What the disk does to this file alone is raised as `Unreadable`."""
        with reading():
            return reader_of(self.open(stage, name), owned=True)

    # --- moving ----------------------------------------------------------------------------------------------------

    def free_name(self, name: str, *, leaving: Stage, taken: Callable[[str], bool]) -> str:
        """The name a package keeps from its claim on: its own, or `~2`, `~3`… if any other stage has such a file."""
        others = [stage for stage in Stage if stage is not leaving]

        def is_taken(candidate: str) -> bool:
            if taken(candidate) or any(os.path.lexists(self._at(stage, candidate)) for stage in others):
                return True
            return candidate != name and os.path.lexists(self._at(leaving, candidate))

        return free_name(name, is_taken)

    def move(self, source: Stage, name: str, target: Stage, new_name: str | None = None) -> None:
        """Rename a package into another stage; never over another file. A reason file goes when its package does.

        A stage's folder that somebody took away is made again. Not yet on disk: `sync` both.
        Raises FileExistsError, FileNotFoundError (the package is gone), SpoolUnusable, OSError.
        """
        while True:
            root = self._root.here
            here, there = (os.path.join(root, WHERE[stage]) for stage in (source, target))
            try:
                moved = rename_noreplace(os.path.join(here, name), os.path.join(there, new_name or name))
            except FileNotFoundError:
                if root != self._root.here:
                    continue
                if not os.path.lexists(os.path.join(here, name)):
                    raise
                self._make(there, private=target is Stage.CLAIMED)
            else:
                self.atomic_renames &= moved
                break
        if source is Stage.REJECTED and (source, name) != (target, new_name or name):
            self.remove_reason(name)

    def sync(self, *stages: Stage) -> None:
        """Put the names in these folders on disk. Raises `NotSynced`, and from then on always: see there.

        A folder that somebody took away has taken its names with it: there is nothing left to put on disk.
        """
        for stage in stages:
            with suppress(FileNotFoundError):
                self._sync(self._at(stage))


def _free_bytes(info: os.statvfs_result) -> int:
    return info.f_bavail * info.f_frsize if info.f_blocks else sys.maxsize


def _install(path: str) -> str:
    return f"sudo install -d -o tfwatch -g tfwatch -m 2770 {path}"
