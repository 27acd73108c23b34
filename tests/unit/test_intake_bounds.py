"""Inspecting large ZIPs and bombs: bounded memory, bounded time, measured in a process of their own."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.unit.zips import megabytes_of_zeros, python_zip

_PROGRAM = """
import os, sys
from tfwatch.spool.intake import Limits, Unsound, inspect

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

def look(path):
    fd = os.open(path, os.O_RDONLY)
    limits = Limits(max_bytes=1 << 40, max_entries=100_000, max_uncompressed_bytes=int(sys.argv[3]))
    try:
        return inspect(fd, limits, verify="full", stopping=lambda: False, progress=lambda _: None).uncompressed_bytes
    except Unsound as refused:
        return refused.code

look(sys.argv[1])
before = peak()
print(look(sys.argv[2]), peak() - before)
"""


def measured(tmp_path: Path, big: Path, max_uncompressed_bytes: int = 1 << 40) -> tuple[str, int]:
    """What inspecting a big file gives, and how many KiB more it takes at its peak than a small one."""
    small = tmp_path / "small.zip"
    small.write_bytes(python_zip())
    command = [sys.executable, "-c", _PROGRAM, str(small), str(big), str(max_uncompressed_bytes)]
    found, kib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return found, int(kib)


def cpu_of_children() -> float:
    """Seconds of work so far, however long they had to wait for a CPU."""
    times = os.times()
    return times.children_user + times.children_system


def write_one_member(path: Path, *, method: int, crc: int, packed: bytes | int, size: int) -> None:
    """A ZIP with one member; an int for `packed` is a hole of that many bytes in a sparse file."""
    length = packed if isinstance(packed, int) else len(packed)
    common = struct.pack("<4HLLLHH", 0, method, 0, 0, crc, length, size, 1, 0)
    with path.open("wb") as file:
        file.write(b"PK\3\4\x14\0" + common + b"a")
        if isinstance(packed, bytes):
            file.write(packed)
        file.seek(31 + length)
        directory = b"PK\1\2\x14\0\x14\0" + common + struct.pack("<3H2L", 0, 0, 0, 0, 0) + b"a"
        file.write(directory)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), 31 + length, 0))


def crc_of_zeros(count: int) -> int:
    crc, block = 0, bytes(1 << 20)
    for _ in range(count >> 20):
        crc = zlib.crc32(block, crc)
    return crc


def test_a_big_zip_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    """1 GiB, stored, are hashed and summed in a few MiB."""
    big, size = tmp_path / "big.zip", 1 << 30
    write_one_member(big, method=0, crc=crc_of_zeros(size), packed=size, size=size)

    found, kib = measured(tmp_path, big)

    assert str(size) == found
    assert 6 << 10 > kib


@pytest.mark.parametrize("declared", [4_000_000_000, 1000])
def test_a_bomb_is_stopped(tmp_path: Path, declared: int) -> None:
    """10 MB that would become 10 GB: refused in bounded time and memory, whether it owns up to its size or lies."""
    big = tmp_path / "bomb.zip"
    write_one_member(big, method=8, crc=0, packed=megabytes_of_zeros(10_000), size=declared)
    began = cpu_of_children()

    found, kib = measured(tmp_path, big, 1 << 30)

    assert ("bomb" if declared > 1 << 30 else "corrupt") == found
    assert 8 << 10 > kib
    assert 5 > cpu_of_children() - began


def test_what_is_allowed_to_be_large_is_unpacked_in_little_memory(tmp_path: Path) -> None:
    """A ratio of a thousand is no crime below the limit, and costs no memory."""
    big, size = tmp_path / "large.zip", 512 << 20
    write_one_member(big, method=8, crc=crc_of_zeros(size), packed=megabytes_of_zeros(512), size=size)

    found, kib = measured(tmp_path, big)

    assert str(size) == found
    assert 8 << 10 > kib


def test_200_000_entries_are_refused_at_once(tmp_path: Path) -> None:
    """Too many entries are refused by their declared number; a number that lies low, once it is passed."""
    header = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 5, *[0] * 6)
    body = b"PK\3\4\x14\0" + bytes(20) + b"\x05\0\0\0" + b"00000"
    directory = b"".join(header + b"%05x" % n for n in range(200_000))
    for declared, expected in ((200_000, "too_many_entries"), (100_000, "corrupt")):
        end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, declared, declared, len(directory), len(body))
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(body) + len(directory), 1)
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(directory), len(body), 0)
        path = tmp_path / "many.zip"
        path.write_bytes(body + directory + end64 + locator + end)
        began = cpu_of_children()

        found, kib = measured(tmp_path, path)

        assert expected == found
        assert 6 << 10 > kib
        assert 5 > cpu_of_children() - began
