"""Valid ZIPs, and changes that know the format: what broken disks, broken programs and people with a grudge make."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from hypothesis import strategies as st

from tests.support.require import need
from tests.unit.zips import (
    BZIP2,
    DEFLATED,
    LZMA,
    SAMPLE,
    STORED,
    Member,
    handmade,
    python_zip,
    with_zip64_end,
    zip64_extra,
)

_RECORDS: Final[dict[bytes, tuple[int, ...]]] = {
    b"PK\3\4": (4, 6, 8, 10, 14, 18, 22, 26, 28),
    b"PK\1\2": (4, 6, 8, 10, 12, 16, 20, 24, 28, 30, 32, 34, 42),
    b"PK\5\6": (4, 6, 8, 10, 12, 16, 20),
    b"PK\6\6": (4, 12, 14, 16, 20, 24, 32, 40, 48),
    b"PK\6\7": (4, 8, 16),
}
"""Signature → where the fields of that record begin (APPNOTE §4.3)."""

_VALUES: Final = (0, 1, 2, 5, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)


@cache
def seeds() -> tuple[bytes, ...]:
    """Sound ZIPs of several makers, by every method and with every kind of record."""
    ours = [
        python_zip(),
        python_zip(BZIP2),
        python_zip(LZMA, comment=b"comment"),
        python_zip(STORED, comment=b"a longer comment " * 9),
        python_zip(STORED, zip64=True, stream=True),
        python_zip(DEFLATED, stream=True),
        with_zip64_end(handmade(Member(), Member(name=b"b", extra=zip64_extra(5, 5)))),
        with_zip64_end(python_zip()),
        handmade(Member(), Member(name=b"dir/", data=b""), Member(name="é.txt".encode(), flags=1 << 11), gap=b"gap"),
    ]
    return (*ours, *_of_other_makers())


def _of_other_makers() -> list[bytes]:
    need("zip", "7z")
    with TemporaryDirectory() as home:
        for name, data in SAMPLE.items():
            path = Path(home, name)
            path.parent.mkdir(exist_ok=True)
            if data:
                path.write_bytes(data)
        for command in ("zip -q -r -X a.zip job", "zip -q -r b.zip job", "7z a -bso0 c.zip job", "7z a -mx0 d.zip job"):
            subprocess.run(command.split(), cwd=home, check=True, stdout=subprocess.DEVNULL)
        return [Path(home, name).read_bytes() for name in ("a.zip", "b.zip", "c.zip", "d.zip")]


def _records(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    for signature in _RECORDS:
        at = data.find(signature)
        while at >= 0:
            found.append((at, signature))
            at = data.find(signature, at + 1)
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Change:
    """One change; its numbers are taken modulo what there is, so that any numbers make sense."""

    kind: str
    a: int
    b: int
    c: int
    data: bytes

    def apply(self, zip_file: bytes) -> bytes:
        """The changed file."""
        return globals()[f"_{self.kind}"](zip_file, self) if zip_file else self.data


def _flip(data: bytes, change: Change) -> bytes:
    at = change.a % len(data)
    return data[:at] + bytes([data[at] ^ 1 << change.b % 8]) + data[at + 1 :]


def _flip_near_end(data: bytes, change: Change) -> bytes:
    return _flip(data, Change("flip", len(data) - 1 - change.a % min(len(data), 400), change.b, 0, b""))


def _truncate(data: bytes, change: Change) -> bytes:
    return data[: change.a % len(data)]


def _insert(data: bytes, change: Change) -> bytes:
    at = change.a % (len(data) + 1)
    return data[:at] + change.data + data[at:]


def _remove(data: bytes, change: Change) -> bytes:
    at = change.a % len(data)
    return data[:at] + data[at + 1 + change.b % 60 :]


def _prepend(data: bytes, change: Change) -> bytes:
    return change.data + data


def _append(data: bytes, change: Change) -> bytes:
    return data + change.data


def _append_zip(data: bytes, change: Change) -> bytes:
    return data + seeds()[change.a % len(seeds())]


def _splice(data: bytes, change: Change) -> bytes:
    other = seeds()[change.a % len(seeds())]
    return data[: change.b % (len(data) + 1)] + other[change.c % len(other) :]


def _field(data: bytes, change: Change) -> bytes:
    """One field of one record says something else."""
    if not (records := _records(data)):
        return data
    at, signature = records[change.a % len(records)]
    offset = at + _RECORDS[signature][change.b % len(_RECORDS[signature])]
    width = (2, 4, 8)[change.c % 3]
    value = (*_VALUES, len(data), at, offset)[change.c // 3 % (len(_VALUES) + 3)] % (1 << 8 * width)
    return data[:offset] + value.to_bytes(width, "little") + data[offset + width :]


def _end(data: bytes) -> tuple[int, int, int] | None:
    """Where the end record is, and the directory's size and offset by it."""
    at = data.rfind(b"PK\5\6")
    if at < 0 or len(data) < at + 22:
        return None
    size, offset = struct.unpack_from("<2L", data, at + 12)
    return (at, size, offset) if offset + size <= at else None


def _double_directory(data: bytes, change: Change) -> bytes:
    """The central directory stands there twice; the end record speaks of one of them, or of both."""
    if (found := _end(data)) is None:
        return data
    at, size, offset = found
    directory, entries = data[offset : offset + size], int.from_bytes(data[at + 10 : at + 12], "little")
    said = ((entries, size, offset + size), (entries, size, offset), (2 * entries, 2 * size, offset))[change.a % 3]
    end = struct.pack("<4s4H2L", b"PK\5\6", 0, 0, said[0] & 0xFFFF, said[0] & 0xFFFF, said[1], said[2])
    return data[: offset + size] + directory + data[offset + size : at] + end + data[at + 20 :]


def _rename(data: bytes, change: Change) -> bytes:
    """A name, wherever it stands, becomes another of the same length."""
    names = [b"job/a.txt", b"job/b.bin", b"a.txt", b"job/"]
    name = names[change.a % len(names)]
    other = (b"../" + change.data + b"/x" * 9, b"/" + change.data + b"y" * 9, b"..\\" + b"z" * 9, b"C:" + b"w" * 9)
    return data.replace(name, other[change.b % len(other)][: len(name)])


_KINDS: Final = (
    *("flip", "flip_near_end", "truncate", "insert", "remove", "prepend", "append", "append_zip", "splice"),
    *("field", "field", "field", "field", "double_directory", "rename"),
)
_numbers = st.integers(0, 1 << 16)
changes = st.builds(Change, st.sampled_from(_KINDS), _numbers, _numbers, _numbers, st.binary(max_size=40))
"""Any one change."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A sound ZIP and what was done to it."""

    seed: int
    changes: tuple[Change, ...]

    def build(self) -> bytes:
        """Its bytes."""
        data = seeds()[self.seed % len(seeds())]
        for change in self.changes:
            data = change.apply(data)
        return data


mutants = st.builds(Mutant, st.integers(0, 12), st.lists(changes, min_size=1, max_size=4).map(tuple))
"""Any mutated ZIP."""
