"""log.csv as it is written: what is appended is on disk, together and in order, or the caller hears why not."""

from __future__ import annotations

import csv
import errno
import hashlib
import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.logs import NOON, five_rows, moved, names, opened
from tfwatch.ledger.log import LogPoisoned, LogUnwritable, Position, read_log
from tfwatch.ledger.rows import HEADER, cells
from tfwatch.model import DeliveryRecord, Event, Fact


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.001)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


@pytest.fixture
def rows(path: Path) -> list[bytes]:
    """The lines of the log at `path`, header first: it has five rows."""
    return five_rows(path)


# --- writing and reading ----------------------------------------------------------------------------------------------


def test_a_new_log_is_its_header(path: Path) -> None:
    """A missing log is made whole, readable by its group and nobody else."""
    with opened(path) as log:
        assert (Position.start(), 0) == (log.position, log.cut)

    assert HEADER == path.read_bytes()
    assert 0o640 == path.stat().st_mode & 0o7777
    assert ["log.csv"] == os.listdir(path.parent)


def test_what_is_appended_is_read_back(path: Path) -> None:
    """Records come back from the file exactly as `append` returned them, across runs."""
    with opened(path) as log:
        first = log.append([moved("a"), moved("\udcff,\"'=\n")])
    with opened(path) as log:
        second = log.append([moved("c")])
        end = log.position

    read = list(read_log(str(path)))
    assert [*first, *second] == [record for record, _ in read]
    assert [1, 2, 3] == [position.seq for _, position in read]
    assert Position(offset=path.stat().st_size, seq=3, chain=second[0].chain) == end == read[-1][1]


def test_nothing_to_append_is_nothing(path: Path) -> None:
    """No facts, no row."""
    with opened(path) as log:
        assert () == log.append([])

    assert HEADER == path.read_bytes()


def test_strangers_can_read_and_verify_it(path: Path, rows: list[bytes]) -> None:
    """Python's csv module reads the cells, and ten lines written from the contract alone verify the chain."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file, strict=True)
    assert "seq,at,exec_id" == ",".join(header[:3])
    assert lines == [list(cells(record)) for record, _ in read_log(str(path))]

    raw_header, *raw_lines = path.read_bytes().removesuffix(b"\r\n").split(b"\r\n")
    previous = hashlib.sha256(raw_header).hexdigest()
    for n, raw in enumerate(raw_lines, 1):
        row, chain = raw.rsplit(b",", 1)
        assert hashlib.sha256(previous.encode() + b"\n" + row).hexdigest() == chain.decode()
        assert row.startswith(b"%d," % n)
        previous = chain.decode()


def test_reading_can_begin_and_end_anywhere(path: Path, rows: list[bytes]) -> None:
    """From any row's position the rest is read, up to any later one."""
    read = list(read_log(str(path)))

    for n, (_, start) in enumerate(read, 1):
        assert read[n:] == list(read_log(str(path), start))
        assert read[:n] == list(read_log(str(path), end=start))


def test_time_never_runs_backwards(path: Path) -> None:
    """When the clock is set back, rows keep the last moment: within one run and across runs."""
    ticks = iter([NOON, NOON - timedelta(hours=1), NOON - timedelta(hours=2), NOON + timedelta(seconds=1)])
    for _ in range(2):
        with opened(path, clock=lambda: next(ticks)) as log:
            log.append([moved("a")])
            log.append([moved("b")])

    assert [NOON, NOON, NOON, NOON + timedelta(seconds=1)] == [record.at for record, _ in read_log(str(path))]


def test_time_never_runs_backwards_after_a_start_at_the_end(path: Path) -> None:
    """Also when not a single row needs to be verified at open."""
    with opened(path) as log:
        log.append([moved("a")])
        end = log.position
    with opened(path, start=end, clock=lambda: NOON - timedelta(days=1)) as log:
        assert NOON == log.append([moved("b")])[0].at


def test_a_fact_that_fits_in_no_row_harms_nobody(path: Path) -> None:
    """The caller who handed in a bug hears of it; the log goes on."""
    with opened(path) as log:
        with pytest.raises(ValueError, match="-1"):
            log.append([moved("a"), Fact(event=Event.MOVED, bytes=-1)])
        log.append([moved("b")])

    assert ["b"] == names(path)


def test_after_close_nothing_is_taken(path: Path) -> None:
    """Close commits, is idempotent, and a later append is an error."""
    with opened(path) as log:
        log.append([moved("a")])
        log.close()
        with pytest.raises(RuntimeError, match="closed"):
            log.append([moved("b")])

    assert ["a"] == names(path)


# --- group commit -----------------------------------------------------------------------------------------------------


