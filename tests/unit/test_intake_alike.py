"""What other programs would read otherwise than we do is not vouched for."""

from __future__ import annotations

import io
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.require import need
from tests.unit.zips import (
    DEFLATED,
    STORED,
    Member,
    handmade,
    opened,
    python_zip,
    with_zip64_end,
    zip64_extra,
)
from tfwatch.spool.intake import Limits, Unsound, inspect

LIMITS = Limits(max_bytes=1 << 20, max_entries=100, max_uncompressed_bytes=1 << 20)


def verdict(data: bytes) -> str:
    with opened(data) as fd:
        try:
            inspect(fd, LIMITS, verify="full", stopping=lambda: False, progress=lambda _: None)
        except Unsound as refused:
            return refused.code
    return "accepted"


def changed(at: int, value: bytes, signature: bytes, data: bytes | None = None) -> bytes:
    """A sound ZIP with other bytes at an offset into its first record of that kind."""
    whole = handmade(Member()) if data is None else data
    where = whole.index(signature) + at
    return whole[:where] + value + whole[where + len(value) :]


def test_a_zip_hidden_in_the_comment() -> None:
    """Other programs unpack the ZIP in the comment: we would vouch for one archive, and another would arrive."""
    hidden = handmade(Member(name=b"../../evil.sh"))
    data = python_zip(comment=hidden)

    assert ["../../evil.sh"] == zipfile.ZipFile(io.BytesIO(data)).namelist(), "the trap is set"
    assert "ambiguous" == verdict(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(python_zip(comment=b"a comment"), "accepted", id="a comment"),
        pytest.param(python_zip(comment=b"PK\5\6"), "ambiguous", id="a comment with a signature"),
        pytest.param(with_zip64_end(python_zip()), "accepted", id="ZIP64"),
        pytest.param(with_zip64_end(python_zip(), b"more"), "unsupported", id="more in the ZIP64 end record"),
        pytest.param(with_zip64_end(python_zip(), disks=0), "unsupported", id="no disk"),
        pytest.param(
            changed(8, b"\1\0", b"PK\5\6", with_zip64_end(handmade(Member()))), "unsupported", id="two counts"
        ),
        pytest.param(handmade(Member(name=b"folder/")), "corrupt", id="a folder with data"),
        pytest.param(handmade(Member(extra=b"\1\0\xff\0")), "corrupt", id="an extra field cut off"),
        pytest.param(handmade(Member(extra=b"\1\0\0\0\0")), "accepted", id="an extra field with padding"),
        pytest.param(handmade(Member(flags=1 << 5)), "unsupported", id="a patch"),
        pytest.param(changed(6, b"\x40", b"PK\1\2"), "unsupported", id="a version to come"),
        pytest.param(changed(34, b"\1", b"PK\1\2"), "corrupt", id="in another part"),
        pytest.param(changed(34, b"\xff\xff", b"PK\1\2"), "corrupt", id="in a part that no field names"),
        pytest.param(
            changed(34, b"\xff\xff", b"PK\1\2", handmade(Member(extra=struct.pack("<HHL", 1, 4, 0)))),
            "accepted",
            id="in the first part, by its ZIP64 field",
        ),
        pytest.param(
            changed(34, b"\xff\xff", b"PK\1\2", handmade(Member(extra=zip64_extra(5)))), "corrupt", id="and in none"
        ),
        pytest.param(handmade(Member(flags=1 << 11, local_flags=0)), "accepted", id="an ASCII name called UTF-8 once"),
        pytest.param(
            handmade(Member(name="é".encode(), flags=1 << 11, local_flags=0)), "corrupt", id="a name in two encodings"
        ),
        pytest.param(handmade(Member(flags=8, local_flags=0)), "corrupt", id="a descriptor by one header only"),
        pytest.param(handmade(Member(flags=2, local_flags=0)), "corrupt", id="other flags"),
    ],
)
def test_programs_that_differ(data: bytes, code: str) -> None:
    """Where a field makes Python, Info-ZIP or 7-Zip read something else or nothing, the archive is refused."""
    assert code == verdict(data)


def test_how_hard_the_deflater_tried_may_differ() -> None:
    """Programs write that into one header or both, and none reads it."""
    data = handmade(Member(method=DEFLATED, packed=b"\x01\x05\0\xfa\xffhello", flags=2, local_flags=0))
    assert "accepted" == verdict(data)


def make_zip(home: Path) -> None:
    subprocess.run(["zip", "-q", "-r", "-z", "a.zip", "in"], cwd=home, input=b"a comment\n", check=True)


def make_7z(home: Path) -> None:
    subprocess.run(["7z", "a", "-bso0", "a.zip", "in"], cwd=home, check=True)


def make_python(home: Path) -> None:
    with zipfile.ZipFile(home / "a.zip", "w", STORED) as archive:
        archive.write(home / "in", "in/")
        archive.write(home / "in/entrevista ação.txt", "in/entrevista ação.txt")


@pytest.mark.parametrize("make", [make_zip, make_7z, make_python])
def test_honest_makers_pass(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """None of this refuses what ordinary programs write, with folders, a comment and names that are not ASCII."""
    need("zip", "7z")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/entrevista ação.txt").write_text("olá " * 100)
    make(tmp_path)
    assert "accepted" == verdict((tmp_path / "a.zip").read_bytes())
