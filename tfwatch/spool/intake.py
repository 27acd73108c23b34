"""Is a ZIP finished, and is it sound? The two questions before anything is sent.

Both take a descriptor opened `O_RDONLY | O_NOFOLLOW | O_NONBLOCK` by the module that owns the paths, read with
`pread`, and leave it open.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from tfwatch.errors import Stopping
from tfwatch.language import number, tr
from tfwatch.model import Sha256, TraceId, sound_trace_id
from tfwatch.spool.filesystem import sees_every_writer
from tfwatch.spool.zipflaws import Unfinished, Unsound
from tfwatch.spool.zipformat import Directory, Entry, check_alike, check_structure, walk
from tfwatch.spool.zipmembers import lay_out, unpack

__all__ = [
    "Finish",
    "Inspection",
    "Limits",
    "Probe",
    "Unfinished",
    "Unsound",
    "hash_file",
    "ignore_lease_signals",
    "inspect",
    "is_hollow",
    "probe",
]

_NO_LEASE_HERE: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
)

_CHUNK: Final = 1 << 20
_LARGEST_MANIFEST: Final = 1 << 20


# --- finished? --------------------------------------------------------------------------------------------------------


class Finish(Enum):
    """How far a ZIP's writer has come."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    BEING_WRITTEN = "being written"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One look at a file. `why`: plain words that go on from its name; empty when it is finished."""

    state: Finish
    why: str = ""
    proven_by: Literal["lease", "settling"]


def probe(fd: int, *, still_seconds: float, settle_seconds: float) -> Probe:
    """Whether the file is a whole ZIP that nobody has open for writing, right now.

    A read lease proves it, held only while the structure is read, since it makes a writer's `open` wait. Where leases
    don't count or aren't granted to us, the file must have been still for `settle_seconds`; `still_seconds` is how
    long it has been so (`Stillness`). Raises OSError when the disk can't be read.
    """
    taken = _take_lease(fd) if sees_every_writer(fd) else None
    if taken is None:
        return _probe_still(fd, still_seconds, settle_seconds)
    if not taken:
        return Probe(state=Finish.BEING_WRITTEN, why=tr("is still open for writing"), proven_by="lease")
    try:
        found = _probe_structure(fd, "lease")
        broken = fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK
    finally:
        # A lease that was broken and taken away can't be dropped again; any other goes with the descriptor.
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    if broken:
        return Probe(state=Finish.BEING_WRITTEN, why=tr("was opened for writing again"), proven_by="lease")
    return found


def _take_lease(fd: int) -> bool | None:
    """True: it is ours. False: someone has the file open for writing. None: leases say nothing here."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return False
        if error.errno in _NO_LEASE_HERE:
            return None
        raise
    return True


def _probe_still(fd: int, still_seconds: float, settle_seconds: float) -> Probe:
    if still_seconds < settle_seconds:
        why = tr("has not yet been still for {seconds} s", seconds=f"{settle_seconds:g}")
        return Probe(state=Finish.BEING_WRITTEN, why=why, proven_by="settling")
    return _probe_structure(fd, "settling")


def _probe_structure(fd: int, proven_by: Literal["lease", "settling"]) -> Probe:
    try:
        check_structure(fd, os.fstat(fd).st_size)
    except Unfinished as unfinished:
        return Probe(state=Finish.UNFINISHED, why=unfinished.why, proven_by=proven_by)
    return Probe(state=Finish.FINISHED, proven_by=proven_by)


def ignore_lease_signals() -> None:
    """Let SIGIO pass: a writer that breaks a lease raises it, and by default it ends the process.

    Call once, from the main thread, before the first `probe`.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)


