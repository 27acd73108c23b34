"""What a failing disk is told as, and what is made of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tfwatch import disk
from tfwatch.disk import NotSynced, Unworkable, told
from tfwatch.errors import Unreadable
from tfwatch.spool.reader import reader_of

KNOWN = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOLCK)


@pytest.mark.parametrize("code", KNOWN, ids=errno.errorcode.get)
def test_a_line_says_which_file_what_and_what_to_do(code: int) -> None:
    """All three parts are in it, and it is one line."""
    line = told(OSError(code, os.strerror(code), "/spool/log.csv")) or ""
    assert line.startswith(f"/spool/log.csv: {os.strerror(code)}; ")
    assert line.endswith("then start tfwatch again; what was under way is found out then")
    assert "\n" not in line


def test_a_rename_names_both_files() -> None:
    """Where from and where to."""
    line = told(OSError(errno.EROFS, "Read-only file system", "/spool/a", None, "/spool/b")) or ""
    assert line.startswith("/spool/a -> /spool/b: Read-only file system; ")


def test_a_bug_keeps_its_traceback() -> None:
    """What isn't the disk's doing, or names no file, is not told in a line."""
    assert told(ValueError("x")) is None
    assert told(OSError(errno.EBADF, "Bad file descriptor", "/spool/a")) is None
    assert told(OSError(errno.EIO, "Input/output error")) is None
    assert "all of it" == told(Unworkable("all of it"))


def test_a_descriptor_gets_its_path() -> None:
    """An error that says no file is given the one we know; one that says its file keeps it."""
    with pytest.raises(OSError, match="/known") as nameless, disk.about("/known"):
        raise OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="/its own"), disk.about("/known"):
        raise OSError(errno.EIO, "Input/output error", "/its own")
    assert "/known" == nameless.value.filename


def test_a_failed_sync_says_that_nothing_is_known(tmp_path: Path) -> None:
    """It is an error of its own kind, so that nobody takes it for a file that wasn't written."""

    def fails(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(NotSynced) as caught:
        disk.sync(0, "/spool/log.csv", fails)

    assert "Input/output error on fsync, so it can't be known what of it is on disk" in (told(caught.value) or "")
    assert not disk.is_of_one_file(caught.value)


def test_a_package_that_cannot_be_read_concerns_it_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bad sector voids this attempt; running out of files is no matter of one package."""
    path = tmp_path / "a.zip"
    path.write_bytes(b"12345")
    codes = iter((errno.EIO, errno.ENOMEM))

    def preadv(fd: int, buffers: object, offset: int) -> int:
        raise OSError(code := next(codes), os.strerror(code))

    with path.open("rb") as file, reader_of(file.fileno()) as reader:
        assert b"123" == reader.read(3)
        monkeypatch.setattr(os, "preadv", preadv)
        with pytest.raises(Unreadable, match="can't be read: Input/output error"):
            reader.read(3)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            reader.read(3)
