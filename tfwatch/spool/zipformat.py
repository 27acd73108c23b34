"""What a ZIP says of itself: its end record, its central directory, its names. Strict, streaming, bounded memory.

Format: PKWARE APPNOTE.TXT 6.3.10 (2022-11-01); the § numbers below are its sections.

Our own reader, because Python's `zipfile` keeps the whole central directory in memory, takes bytes in front of a ZIP
in its stride (so a half-written ZIP that ends in a stored inner ZIP looks whole), and doesn't see members overlap.

Everything reads with `pread` from a descriptor that someone else opened and will close; nothing here knows a path.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tfwatch.language import number, tr
from tfwatch.spool.zipflaws import Unfinished, Unsound, damaged, show, unchecked

LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_CENTRAL_SIGNATURE: Final = b"PK\x01\x02"
_END_SIGNATURE: Final = b"PK\x05\x06"
_END64_SIGNATURE: Final = b"PK\x06\x06"
_LOCATOR64_SIGNATURE: Final = b"PK\x06\x07"

_CENTRAL = struct.Struct("<4s6H3L5H2L")  # §4.3.12
_END64 = struct.Struct("<4sQ2H2L4Q")  # §4.3.14
_LOCATOR64 = struct.Struct("<4sLQL")  # §4.3.15
_END = struct.Struct("<4s4H2LH")  # §4.3.16

_SEE_ZIP64_16: Final = 0xFFFF
_SEE_ZIP64_32: Final = 0xFFFF_FFFF
_EXTRA_ZIP64: Final = 0x0001
_EXTRA_UNICODE_PATH: Final = 0x7075

_ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
"""Flag bits (§4.4.4): encrypted, strongly encrypted, values in the local header masked."""
_PATCHED: Final = 1 << 5
"""Flag bit (§4.4.4): the data is a patch against another file."""
_NEWEST_VERSION: Final = 63
"""What may be needed to unpack an entry, at most (§4.4.3): the version of LZMA, times ten."""

_TAIL: Final = _LOCATOR64.size + _END.size + 0xFFFF
"""Bytes at the end of a file that hold an end record with the longest comment, and the locator before it."""

_LARGEST_HEADER: Final = _CENTRAL.size + 3 * 0xFFFF
_CHUNK: Final = 1 << 18

_UNSAFE = re.compile(
    rb"""  \A[/\\]                              # absolute
        |  \A[A-Za-z]:                          # a drive letter
        |  (?:\A|[/\\]) \.\. (?:[/\\]|\Z)       # a step up
        |  \0
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Where a file's central directory lies (bytes from the start) and how many entries it declares."""

    offset: int
    size: int
    entries: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One header of the central directory. Sizes in bytes; `offset`: of its local header, from the file's start."""

    name: bytes
    flags: int
    method: int
    crc: int
    compressed: int
    uncompressed: int
    offset: int


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Exactly `count` bytes from `offset`. Raises `Unfinished` when the file ends before: it was cut under our eyes."""
    data = os.pread(fd, count, offset)
    while len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            raise Unfinished(tr("became shorter while it was being read"))
        data += more
    return data


# --- is it all there? -------------------------------------------------------------------------------------------------


def check_structure(fd: int, size: int) -> Directory:
    """Find the central directory of a file of `size` bytes, in four small reads at most for an ordinary ZIP.

    Strict: the first entry's local header is at offset 0, the end record reaches exactly to the end of the file (with
    its comment), and the central directory ends exactly where the end record (or the ZIP64 one) begins.
    An archive without entries is whole too. Raises `Unfinished` otherwise.
    """
    if size == 0:
        raise Unfinished(tr("is empty (0 bytes)"))
    begins = os.pread(fd, 4, 0)
    if begins not in (LOCAL_SIGNATURE, _END_SIGNATURE, _END64_SIGNATURE):
        raise Unfinished(tr("does not begin like a ZIP"))
    base = max(0, size - _TAIL)
    tail = read_at(fd, size - base, base)
    why = ""
    # A comment may hold what looks like an end record: the last one that fits in every way is it.
    for at in reversed(list(_end_records(tail))):
        try:
            directory = _directory_before(fd, tail, at, base)
            if directory.entries and begins != LOCAL_SIGNATURE:
                raise Unfinished(tr("does not begin with its first entry"))
        except Unfinished as unfit:
            why = why or unfit.why
        else:
            return directory
    raise Unfinished(why or tr("has no end record (end of central directory) at its end"))


def _end_records(tail: bytes) -> Iterator[int]:
    """Where in the file's last bytes an end record begins whose comment ends exactly with the file."""
    at = tail.find(_END_SIGNATURE)
    while 0 <= at <= len(tail) - _END.size:
        comment = int.from_bytes(tail[at + _END.size - 2 : at + _END.size], "little")
        if at + _END.size + comment == len(tail):
            yield at
        at = tail.find(_END_SIGNATURE, at + 1)


