"""A large new file comes whole and at once, or not at all, and over nobody's file."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from tfwatch.spool.placing import placing, remove_abandoned


def hidden(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


def test_it_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Until then nothing of that name is there; then it has its bytes and its mode, and nothing else stays."""
    with placing(str(tmp_path), "p.zip", mode=0o640) as file:
        file.write(b"whole")
        assert not (tmp_path / "p.zip").exists()

    assert ["p.zip"] == os.listdir(tmp_path)
    assert b"whole" == (tmp_path / "p.zip").read_bytes()
    assert 0 == stat.S_IMODE((tmp_path / "p.zip").stat().st_mode) & ~0o640


def half_written(folder: Path) -> None:
    with placing(str(folder), "p.zip", mode=0o640) as file:
        file.write(b"half")
        raise KeyboardInterrupt


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    """The writer raises: neither the file nor a half of it is there."""
    with pytest.raises(KeyboardInterrupt):
        half_written(tmp_path)

    assert [] == os.listdir(tmp_path)


def test_nobodys_file_is_replaced(tmp_path: Path) -> None:
    """Whether it was there before or came meanwhile, a link that leads nowhere included."""
    (tmp_path / "p.zip").symlink_to("nowhere")
    with pytest.raises(FileExistsError), placing(str(tmp_path), "p.zip", mode=0o640):
        pytest.fail("nothing is begun")
    with pytest.raises(FileExistsError), placing(str(tmp_path), "q.zip", mode=0o640):
        (tmp_path / "q.zip").write_bytes(b"mine")

    assert b"mine" == (tmp_path / "q.zip").read_bytes()
    assert {"p.zip", "q.zip"} == set(os.listdir(tmp_path))


def test_what_the_dead_left_is_removed_and_what_the_living_write_is_not(tmp_path: Path) -> None:
    """A lock tells them apart; no other file is touched."""
    dead, note = tmp_path / ".0123456789ab.restoring", tmp_path / ".0123456789ab.tmp"
    dead.write_bytes(b"half")
    note.write_bytes(b"")
    with placing(str(tmp_path), "p.zip", mode=0o640) as file:
        file.write(b"whole")
        (alive,) = set(hidden(tmp_path)) - {dead.name, note.name}

        remove_abandoned(str(tmp_path))

        assert {alive, note.name} == set(hidden(tmp_path))
    assert {"p.zip", note.name} == set(os.listdir(tmp_path))


def test_it_is_locked_while_it_is_written(tmp_path: Path) -> None:
    """So that a daemon that starts meanwhile can tell."""
    with placing(str(tmp_path), "p.zip", mode=0o640):
        (name,) = hidden(tmp_path)
        fd = os.open(tmp_path / name, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
