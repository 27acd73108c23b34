"""The members of a ZIP: whether each lies where the central directory says, and unpacks to what it promised.

Nothing is written anywhere: members are unpacked piece by piece, and each piece is forgotten once it is summed.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from tfwatch.language import number, tr
from tfwatch.spool.zipflaws import Unsound, damaged, show, unchecked
from tfwatch.spool.zipformat import (
    LOCAL_SIGNATURE,
    Directory,
    Entry,
    check_names,
    check_not_encrypted,
    read_at,
    walk,
    widen,
)

_LOCAL = struct.Struct("<4s5H3L2H")  # §4.3.7
_LZMA = struct.Struct("<2sHBL")  # §5.8.8: version, size of what follows, then lc/lp/pb and dictionary size

_STORED, _DEFLATED, _BZIP2, _LZMA_METHOD = 0, 8, 12, 14
_DESCRIPTOR: Final = 1 << 3
"""Flag bit (§4.4.4): sizes and CRC were not known yet when the local header was written."""
_LEVEL: Final = 3 << 1
"""Flag bits (§4.4.4): how hard the deflater tried; nobody needs it to unpack."""
_UTF8: Final = 1 << 11
"""Flag bit (§4.4.4): the name is UTF-8; an ASCII name is that anyway, and some programs say so in one header only."""
_LZMA_MARKED: Final = 1 << 1
"""Flag bit (§4.4.4): the LZMA data ends with a marker of its own."""

_USUAL_EXTRA: Final = 64
_CHUNK: Final = 1 << 18
_PIECE: Final = 1 << 20
_LARGEST_DICTIONARY: Final = 64 << 20
"""Bytes of memory an LZMA member may ask for; 7-Zip's strongest preset asks for as many."""

Step = Callable[[int], None]
"""Told the bytes of each piece of work done; it stops the work by raising."""


class _Decoder(Protocol):
    """What `bz2` and `lzma` decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Inflate:
    """A raw deflate decompressor that looks like those of `bz2` and `lzma`."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        piece = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self.needs_input = not self._inflate.unconsumed_tail and len(piece) < max_length
        return piece


def lay_out(fd: int, directory: Directory, step: Step) -> array[int]:
    """Check every local header against the central directory; returns where each entry's data begins.

    The result is in the order of the directory, 8 bytes an entry; on the way there are 24, and 40 while sorting.
    Gaps between members are allowed (zipalign leaves some). Raises `Unsound`: `corrupt`, `encrypted`, `unsafe_name`,
    `overlapping`.
    """
    starts, data, ends = array("Q"), array("Q"), array("Q")
    for entry in walk(fd, directory):
        step(0)
        data_at = _data_offset(fd, entry, directory)
        starts.append(entry.offset)
        data.append(data_at)
        ends.append(data_at + entry.compressed)
    _check_apart(array("Q", sorted(starts)), array("Q", sorted(ends)))
    return data


def _data_offset(fd: int, entry: Entry, directory: Directory) -> int:
    room = directory.offset - entry.offset
    if room < _LOCAL.size:
        raise damaged(entry.name, tr("is said to begin outside the archive's data"))
    head = read_at(fd, min(room, _LOCAL.size + len(entry.name) + _USUAL_EXTRA), entry.offset)
    signature, _, flags, method, _, _, *sums, name_length, extra_length = _LOCAL.unpack_from(head)
    length: int = _LOCAL.size + name_length + extra_length
    if signature != LOCAL_SIGNATURE:
        raise damaged(entry.name, tr("is not where the central directory says"))
    if length + entry.compressed > room:
        raise Unsound(
            "overlapping",
            tr("The entry {entry} runs into the central directory.", entry=show(entry.name)),
            entry=show(entry.name),
        )
    if length > len(head):
        head = read_at(fd, length, entry.offset)
    name_ends = _LOCAL.size + name_length
    extra = head[name_ends:length]
    if head[_LOCAL.size : name_ends] != entry.name or method != entry.method:
        raise damaged(entry.name, tr("has another name or method in its own header than in the central directory"))
    check_not_encrypted(entry.name, flags)
    check_names(entry.name, extra)
    free = (_LEVEL if method == _DEFLATED else 0) | (_UTF8 if entry.name.isascii() else 0)
    if (flags ^ entry.flags) & ~free:
        raise damaged(entry.name, tr("has other flags in its own header than in the central directory"))
    if not flags & _DESCRIPTOR:
        _check_sums(entry, extra, *sums)
    return entry.offset + length


def _check_sums(entry: Entry, extra: bytes, crc: int, compressed: int, uncompressed: int) -> None:
    sizes = widen(entry.name, extra, uncompressed, compressed)
    if (crc, *sizes) != (entry.crc, entry.uncompressed, entry.compressed):
        raise damaged(entry.name, tr("has other sizes or another CRC in its own header than in the central directory"))