# --- sound? -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a ZIP may hold at most: bytes of the file, entries, and bytes once unpacked."""

    max_bytes: int
    max_entries: int
    max_uncompressed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found in a sound ZIP. Sizes in bytes; `trace_id`: from its manifest.json, if that names one."""

    sha256: Sha256
    bytes: int
    entries: int
    uncompressed_bytes: int
    trace_id: TraceId | None


def inspect(
    fd: int,
    limits: Limits,
    *,
    verify: Literal["full", "structure"],
    stopping: Callable[[], bool],
    progress: Callable[[int], None],
) -> Inspection:
    """Read a finished ZIP to its end and vouch for it, in a few MiB of memory whatever its size.

    The cheap questions come first (limits, names, layout), then the SHA-256, then with `full` each member's CRC-32.
    `stopping` is asked, and `progress` told the bytes hashed and unpacked so far, at least once a MiB.

    Raises `Unsound` (refuse it; `hash_file` gives its SHA-256), `Unfinished` (it is not whole, or its size changed
    meanwhile), `tfwatch.errors.Stopping`, OSError.
    """
    size = os.fstat(fd).st_size
    if size > limits.max_bytes:
        sizes = {"bytes": number(size), "most": number(limits.max_bytes)}
        raise Unsound("too_big", tr("It has {bytes} bytes; intake.max_bytes allows {most}.", **sizes))
    directory = check_structure(fd, size)
    check_alike(fd, size, directory)
    work = _Work(stopping, progress)
    survey = _survey(fd, directory, limits, work)
    data_at = lay_out(fd, directory, work.step)
    sha256 = _hash(fd, size, work)
    if verify == "full":
        for entry, at in zip(walk(fd, directory), data_at, strict=True):
            for piece in unpack(fd, entry, at):
                work.step(len(piece))
    trace_id = None
    if survey.manifest is not None:
        trace_id = _read_trace_id(fd, survey.manifest, data_at[survey.manifest_index])
    if os.fstat(fd).st_size != size:
        raise Unfinished(tr("changed its size while it was being read"))
    return Inspection(
        sha256=sha256,
        bytes=size,
        entries=directory.entries,
        uncompressed_bytes=survey.uncompressed_bytes,
        trace_id=trace_id,
    )


def is_hollow(fd: int, max_bytes: int) -> bool:
    """Whether it is larger than `max_bytes` and most of it was never written.

    A file of terabytes is made in no time and takes no room; hashing it, which a refusal needs, takes hours.
    """
    info = os.fstat(fd)
    return info.st_size > max_bytes and 512 * info.st_blocks < info.st_size // 2


def hash_file(fd: int, *, stopping: Callable[[], bool], progress: Callable[[int], None]) -> Sha256:
    """A file's SHA-256, sound or not, read once from start to end. Raises `Unfinished` when it shrinks meanwhile."""
    return _hash(fd, os.fstat(fd).st_size, _Work(stopping, progress))


class _Work:
    """How much was done, and whether to go on."""

    def __init__(self, stopping: Callable[[], bool], progress: Callable[[int], None]) -> None:
        self._stopping = stopping
        self._progress = progress
        self._done = 0

    def step(self, count: int) -> None:
        if self._stopping():
            raise Stopping("stopped while a ZIP was being inspected")
        if count:
            self._done += count
            self._progress(self._done)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Survey:
    uncompressed_bytes: int
    manifest: Entry | None
    manifest_index: int


def _survey(fd: int, directory: Directory, limits: Limits, work: _Work) -> _Survey:
    """Hold the central directory against the limits; on the way, find the manifest."""
    if directory.entries == 0:
        raise Unsound("empty", tr("It holds no entries."))
    if directory.entries > limits.max_entries:
        raise Unsound(
            "too_many_entries",
            tr(
                "It holds {entries} entries; intake.max_entries allows {most}.",
                entries=number(directory.entries),
                most=number(limits.max_entries),
            ),
        )
    total = 0
    folder: bytes | None = None
    in_root: tuple[Entry | None, int] = (None, 0)
    in_folder: tuple[Entry | None, int] = (None, 0)
    for index, entry in enumerate(walk(fd, directory)):
        work.step(0)
        total += entry.uncompressed
        if total > limits.max_uncompressed_bytes:
            raise Unsound(
                "bomb",
                tr(
                    "Unpacked it would take more than the {most} bytes that intake.max_uncompressed_bytes allows.",
                    most=number(limits.max_uncompressed_bytes),
                ),
            )
        parent, slash, name = entry.name.partition(b"/")
        if slash and folder is None:
            folder = parent
        if in_root[0] is None and entry.name == b"manifest.json":
            in_root = (entry, index)
        elif in_folder[0] is None and name == b"manifest.json" and parent == folder:
            in_folder = (entry, index)
    manifest, index = in_root if in_root[0] else in_folder
    return _Survey(uncompressed_bytes=total, manifest=manifest, manifest_index=index)


def _hash(fd: int, size: int, work: _Work) -> Sha256:
    digest = hashlib.sha256()
    at = 0
    while at < size:
        chunk = os.pread(fd, min(_CHUNK, size - at), at)
        if not chunk:
            raise Unfinished(tr("became shorter while it was being read"))
        digest.update(chunk)
        at += len(chunk)
        work.step(len(chunk))
    return Sha256(digest.hexdigest())


def _read_trace_id(fd: int, manifest: Entry, data_at: int) -> TraceId | None:
    """The manifest's `trace_id`. A bad manifest has none."""
    if manifest.uncompressed > _LARGEST_MANIFEST:
        return None
    try:
        document = json.loads(b"".join(unpack(fd, manifest, data_at)))
    except (Unsound, ValueError, RecursionError):
        return None
    return sound_trace_id(document.get("trace_id")) if isinstance(document, dict) else None
