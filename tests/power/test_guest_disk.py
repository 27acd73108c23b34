"""The disk that forgets: held against what a drive with a volatile cache may do, over its own protocol."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.guest_disk import PAGE, Loss, VolatileDisk

READ, WRITE, FLUSH = 0, 1, 3
GO = 7


class Client:
    """The guest's side: one request after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rwb")
        self._file.read(18)
        self._send(struct.pack(">I", 1) + b"IHAVEOPT" + struct.pack(">II", GO, 0))
        while True:
            _, _, kind, length = struct.unpack(">QIII", self._file.read(20))
            self._file.read(length)
            if kind == 1:
                return

    def close(self) -> None:
        self._file.close()

    def _send(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    def send(self, what: int, offset: int = 0, length: int = 0, data: bytes = b"") -> None:
        self._send(struct.pack(">IHHQQI", 0x25609513, 0, what, 7, offset, length or len(data)) + data)

    def ask(self, what: int, offset: int = 0, length: int = 0, data: bytes = b"") -> bytes:
        self.send(what, offset, length, data)
        magic, error, handle = struct.unpack(">IIQ", self._file.read(16))
        assert (0x67446698, 0, 7) == (magic, error, handle)
        return self._file.read(length)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[VolatileDisk]:
    """A small one, full of noughts."""
    (tmp_path / "disk").write_bytes(bytes(16 * PAGE))
    with VolatileDisk(tmp_path / "disk") as served:
        yield served


@contextmanager
def plugged_in(disk: VolatileDisk) -> Iterator[Client]:
    host, _, port = disk.address.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.settimeout(30)
        client = Client(connection)
        yield client
        client.close()


def test_what_was_flushed_stays(disk: VolatileDisk) -> None:
    """Whatever the cut does to the cache, flushed pages are as they were written last before the flush."""
    for seed in range(20):
        with plugged_in(disk) as guest:
            guest.ask(WRITE, PAGE, data=b"a" * PAGE)
            guest.ask(WRITE, PAGE + 512, data=bytes([seed]) * 512)
            guest.ask(FLUSH)
            disk.fall()
            assert 0 == disk.forget(random.Random(seed)).lost
        with plugged_in(disk) as guest:
            assert b"a" * 512 + bytes([seed]) * 512 + b"a" * 3072 == guest.ask(READ, PAGE, PAGE)


def test_what_was_not_flushed_may_go_in_any_order(disk: VolatileDisk) -> None:
    """Each page is one of its versions, the later one also where an earlier page is gone; and at least one is lost."""
    found = set()
    for seed in range(60):
        with plugged_in(disk) as guest:
            guest.ask(WRITE, 0, data=b"0" * 2 * PAGE)
            guest.ask(FLUSH)
            for version in (b"1", b"2"):
                guest.ask(WRITE, 0, data=version * 2 * PAGE)
            assert b"2" * 2 * PAGE == guest.ask(READ, 0, 2 * PAGE)
            disk.fall()
            loss = disk.forget(random.Random(seed))
            assert 2 == loss.waiting
            assert loss.lost
        with plugged_in(disk) as guest:
            whole = guest.ask(READ, 0, 2 * PAGE)
        pages = whole[:PAGE], whole[PAGE:]
        assert all(page == page[:1] * PAGE for page in pages)
        found.add((whole[:1] + whole[PAGE:][:1]).decode())
    assert {"00", "02", "20", "01", "10"} <= found, found
    assert "22" not in found


def test_a_flush_that_was_cut_was_not_done(disk: VolatileDisk) -> None:
    """The power falls at the second flush that has work: the first one holds, the second is never answered."""
    disk.cut_at_flush(2)
    with plugged_in(disk) as guest:
        for version in (b"1", b"2"):
            guest.ask(WRITE, 0, data=version * PAGE)
            guest.send(FLUSH) if version == b"2" else guest.ask(FLUSH)
        assert disk.fell.wait(30)
        assert Loss(waiting=1, lost=1) == disk.forget(random.Random(0))
    with plugged_in(disk) as guest:
        assert b"1" * PAGE == guest.ask(READ, 0, PAGE)
