"""Writers as people use them: each leads to one order of exactly the finished file, never to an early or torn one."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.daemon import Spool, zip_bytes
from tests.support.host import mounted, unmet
from tests.support.portal import digest, ordered, orders_of
from tests.support.require import PROGRAMS, need
from tests.support.sshd import Sshd, sshd
from tfwatch.sandbox.server import Sandbox

CONTENT = random.Random(7).randbytes(3_000_000)
"""The member `audio.bin` of every package here; slow writers add their own name to it."""

Writer = Callable[[Path, Path], None]
"""Brings the package at the first path to the second; its folder holds the member `audio.bin` as well."""


def packed(content: bytes = CONTENT) -> bytes:
    return zip_bytes(members={"audio.bin": content})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A finished package outside the spool, beside its unpacked member."""
    home = tmp_path / "source"
    home.mkdir()
    (home / "audio.bin").write_bytes(CONTENT)
    (home / "ready.zip").write_bytes(packed())
    return home / "ready.zip"


def run(*words: str | Path, cwd: Path | None = None, stdin: str = "") -> None:
    if words[0] in PROGRAMS:
        need(str(words[0]))
    done = subprocess.run([*map(str, words)], cwd=cwd, input=stdin, capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr


def rsync_in_place(how: str, source: Path, target: Path) -> None:
    """It sets the file's times after it has closed it; when that is claimed already, it says 23: "some attributes"."""
    words = [need("rsync"), how, "--bwlimit=4000", str(source), str(target)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode in (0, 23), done.stderr


def assert_one_whole_order(sandbox: Sandbox, spool: Spool, name: str = "package.zip", content: bytes = CONTENT) -> None:
    """One order: that of the file which now lies in delivered/, and that file is whole."""
    spool.wait_for("delivered", name)
    delivered = (spool.root / "delivered" / name).read_bytes()
    with zipfile.ZipFile(io.BytesIO(delivered)) as archive:
        assert ["audio.bin"] == archive.namelist()
        assert content == archive.read("audio.bin")
    assert [digest(delivered)] == [order["sha256"] for order in orders_of(sandbox, name)], spool.picture()


# --- one after the other ----------------------------------------------------------------------------------------------


def move_from_another_file_system(source: Path, target: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == target.parent.stat().st_dev:
        unmet("/dev/shm is no other file system here")
    there = elsewhere / f"tfwatch-{os.getpid()}.zip"
    try:
        shutil.copyfile(source, there)
        run("mv", there, target)
    finally:
        there.unlink(missing_ok=True)


def copy_keeping_an_old_time(source: Path, target: Path) -> None:
    os.utime(source, (1_000_000_000, 1_000_000_000))
    run("cp", "-p", source, target)


def zip_to_stdout(source: Path, target: Path) -> None:
    need("zip")
    run("sh", "-c", 'zip -q -0 - audio.bin | cat > "$0"', target, cwd=source.parent)


WRITERS: dict[str, Writer] = {
    "cp": lambda source, target: run("cp", source, target),
    "cp -p": copy_keeping_an_old_time,
    "mv": lambda source, target: run("mv", source, target),
    "mv from another file system": move_from_another_file_system,
    "ln": lambda source, target: run("ln", source, target),
    "rsync": lambda source, target: run("rsync", "--bwlimit=4000", source, target),
    "rsync -a": lambda source, target: run("rsync", "-a", source, target),
    "rsync --inplace": lambda source, target: rsync_in_place("--inplace", source, target),
    "rsync --append": lambda source, target: rsync_in_place("--append", source, target),
    "zip": lambda source, target: run("zip", "-q", target, "audio.bin", cwd=source.parent),
    "zip to stdout": zip_to_stdout,
    "7z": lambda source, target: run("7z", "a", "-bso0", "-mx1", target, "audio.bin", cwd=source.parent),
    "dd in small blocks": lambda source, target: run("dd", f"if={source}", f"of={target}", "bs=4k", "oflag=dsync"),
    "truncate, then fill": lambda source, target: run("dd", f"if={source}", f"of={target}", "bs=64k", "conv=notrunc"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_tool_that_writes_into_the_outbox(sandbox: Sandbox, spool: Spool, source: Path, writer: str) -> None:
    """Whatever tool brings a ZIP, in place or by a rename: one order, of the whole file."""
    spool.start()
    WRITERS[writer](source, spool.root / "outbox" / "package.zip")
    assert_one_whole_order(sandbox, spool)
    assert 1 == ordered(sandbox).total()
    spool.assert_sound()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.mark.parametrize("tool", ["scp", "scp -O", "sftp", "sftp, renamed", "sftp, resumed"])
def test_a_package_that_comes_over_ssh(sandbox: Sandbox, spool: Spool, source: Path, server: Sshd, tool: str) -> None:
    """Scp and sftp write in place and slowly; an upload may break off and be taken up again: still one order."""
    spool.start()
    target = spool.root / "outbox" / "package.zip"
    limit = ("-l", "16000")
    if tool.startswith("scp"):
        run("scp", *tool.split()[1:], *limit, *server.options, source, f"{server.host}:{target}")
    else:
        commands = f"put {source} {target}\n"
        if tool == "sftp, renamed":
            commands = f"put {source} {target}.filepart\nrename {target}.filepart {target}\n"
        elif tool == "sftp, resumed":
            target.write_bytes(source.read_bytes()[:1_000_000])
            commands = f"reput {source} {target}\n"
        run("sftp", *limit, *server.options, "-b", "-", server.host, stdin=commands)
    assert_one_whole_order(sandbox, spool)
    assert 1 == ordered(sandbox).total()


# --- slow ones, all at once -------------------------------------------------------------------------------------------


def content_of(target: Path) -> bytes:
    """No two of them are the same, so that none waits behind another."""
    return CONTENT + target.name.encode()


def a_zip_with_pauses(target: Path) -> float:
    """Python's zipfile, as upstream writes its packages, pausing 4 s in mid-member and before the directory."""
    with target.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open("audio.bin", "w") as member:
            member.write(CONTENT[:1_000_000])
            file.flush()
            time.sleep(4)
            member.write(content_of(target)[1_000_000:])
        file.flush()
        time.sleep(4)
        archive.close()
        return time.monotonic()


def appended_with_gaps(target: Path) -> float:
    """Opened for append again and again, closed in between for longer than a scan takes."""
    content = packed(content_of(target))
    pieces = [content[at : at + 700_000] for at in range(0, len(content), 700_000)]
    for piece in pieces[:-1]:
        with target.open("ab") as file:
            file.write(piece)
        time.sleep(1.5)
    with target.open("ab") as file:
        file.write(pieces[-1])
        return time.monotonic()


def kept_open_when_complete(target: Path) -> float:
    """Complete, flushed and synced; but its writer doesn't let go."""
    with target.open("wb") as file:
        file.write(packed(content_of(target)))
        file.flush()
        os.fsync(file.fileno())
        time.sleep(5)
        return time.monotonic()


def completed_twice(target: Path) -> float:
    """A whole ZIP at first, then written over by a longer one through the same descriptor."""
    with target.open("w+b") as file:
        file.write(packed(b"not yet everything"))
        file.flush()
        time.sleep(3)
        file.seek(0)
        file.write(packed(content_of(target)))
        return time.monotonic()


def ending_in_an_inner_zip(target: Path) -> float:
    """Left closed for a while just where a stored ZIP inside it ends: a sloppy reader calls that complete."""
    inner = zip_bytes(seed=5)
    whole = zip_bytes(members={"inner.zip": inner, "audio.bin": content_of(target)})
    half = whole[: whole.index(inner) + len(inner)]
    target.write_bytes(half)
    assert zipfile.is_zipfile(target), "the trap is set"
    time.sleep(3)
    with target.open("ab") as file:
        file.write(whole[len(half) :])
        return time.monotonic()


def ragged(seed: int) -> Callable[[Path], float]:
    """Pieces of any length, pauses of any length, closed and opened again at any moment."""

    def write(target: Path) -> float:
        rng, content, at = random.Random(seed), packed(content_of(target)), 0
        file = target.open("ab", buffering=0)
        while at < len(content) - 1:
            at += file.write(content[at : min(len(content) - 1, at + rng.randrange(1, 600_000))])
            time.sleep(rng.choice((0, 0, 0.01, 0.3)))
            if rng.random() < 0.5:
                file.close()
                time.sleep(rng.choice((0, 0.01, 0.2)))
                file = target.open("ab", buffering=0)
        with file:
            done = time.monotonic()
            file.write(content[at:])
        return done

    return write


SLOW: dict[str, Callable[[Path], float]] = {
    "pauses.zip": a_zip_with_pauses,
    "gaps.zip": appended_with_gaps,
    "held.zip": kept_open_when_complete,
    "twice.zip": completed_twice,
    "inner.zip": ending_in_an_inner_zip,
    **{f"ragged-{seed}.zip": ragged(seed) for seed in range(12)},
}
"""Each writes one package and gives the moment (monotonic) before which nothing of it may have been sent."""


def test_slow_writers_are_waited_for(sandbox: Sandbox, spool: Spool) -> None:
    """However a writer pauses, closes and opens its file: nothing leaves before it is done, then the whole does."""
    sandbox.set_settings(portal={"verdict_delay": 0.0})
    spool.start()
    with ThreadPoolExecutor(len(SLOW)) as pool:
        writing = {name: pool.submit(write, spool.root / "outbox" / name) for name, write in SLOW.items()}
        finished = {name: future.result() for name, future in writing.items()}
    spool.wait_for("delivered", *SLOW)
    for name, done in finished.items():
        (order,) = orders_of(sandbox, name)
        assert order["first_byte_monotonic"] >= done, f"{name} was sent while it was still being written"
        delivered = (spool.root / "delivered" / name).read_bytes()
        assert digest(delivered) == order["sha256"], name
        with zipfile.ZipFile(io.BytesIO(delivered)) as archive:
            assert content_of(Path(name)) == archive.read("audio.bin"), name
    assert len(SLOW) == ordered(sandbox).total(), spool.picture()
    spool.assert_sound()


def test_a_waiting_package_may_still_grow(sandbox: Sandbox, spool: Spool) -> None:
    """While deliveries are off a finished ZIP lies in the outbox; one appended to there is sent as it is in the end."""
    spool.configure(integrations={"gotranscript": {"enabled": False}})
    spool.start()
    target = spool.drop("package.zip", members={"first.txt": b"first"})
    spool.wait_for_state(lambda state: state["stages"]["outbox"] == 1, "the daemon has seen it")
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("second.txt", b"second")
    spool.configure(integrations={"gotranscript": {"enabled": True}})
    spool.wait_for("delivered", "package.zip")
    assert {digest((spool.root / "delivered" / "package.zip").read_bytes()): 1} == ordered(sandbox)
    with zipfile.ZipFile(spool.root / "delivered" / "package.zip") as archive:
        assert ["first.txt", "second.txt"] == archive.namelist()


# --- where nothing proves that a writer is done -----------------------------------------------------------------------


@pytest.mark.root
def test_where_leases_do_not_count_a_file_must_be_still(sandbox: Sandbox, spool: Spool) -> None:
    """On a file system whose leases prove nothing, a ZIP is sent once it has been still for `settle_seconds`."""
    settle = 4.0
    spool.configure(spool={"settle_seconds": settle})
    with mounted(spool.root, "ramfs"):
        spool.start()
        target = spool.root / "outbox" / "package.zip"
        content = packed()
        with target.open("wb", buffering=0) as file:
            file.write(packed(b"complete, but not for long"))
            for at in range(0, len(content), 800_000):
                time.sleep(settle / 4)
                file.seek(at)
                file.write(content[at : at + 800_000])
            done = time.monotonic()
        assert_one_whole_order(sandbox, spool)
        (order,) = sandbox.orders()
        assert order["first_byte_monotonic"] >= done + settle
        spool.kill()