class Gate:
    """A disk whose syncs can be held back, and counted."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.syncs = 0

    def sync(self, fd: int) -> None:
        self.syncs += 1
        self.entered.set()
        assert self.open.wait(20)
        os.fdatasync(fd)


def test_what_waits_is_committed_with_one_sync(path: Path) -> None:
    """While one group is being synced, all who come share the next sync."""
    gate = Gate()
    with opened(path, sync=gate.sync) as log, ThreadPoolExecutor(41) as threads:
        gate.syncs = 0
        gate.open.clear()
        gate.entered.clear()
        first = threads.submit(log.append, [moved("first")])
        assert gate.entered.wait(20)
        others = [threads.submit(log.append, [moved(str(n))]) for n in range(40)]
        wait_until(lambda: log._queue.qsize() == 40)
        assert not first.done()
        gate.open.set()
        seqs = sorted(other.result(20)[0].seq for other in others)

    assert list(range(2, 42)) == seqs
    assert 2 == gate.syncs


def test_many_threads_lose_and_mix_nothing(path: Path) -> None:
    """Each append stays contiguous, every caller's record is on disk, and the projection is told in order."""
    told: list[DeliveryRecord] = []
    positions: list[Position] = []

    def on_commit(records: Sequence[DeliveryRecord], position: Position) -> None:
        told.extend(records)
        positions.append(position)

    def work(worker: int) -> list[tuple[DeliveryRecord, ...]]:
        return [log.append([moved(f"{worker}-{n}-{part}") for part in range(3)]) for n in range(25)]

    with opened(path, on_commit=on_commit) as log, ThreadPoolExecutor(16) as threads:
        returned = [records for calls in threads.map(work, range(16)) for records in calls]

    on_disk = list(read_log(str(path)))
    assert 16 * 25 * 3 == len(on_disk)
    assert told == [record for record, _ in on_disk]
    assert positions == [position for _, position in on_disk if position in positions]
    for records in returned:
        assert list(records) == told[records[0].seq - 1 : records[0].seq + 2]


def test_the_projection_is_told_before_the_caller(path: Path) -> None:
    """Whoever returns from `append` finds the projection up to date."""
    told: list[int] = []
    with opened(path, on_commit=lambda records, _: told.extend(record.seq for record in records)) as log:
        for n in range(1, 20):
            log.append([moved("a")])
            assert list(range(1, n + 1)) == told


def test_a_large_append_is_synced_in_pieces(path: Path) -> None:
    """No crash can tear more than is accepted as torn: a long group is written and synced piece by piece."""
    sizes: list[int] = []
    with opened(path, sync=lambda fd: sizes.append(os.fstat(fd).st_size)) as log:
        records = log.append([moved(f"{n}", "x" * 500) for n in range(2000)])

    assert list(range(1, 2001)) == [record.seq for record in records]
    assert path.stat().st_size == sizes[-1]
    assert max(after - before for before, after in itertools.pairwise(sizes)) < 256 * 1024


# --- failing disks ----------------------------------------------------------------------------------------------------


class FailingWrites:
    """`os.write` on a disk with room for only so many more bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, code: int) -> None:
        self.room: int | None = None
        self._code = code
        self._write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, fd: int, data: memoryview) -> int:
        if self.room is None:
            return self._write(fd, data)
        if self.room == 0:
            raise OSError(self._code, os.strerror(self._code))
        written = self._write(fd, data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 200, 400])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_no_trace(path: Path, monkeypatch: pytest.MonkeyPatch, room: int, code: int) -> None:
    """An append without room is in the log not at all, not even its first rows; with room again, it goes on."""
    disk = FailingWrites(monkeypatch, code=code)
    told: list[str] = []
    with opened(path, on_commit=lambda records, _: told.extend(record.package for record in records)) as log:
        log.append([moved("a")])
        before = path.read_bytes()
        disk.room = room
        with pytest.raises(LogUnwritable) as caught:
            log.append([moved("b"), moved("c"), moved("d")])
        assert (code, str(path)) == (caught.value.errno, caught.value.filename)
        assert before == path.read_bytes()
        log.check_inode()
        disk.room = None
        log.append([moved("e")])

    assert ["a", "e"] == names(path) == told


def test_rows_synced_before_the_disk_was_full_are_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a long append that fails after its first pieces is in the log not at all."""
    disk = FailingWrites(monkeypatch, code=errno.ENOSPC)
    with opened(path) as log:
        disk.room = 300_000
        with pytest.raises(LogUnwritable):
            log.append([moved(str(n), "x" * 500) for n in range(1000)])

    assert HEADER == path.read_bytes()