def _directory_before(fd: int, tail: bytes, at: int, base: int) -> Directory:
    """The central directory that the end record at `tail[at]` speaks of, when it lies right before it."""
    _, disk, start_disk, here, entries, size, offset, _ = _END.unpack_from(tail, at)
    until = base + at
    if at >= _LOCATOR64.size and tail.startswith(_LOCATOR64_SIGNATURE, at - _LOCATOR64.size):
        narrow = (disk, start_disk, here, entries, size, offset)
        until, (disk, start_disk, here, entries, size, offset) = _end64_before(fd, tail, at, base, narrow)
    if disk or start_disk or here != entries:
        raise Unfinished(tr("is one part of a split ZIP, which can't be delivered alone"))
    if offset + size != until:
        raise Unfinished(
            tr("has an end record that doesn't fit: bytes are missing, or were put in front or in between")
        )
    if entries and read_at(fd, 4, offset) != _CENTRAL_SIGNATURE:
        raise Unfinished(tr("has no central directory where its end record says"))
    return Directory(offset=offset, size=size, entries=entries)


def _end64_before(
    fd: int, tail: bytes, at: int, base: int, narrow: Sequence[int]
) -> tuple[int, tuple[int, int, int, int, int, int]]:
    """Where the ZIP64 end record begins, and its values; `narrow` are those of the old record, which must agree."""
    locator_at = base + at - _LOCATOR64.size
    _, disk, record_at, disks = _LOCATOR64.unpack_from(tail, at - _LOCATOR64.size)
    if disk or disks > 1:
        raise Unfinished(tr("is one part of a split ZIP, which can't be delivered alone"))
    if record_at + _END64.size > locator_at:
        raise Unfinished(tr("has a ZIP64 locator that points beyond itself"))
    signature, length, _, _, *wide = _END64.unpack(read_at(fd, _END64.size, record_at))
    if signature != _END64_SIGNATURE or record_at + 12 + length != locator_at:
        raise Unfinished(tr("has no ZIP64 end record where its locator says"))
    for old, new, see_zip64 in zip(narrow, wide, (_SEE_ZIP64_16,) * 4 + (_SEE_ZIP64_32,) * 2, strict=True):
        if old not in (new, see_zip64):
            raise Unfinished(tr("has two end records that contradict each other"))
    start, first, here, entries, size, offset = wide
    return record_at, (start, first, here, entries, size, offset)


def check_alike(fd: int, size: int, directory: Directory) -> None:
    """Refuse an archive in which another program would find another one than we do. Raises `Unsound`.

    Programs look for the end record backwards from the end of the file, and most take the first signature they meet,
    also one in a comment: then we would vouch for one archive, and another would be unpacked.
    """
    base = max(directory.end, size - _TAIL)
    tail = read_at(fd, size - base, base)
    if tail.count(_END_SIGNATURE) != 1:
        raise Unsound(
            "ambiguous",
            tr("Its comment holds what looks like the end of another ZIP: programs differ about what is in it."),
        )
    end = tail.find(_END_SIGNATURE)
    between = base + end - directory.end
    is_plain = between == 0
    if between == _END64.size + _LOCATOR64.size:
        *_, disks = _LOCATOR64.unpack_from(tail, end - _LOCATOR64.size)
        _, _, _, here, entries, *_ = _END.unpack_from(tail, end)
        is_plain = disks == 1 and here == entries
    if not is_plain:
        raise Unsound("unsupported", tr("Its end record holds more than other programs know how to read."))


# --- what is in it? ---------------------------------------------------------------------------------------------------


def walk(fd: int, directory: Directory) -> Iterator[Entry]:
    """Every entry of the central directory, in its order, reading 256 KiB at a time.

    Raises `Unsound`: `corrupt` (a header is damaged, or there are more or fewer than declared), `encrypted`,
    `unsafe_name`. Takes memory for one buffer, however many entries there are.
    """
    buffer, at, unread = b"", 0, directory.offset
    for _ in range(directory.entries):
        if len(buffer) - at < _LARGEST_HEADER and unread < directory.end:
            more = read_at(fd, min(_CHUNK, directory.end - unread), unread)
            buffer, at, unread = buffer[at:] + more, 0, unread + len(more)
        entry, at = _entry(buffer, at)
        yield entry
    if at != len(buffer) or unread != directory.end:
        declared = number(directory.entries)
        raise Unsound(
            "corrupt", tr("Its central directory holds more than the {entries} entries it declares.", entries=declared)
        )