def _check_apart(starts: array[int], ends: array[int]) -> None:
    """Sorted each by itself, each end stays before the next start exactly when no two members share a byte."""
    if starts and starts[0] != 0:
        raise Unsound("corrupt", tr("It begins with an entry that its central directory doesn't list."))
    for at in range(len(starts) - 1):
        if ends[at] > starts[at + 1]:
            offset = number(starts[at + 1])
            raise Unsound(
                "overlapping", tr("Two of its entries share the same bytes, at offset {offset}.", offset=offset)
            )


def unpack(fd: int, entry: Entry, data_at: int) -> Iterator[bytes]:
    """The member's content, in pieces of at most 1 MiB; memory doesn't grow with it.

    Raises `Unsound`: `corrupt` once the data can't be unpacked, passes the size it declares, or at the end has another
    size or CRC-32; `unsupported` for a compression method that Python's standard library doesn't know.
    """
    size = crc = 0
    for piece in _pieces(fd, entry, data_at):
        size += len(piece)
        if size > entry.uncompressed:
            declared = number(entry.uncompressed)
            raise damaged(entry.name, tr("unpacks to more than the {bytes} bytes it declares", bytes=declared))
        crc = zlib.crc32(piece, crc)
        yield piece
    if size != entry.uncompressed:
        sizes = {"bytes": number(size), "declared": number(entry.uncompressed)}
        raise damaged(entry.name, tr("unpacks to {bytes} bytes, but declares {declared}", **sizes))
    if crc != entry.crc:
        raise damaged(entry.name, tr("doesn't match its checksum (CRC-32)"))


def _pieces(fd: int, entry: Entry, data_at: int) -> Iterator[bytes]:
    chunks = _chunks(fd, data_at, entry.compressed)
    # Some writers mark folders as compressed, with no data at all.
    if entry.method == _STORED or (entry.compressed == 0 and entry.uncompressed == 0):
        return chunks
    if entry.method == _DEFLATED:
        return _decode(entry, _Inflate(), chunks)
    if entry.method == _BZIP2:
        return _decode(entry, bz2.BZ2Decompressor(), chunks)
    if entry.method == _LZMA_METHOD:
        return _decode_lzma(fd, entry, data_at)
    raise unchecked(entry.name, tr("its compression method {method} is not known here", method=entry.method))


def _chunks(fd: int, at: int, size: int) -> Iterator[bytes]:
    for offset in range(at, at + size, _CHUNK):
        yield read_at(fd, min(_CHUNK, at + size - offset), offset)


def _decode(entry: Entry, decoder: _Decoder, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack data that carries its own end, which must be the end of the member too."""
    while not decoder.eof:
        yield _next_piece(entry, decoder, chunks, _PIECE)
    if decoder.unused_data or next(chunks, b""):
        raise damaged(entry.name, tr("has bytes after the end of its data"))


def _next_piece(entry: Entry, decoder: _Decoder, chunks: Iterator[bytes], most: int) -> bytes:
    hungry = decoder.needs_input
    chunk = next(chunks, b"") if hungry else b""
    try:
        piece = decoder.decompress(chunk, most)
    except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:  # bz2 says OSError; nothing is read in here
        raise damaged(entry.name, tr("can't be unpacked")) from error
    if hungry and not chunk and not piece and not decoder.eof:
        raise damaged(entry.name, tr("ends in the middle of its data"))
    return piece


def _decode_lzma(fd: int, entry: Entry, data_at: int) -> Iterator[bytes]:
    if entry.compressed < _LZMA.size:
        raise damaged(entry.name, tr("ends in the middle of its data"))
    decoder = _lzma_decoder(entry, read_at(fd, _LZMA.size, data_at))
    chunks = _chunks(fd, data_at + _LZMA.size, entry.compressed - _LZMA.size)
    if entry.flags & _LZMA_MARKED:
        yield from _decode(entry, decoder, chunks)
        return
    # Without a marker only the declared size says where the data ends.
    left = entry.uncompressed
    while left:
        piece = _next_piece(entry, decoder, chunks, min(left, _PIECE))
        left -= len(piece)
        yield piece


def _lzma_decoder(entry: Entry, header: bytes) -> lzma.LZMADecompressor:
    _, length, properties, dictionary = _LZMA.unpack(header)
    # No match reaches back further than there is content, so a small member needs no big dictionary.
    dictionary = min(dictionary, max(entry.uncompressed, 4096))
    if dictionary > _LARGEST_DICTIONARY:
        most = _LARGEST_DICTIONARY >> 20
        raise unchecked(entry.name, tr("unpacking it takes more than {mib} MiB of memory", mib=most))
    rest, lc = divmod(properties, 9)
    pb, lp = divmod(rest, 5)
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": dictionary, "lc": lc, "lp": lp, "pb": pb}]
    try:
        if length != _LZMA.size - 4:
            raise ValueError("properties of another size")
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
    except (ValueError, lzma.LZMAError) as error:
        raise damaged(entry.name, tr("can't be unpacked")) from error
