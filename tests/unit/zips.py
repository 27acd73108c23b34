"""ZIPs for tests: honest ones made by zipfile, and handmade ones in which each field can lie."""

from __future__ import annotations

import io
import os
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tfwatch.spool.zipflaws import Unfinished, Unsound
from tfwatch.spool.zipformat import Directory, check_structure, walk
from tfwatch.spool.zipmembers import lay_out, unpack

STORED, DEFLATED, BZIP2, LZMA = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA


@contextmanager
def opened(data: bytes) -> Iterator[int]:
    """A descriptor of a real (memory-backed) file with these bytes."""
    fd = os.memfd_create("zip")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def structure(data: bytes) -> Directory:
    with opened(data) as fd:
        return check_structure(fd, len(data))


def contents(data: bytes) -> dict[bytes, bytes]:
    """Read a whole ZIP through every check there is."""
    with opened(data) as fd:
        directory = check_structure(fd, len(data))
        data_at = lay_out(fd, directory, lambda _: None)
        return {e.name: b"".join(unpack(fd, e, at)) for e, at in zip(walk(fd, directory), data_at, strict=True)}


def flaw(data: bytes) -> Unsound:
    with pytest.raises(Unsound) as caught:
        contents(data)
    return caught.value


def why_unfinished(data: bytes) -> str:
    with pytest.raises(Unfinished) as caught:
        structure(data)
    return caught.value.why


class OneWay(io.RawIOBase):
    """A stream that can't seek, like a pipe: zipfile then writes data descriptors."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.data += memoryview(data)  # type: ignore[arg-type]
        return len(memoryview(data))  # type: ignore[arg-type]


SAMPLE = {
    "job/": b"",
    "job/manifest.json": b"{}",
    "job/a.txt": b"hello " * 500,
    "job/b.bin": random.Random(1).randbytes(3000),
}


def python_zip(method: int = DEFLATED, *, zip64: bool = False, stream: bool = False, comment: bytes = b"") -> bytes:
    target: io.BytesIO | OneWay = OneWay() if stream else io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:  # TI
        for name, data in SAMPLE.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=zip64) if zip64 else _plain(archive, name) as out:
                out.write(data)
        archive.comment = comment
    return bytes(target.data) if isinstance(target, OneWay) else target.getvalue()


def _plain(archive: zipfile.ZipFile, name: str) -> zipfile.ZipExtFile:
    info = zipfile.ZipInfo(name)
    info.compress_type = archive.compression
    return archive.open(info, "w")  # type: ignore[return-value]


# --- a ZIP made by hand, so that each field can lie -------------------------------------------------------------------


@dataclass(kw_only=True)
class Member:
    """One member; None fields tell the truth."""

    name: bytes = b"a.txt"
    data: bytes = b"hello"
    method: int = STORED
    flags: int = 0
    crc: int | None = None
    compressed: int | None = None
    uncompressed: int | None = None
    offset: int | None = None
    extra: bytes = b""
    local_name: bytes | None = None
    local_flags: int | None = None
    local_method: int | None = None
    local_crc: int | None = None
    local_size: int | None = None
    local_extra: bytes = b""
    packed: bytes | None = None


def handmade(
    *members: Member, count: int | None = None, comment: bytes = b"", after_directory: bytes = b"", gap: bytes = b""
) -> bytes:
    body, directory = bytearray(), bytearray()
    for m in members:
        packed = m.data if m.packed is None else m.packed
        crc = zlib.crc32(m.data) if m.crc is None else m.crc
        compressed = len(packed) if m.compressed is None else m.compressed
        uncompressed = len(m.data) if m.uncompressed is None else m.uncompressed
        offset = len(body) if m.offset is None else m.offset
        local_name = m.name if m.local_name is None else m.local_name
        if m.offset is None:
            body += struct.pack(
                "<4s5H3L2H",
                b"PK\3\4",
                20,
                m.flags if m.local_flags is None else m.local_flags,
                m.method if m.local_method is None else m.local_method,
                0,
                0,
                crc if m.local_crc is None else m.local_crc,
                compressed if m.local_size is None else m.local_size,
                uncompressed if m.local_size is None else m.local_size,
                len(local_name),
                len(m.local_extra),
            )
            body += local_name + m.local_extra + packed + gap
        directory += struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\1\2", 20, 20, m.flags, m.method, 0, 0, crc, compressed, uncompressed),
            *(len(m.name), len(m.extra), 0, 0, 0, 0, offset),
        )
        directory += m.name + m.extra
    directory += after_directory
    declared = len(members) if count is None else count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, declared, declared, len(directory), len(body), len(comment))
    return bytes(body + directory + end + comment)


def with_zip64_end(data: bytes, extensible: bytes = b"", /, **lies: int) -> bytes:
    """The same ZIP with a ZIP64 end record and locator, and sentinels in the old record."""
    end = len(data) - 22
    _, _, _, here, total, size, offset, _ = struct.unpack("<4s4H2LH", data[end:])
    size, offset, total = lies.get("size", size), lies.get("offset", offset), lies.get("total", total)
    record = struct.pack(
        "<4sQ2H2L4Q",
        b"PK\6\6",
        lies.get("length", 44) + len(extensible),
        45,
        45,
        0,
        0,
        lies.get("here", here),
        total,
        size,
        offset,
    )
    locator = struct.pack(
        "<4sLQL", b"PK\6\7", lies.get("disk", 0), end + lies.get("record_off", 0), lies.get("disks", 1)
    )
    old = struct.pack(
        "<4s4H2LH",
        b"PK\5\6",
        0,
        0,
        0xFFFF,
        0xFFFF,
        lies.get("old_size", 0xFFFFFFFF),
        lies.get("old_offset", 0xFFFFFFFF),
        0,
    )
    return data[:end] + record + extensible + locator + old


def zip64_extra(*values: int) -> bytes:
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)


def megabytes_of_zeros(count: int) -> bytes:
    """A deflate stream of that many MiB of zeros, a thousandth as long, made by repeating one flushed block."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return block * count + b"\x03\x00"


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
