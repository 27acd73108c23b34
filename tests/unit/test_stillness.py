"""How long files have been still."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tfwatch.spool.stillness import Stillness


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    path.write_bytes(b"one")
    return path


def test_first_sight_is_zero_however_old_the_file(path: Path) -> None:
    """The file's own times prove nothing: an old mtime does not make it still."""
    os.utime(path, (0, 0))

    assert 0.0 == Stillness().observe("a.zip", path.stat(), 100.0)


def test_an_unchanged_file_grows_still(path: Path) -> None:
    """Seconds count from the first look at what the file is now."""
    stillness = Stillness()
    stillness.observe("a.zip", path.stat(), 100.0)

    assert [2.5, 7.0] == [stillness.observe("a.zip", path.stat(), now) for now in (102.5, 107.0)]


@pytest.mark.parametrize("change", ["size", "mtime", "ctime", "inode"])
def test_any_change_starts_anew(path: Path, change: str) -> None:
    """A new size, mtime, ctime or inode each sets the count back to zero."""
    stillness = Stillness()
    path.chmod(0o600)
    before = path.stat()
    stillness.observe("a.zip", before, 100.0)
    match change:
        case "size":
            path.write_bytes(b"three")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "mtime":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 1_000_000_000))
        case "ctime":
            while path.stat().st_ctime_ns == before.st_ctime_ns:  # the kernel's clock ticks every few milliseconds
                path.chmod(0o640)
        case "inode":
            other = path.with_name("other")
            other.write_bytes(b"one")
            other.rename(path)

    assert 0.0 == stillness.observe("a.zip", path.stat(), 105.0)
    assert 1.0 == stillness.observe("a.zip", path.stat(), 106.0)


def test_forgotten_files_are_new_again(path: Path) -> None:
    """`forget` and `keep_only` drop what is known, and nothing else; forgetting a stranger is fine."""
    stillness = Stillness()
    for name in ("a", "b", "c\udcff"):
        stillness.observe(name, path.stat(), 0.0)

    stillness.forget("a")
    stillness.forget("never seen")
    stillness.keep_only({"a", "c\udcff"})

    assert [0.0, 0.0, 9.0] == [stillness.observe(name, path.stat(), 9.0) for name in ("a", "b", "c\udcff")]