def test_short_writes_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes seven bytes at a time gets all of them."""
    write = os.write
    with opened(path) as log:
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
        log.append([moved("a"), moved("b")])

    assert ["a", "b"] == names(path)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO])
def test_any_other_write_error_is_final(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """An error that says nothing about room poisons the log; the half row is taken back all the same."""
    disk = FailingWrites(monkeypatch, code=code)
    with opened(path) as log:
        disk.room = 10
        with pytest.raises(LogPoisoned):
            log.append([moved("a")])
        disk.room = None
        with pytest.raises(LogPoisoned):
            log.append([moved("b")])

    assert HEADER == path.read_bytes()


def test_the_end_of_the_log_is_written_again_before_it_is_believed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed fdatasync of an earlier run may have left rows in memory alone: a start puts them on disk itself."""
    with opened(path) as log:
        for _ in range(3):
            log.append([moved(str(n), "x" * 500) for n in range(300)])
    before = path.read_bytes()
    done: list[tuple[str, int]] = []
    pwrite = os.pwrite

    def written(fd: int, data: bytes, offset: int) -> int:
        done.append(("write", offset))
        assert data == before[offset : offset + len(data)]
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", written)
    with opened(path, sync=lambda fd: done.append(("sync", os.fstat(fd).st_size))):
        pass

    assert before == path.read_bytes()
    *writes, sync = done
    assert ("sync", len(before)) == sync
    assert len(before) - 64 * 1024 - 1024 >= writes[0][1], "all that may have been written between two syncs"
    assert writes[-1][1] + 64 * 1024 >= len(before)


def test_a_failed_sync_is_final(path: Path) -> None:
    """After a failed fdatasync every present and later append fails, and no second sync is tried."""
    gate = Gate()
    failing = threading.Event()

    def sync(fd: int) -> None:
        gate.sync(fd)
        if failing.is_set():
            raise OSError(errno.EIO, "Input/output error")

    told: list[str] = []
    with (
        opened(path, sync=sync, on_commit=lambda records, _: told.append(records[0].package)) as log,
        ThreadPoolExecutor(4) as threads,
    ):
        log.append([moved("a")])
        gate.open.clear()
        gate.entered.clear()
        failing.set()
        calls = [threads.submit(log.append, [moved("b")])]
        assert gate.entered.wait(20)
        calls += [threads.submit(log.append, [moved("c")]) for _ in range(3)]
        wait_until(lambda: log._queue.qsize() == 3)
        syncs = gate.syncs
        gate.open.set()
        assert [LogPoisoned] * 4 == [type(call.exception(20)) for call in calls]
        failing.clear()
        with pytest.raises(
            LogPoisoned, match=r"log\.csv takes no more rows: .*Input/output error on fsync.*start tfwatch again"
        ):
            log.append([moved("d")])
        assert syncs == gate.syncs

    assert ["a"] == told


def test_a_failed_take_back_is_final(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the half row can't be cut, nothing may follow it; the next start mends it."""
    disk = FailingWrites(monkeypatch, code=errno.ENOSPC)

    def ftruncate(fd: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with opened(path) as log:
        log.append([moved("a")])
        disk.room = 10
        with monkeypatch.context() as patched:
            patched.setattr(os, "ftruncate", ftruncate)
            with pytest.raises(LogPoisoned):
                log.append([moved("b")])
        disk.room = None
        with pytest.raises(LogPoisoned):
            log.append([moved("c")])
    with opened(path) as log:
        assert (10, 1) == (log.cut, log.position.seq)


def test_a_projection_that_fails_is_final(path: Path) -> None:
    """A projection with a gap would be believed: when it can't be told, nothing more is taken."""

    def on_commit(records: Sequence[DeliveryRecord], position: Position) -> None:
        raise ValueError("no such table")

    with opened(path, on_commit=on_commit) as log:
        for name in "ab":
            with pytest.raises(LogPoisoned, match="no such table"):
                log.append([moved(name)])

    assert ["a"] == names(path)


@pytest.mark.root
def test_a_really_full_disk(tmp_path: Path) -> None:
    """On a real file system without room appends fail cleanly, and work again once something is deleted."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        path, ballast = mount / "log.csv", mount / "ballast"
        ballast.write_bytes(b"x" * 128 * 1024)
        with opened(path) as log:
            with pytest.raises(LogUnwritable):  # noqa: PT012  how many fit is the file system's business
                for n in range(10_000):
                    log.append([moved(str(n), "x" * 100)])
            stayed = log.position
            assert path.stat().st_size == stayed.offset
            ballast.unlink()
            log.append([moved("more")])
        assert stayed.seq + 1 == len(names(path))
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_who_waits_for_long_may_do_something_meanwhile(path: Path) -> None:
    """While the projection can't take a group, each waiting thread is called, and the row is on disk already."""
    ready, called = threading.Event(), threading.Event()
    with opened(path, on_commit=lambda records, position: ready.wait(20) and None) as log:
        log.while_waiting = called.set
        thread = threading.Thread(target=log.append, args=([moved("a")],))
        thread.start()
        assert called.wait(20)
        assert ["a"] == names(path)
        ready.set()
        thread.join(20)
        assert not thread.is_alive()