def _entry(buffer: bytes, at: int) -> tuple[Entry, int]:
    """The header at `buffer[at]`, and where the next one begins."""
    name_at = at + _CENTRAL.size
    if name_at > len(buffer):
        raise Unsound("corrupt", tr("Its central directory ends before the last entry it declares."))
    header = _CENTRAL.unpack_from(buffer, at)
    signature, _, version, flags, method, _, _, crc, compressed, uncompressed, *lengths, disk, _, _, offset = header
    name_length, extra_length, comment_length = lengths
    extra_at = name_at + name_length
    after = extra_at + extra_length + comment_length
    if signature != _CENTRAL_SIGNATURE or after > len(buffer):
        raise Unsound("corrupt", tr("Its central directory is damaged."))
    name = buffer[name_at:extra_at]
    extra = buffer[extra_at : extra_at + extra_length]
    check_names(name, extra)
    check_not_encrypted(name, flags)
    if flags & _PATCHED or version & 0xFF > _NEWEST_VERSION:
        needed = number((version & 0xFF) / 10, 1)
        raise unchecked(
            name,
            tr("it is a patch") if flags & _PATCHED else tr("it needs a program of version {version}", version=needed),
        )
    _check_extra(name, extra, (uncompressed, compressed, offset).count(_SEE_ZIP64_32), disk)
    uncompressed, compressed, offset = widen(name, extra, uncompressed, compressed, offset)
    if name.endswith(b"/") and uncompressed:
        raise damaged(name, tr("is a folder and holds data"))
    entry = Entry(
        name=name,
        flags=flags,
        method=method,
        crc=crc,
        compressed=compressed,
        uncompressed=uncompressed,
        offset=offset,
    )
    return entry, after


def check_names(name: bytes, extra: bytes) -> None:
    """Refuse names that could leave the folder they are unpacked into. Raises `Unsound` (`unsafe_name`).

    The Unicode name in the extra field (0x7075, §4.6.9) is looked at as well, whether or not its checksum would make
    a reader use it.
    """
    others = [value[5:] for tag, value in _extras(extra) if tag == _EXTRA_UNICODE_PATH] if extra else []
    for each in (name, *others):
        if _UNSAFE.search(each):
            raise Unsound(
                "unsafe_name",
                tr(
                    "The entry {entry} could be unpacked outside its folder: its name is absolute, or holds “..”, "
                    "a drive letter or a NUL.",
                    entry=show(each),
                ),
                entry=show(each),
            )


def check_not_encrypted(name: bytes, flags: int) -> None:
    """Refuse an entry nobody could read at the other end. Raises `Unsound` (`encrypted`)."""
    if flags & _ENCRYPTED:
        message = tr("The entry {entry} is encrypted: pack it again without a password.", entry=show(name))
        raise Unsound("encrypted", message, entry=show(name))


def widen(name: bytes, extra: bytes, *values: int) -> tuple[int, ...]:
    """Replace each value that says “see ZIP64” by its 64-bit one (§4.5.3): they stand there in this order.

    Raises `Unsound` (`corrupt`) when one isn't there.
    """
    if _SEE_ZIP64_32 not in values:
        return values
    wide = next((value for tag, value in _extras(extra) if tag == _EXTRA_ZIP64), b"")
    if len(wide) < 8 * values.count(_SEE_ZIP64_32):
        raise damaged(name, tr("lacks its ZIP64 sizes"))
    numbers = (number for (number,) in struct.iter_unpack("<Q", wide[: len(wide) // 8 * 8]))
    return tuple(next(numbers) if value == _SEE_ZIP64_32 else value for value in values)


def _check_extra(name: bytes, extra: bytes, widened: int, disk: int) -> None:
    """The extra field of a central header must be whole, and the entry lie in this file, whichever field says so."""
    at = 0
    while at + 4 <= len(extra):
        at += 4 + int.from_bytes(extra[at + 2 : at + 4], "little")
    if at > len(extra):
        raise damaged(name, tr("has an extra field that is cut off"))
    if disk == _SEE_ZIP64_16:
        wide = next((value for tag, value in _extras(extra) if tag == _EXTRA_ZIP64), b"")
        disk = int.from_bytes(wide[8 * widened : 8 * widened + 4] or b"\xff", "little")
    if disk:
        raise damaged(name, tr("lies in another part of a split ZIP"))


def _extras(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """The blocks of an extra field; what doesn't make a block at the end is padding (zipalign writes some)."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        value = extra[at + 4 : at + 4 + length]
        if len(value) < length:
            return
        yield tag, value
        at += 4 + length
