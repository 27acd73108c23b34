"""What the disk does to the projection: what passes is waited for, what does not ends the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.host import mounted
from tests.support.require import need

_APPLY = """
import os, sys
from tfwatch.ledger.index import Index, IndexUnusable, IndexUnwritable
from tfwatch.ledger.log import Position
try:
    index = Index(sys.argv[1])
    for n in range(50):
        index.apply([], Position(offset=n, seq=n, chain="a" * 64))
        index.move_sheet_cursor("x" * 100_000, Position.start())
except (IndexUnusable, IndexUnwritable) as error:
    print(type(error).__name__, error, flush=True)
os._exit(0)
"""


def _applied_under_strace(folder: Path, call: str, error: str, when: str) -> str:
    """What an index says in a process of its own, in which this call fails from then on."""
    inject = f"inject={call}:error={error}:when={when}"
    command = [need("strace"), "-f", "-qq", "-o", os.devnull, "-e", inject, sys.executable, "-c", _APPLY]
    done = subprocess.run([*command, str(folder / "index.sqlite")], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_quota_that_is_used_up_is_waited_for(tmp_path: Path) -> None:
    """SQLite calls it an I/O error and the disk has room: found out by writing a little, of which nothing stays."""
    said = _applied_under_strace(tmp_path, "pwrite64", "EDQUOT", "20+")

    assert said.startswith("IndexUnwritable ")
    assert "Disk quota exceeded" in said
    assert {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm"} == {each.name for each in tmp_path.iterdir()}


def test_a_disk_that_fails_is_not_waited_for(tmp_path: Path) -> None:
    """Writing fails and there is room: that does not pass by itself."""
    assert _applied_under_strace(tmp_path, "pwrite64", "EIO", "20+").startswith("IndexUnusable ")


def test_a_file_that_is_locked_says_so(tmp_path: Path) -> None:
    """By another program, or because the disk grants no locks: told in words, as all that is not our own mistake."""
    said = _applied_under_strace(tmp_path, "fcntl", "ENOLCK", "20+")

    assert said.startswith("IndexUnusable ")
    assert "fuser" in said


@pytest.mark.root
def test_a_failed_sync_is_never_want_of_room(tmp_path: Path) -> None:
    """Also on a disk with next to no room: it would be tried again, and the kernel may then call lost pages written."""
    with mounted(tmp_path, "tmpfs", "size=900k"):
        assert _applied_under_strace(tmp_path, "fdatasync", "EIO", "1+").startswith("IndexUnusable ")
