"""One no-clobber rename: by the kernel, and where the file system can't, by looking first."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tfwatch.spool import renames
from tfwatch.spool.renames import rename_noreplace


@pytest.fixture(params=["kernel", "fallback", "no such call"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the rename is made: by renameat2, by one that refuses the flag as some file systems do, or without it."""
    if request.param == "fallback":
        monkeypatch.setattr(renames, "_renameat2", refusing(errno.EINVAL))
    elif request.param == "no such call":
        monkeypatch.setattr(renames, "_renameat2", None)
    return str(request.param)


def refusing(code: int) -> Callable[..., int]:
    """renameat2 of a file system that can't do it."""

    def renameat2(*arguments: object) -> int:
        renames.ctypes.set_errno(code)
        return -1

    return renameat2


def test_a_free_place_is_taken(tmp_path: Path, way: str) -> None:
    """The file goes, names of any bytes included; only the kernel's way is called atomic."""
    source, target = tmp_path / os.fsdecode(b"-\xff\n.zip"), tmp_path / os.fsdecode(b"=\xfe.zip")
    source.write_text("1")

    assert (way == "kernel") is rename_noreplace(str(source), str(target))
    assert "1" == target.read_text()
    assert not source.exists()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_a_taken_place_is_left_alone(tmp_path: Path, way: str, make: Callable[[Path], None]) -> None:
    """A file, a folder, a dangling link: the target stays as it is and so does the source."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("1")
    make(target)
    before = target.lstat()

    with pytest.raises(FileExistsError) as raised:
        rename_noreplace(str(source), str(target))
    assert (str(source), str(target)) == (raised.value.filename, raised.value.filename2)
    assert before == target.lstat()
    assert "1" == source.read_text()


def test_a_source_that_is_gone_is_said(tmp_path: Path, way: str) -> None:
    """The caller can tell a missing source from a taken place."""
    with pytest.raises(FileNotFoundError):
        rename_noreplace(str(tmp_path / "a"), str(tmp_path / "b"))


def test_a_link_is_moved_and_not_followed(tmp_path: Path, way: str) -> None:
    """What is renamed is the name, never what it points to."""
    (tmp_path / "secret").write_text("1")
    (tmp_path / "a").symlink_to("secret")
    rename_noreplace(str(tmp_path / "a"), str(tmp_path / "b"))

    assert "secret" == os.readlink(tmp_path / "b")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_each_way_of_saying_no_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """File systems and old kernels refuse the flag in three ways: each leads to the second best way."""
    (tmp_path / "a").touch()
    monkeypatch.setattr(renames, "_renameat2", refusing(code))

    assert not rename_noreplace(str(tmp_path / "a"), str(tmp_path / "b"))
    assert ["b"] == os.listdir(tmp_path)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EACCES, errno.ENOSPC, errno.EIO])
def test_other_errors_are_not_worked_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Another file system, a missing right, a full or dead disk: said as it is, nothing tried behind its back."""
    (tmp_path / "a").touch()
    monkeypatch.setattr(renames, "_renameat2", refusing(code))

    with pytest.raises(OSError, match="a") as raised:
        rename_noreplace(str(tmp_path / "a"), str(tmp_path / "b"))
    assert code == raised.value.errno
    assert ["a"] == os.listdir(tmp_path)


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    """Sixteen threads want one name, fifty times over: each time one gets it, and no file is lost."""
    for n in range(50):
        target, won = str(tmp_path / f"target-{n}"), []
        barrier = threading.Barrier(16)

        def run(source: str, target: str = target, won: list[str] = won, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                rename_noreplace(source, target)
            except FileExistsError:
                return
            won.append(source)

        sources = [tmp_path / f"{n}-{m}" for m in range(16)]
        for source in sources:
            source.write_text(str(source))
        threads = [threading.Thread(target=run, args=(str(source),)) for source in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 1 == len(won)
        assert won == [Path(target).read_text()]
        assert 15 == sum(source.exists() for source in sources)
