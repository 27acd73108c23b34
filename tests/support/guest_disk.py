"""A virtual disk with a volatile write cache: an NBD server that forgets at a power cut what was never flushed.

What the guest wrote since its last flush is held in memory, page by page, in all its versions. At the cut each page
keeps one of them, or what the disk held before: a real drive writes its cache out in any order it likes. Flushed
pages are safe. The protocol is NBD's, newstyle, with simple replies (github.com/NetworkBlockDevice/nbd, doc/proto.md).
"""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

PAGE: Final = 4096

_OPTION: Final = 0x49484156454F5054
_OPTION_REPLY: Final = 0x3E889045565A9
_REQUEST: Final = 0x25609513
_REPLY: Final = 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_INFO, _GO, _ABORT = 6, 7, 2
_ACK, _INFO_REPLY, _UNSUPPORTED = 1, 3, 0x80000001
_HAS_FLAGS, _SENDS_FLUSH = 1, 4
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_EINVAL: Final = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What one cut did: pages that waited in the cache, and how many of them are not as last written."""

    waiting: int
    lost: int


class VolatileDisk:
    """One disk, kept in a file. `with VolatileDisk(file) as disk:` serves one guest after the other."""

    def __init__(self, file: Path) -> None:
        self.flushes = 0
        self.fell = threading.Event()
        self._fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        self._size = os.fstat(self._fd).st_size
        self._lock = threading.Lock()
        self._waiting: dict[int, list[bytes]] = {}
        self._cut_at: int | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connection: socket.socket | None = None
        self._unplugged = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="disk", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        if self._connection is not None:
            _hang_up(self._connection)
        self._thread.join()
        self._listener.close()
        os.close(self._fd)

    # --- the power --------------------------------------------------------------------------------------------------

    def cut_at_flush(self, number: int) -> None:
        """Let the power fall at the n-th flush from now that has anything to do, before it is done; then `fell`."""
        with self._lock:
            self._cut_at = self.flushes + number

    def fall(self) -> None:
        """The power falls now: nothing is read, written or answered any more."""
        with self._lock:
            self.fell.set()

    def forget(self, rng: random.Random) -> Loss:
        """What the cache's loss does to the disk, once the power fell. Afterwards the disk is ready for a new start."""
        assert self.fell.is_set()
        if self._connection is not None:
            _hang_up(self._connection)
            self._unplugged.wait()
        with self._lock:
            # One drive in three writes nothing out before it is asked to.
            keeps = rng.choice((0.0, rng.random(), rng.random()))
            waiting, lost = len(self._waiting), 0
            unlucky = rng.choice(list(self._waiting) or [None])
            for page, versions in self._waiting.items():
                kept = rng.randrange(len(versions)) if rng.random() < keeps and page != unlucky else -1
                lost += kept != len(versions) - 1
                if kept >= 0:
                    os.pwrite(self._fd, versions[kept], page * PAGE)
            self._waiting.clear()
            self._cut_at = None
            self.fell.clear()
        return Loss(waiting=waiting, lost=lost)

    # --- the disk ---------------------------------------------------------------------------------------------------

    def _page(self, page: int) -> bytes:
        versions = self._waiting.get(page)
        return versions[-1] if versions else os.pread(self._fd, PAGE, page * PAGE)

    def _read(self, offset: int, length: int) -> bytes:
        first, last = offset // PAGE, (offset + length - 1) // PAGE
        whole = b"".join(self._page(page) for page in range(first, last + 1))
        return whole[offset - first * PAGE :][:length]

    def _write(self, offset: int, data: bytes) -> None:
        first, last = offset // PAGE, (offset + len(data) - 1) // PAGE
        head = self._page(first)[: offset - first * PAGE]
        tail = self._page(last)[offset + len(data) - last * PAGE :]
        whole = head + data + tail
        for number, page in enumerate(range(first, last + 1)):
            self._waiting.setdefault(page, []).append(whole[number * PAGE :][:PAGE])

    def _flush(self) -> None:
        for page, versions in self._waiting.items():
            os.pwrite(self._fd, versions[-1], page * PAGE)
        self._waiting.clear()

    # --- the protocol -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                self._connection, _ = self._listener.accept()
            except OSError:
                return
            self._unplugged.clear()
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._connection as connection:
                try:
                    _negotiate(connection, self._size)
                    while self._serve(connection):
                        pass
                except OSError:
                    pass  # the guest is gone
            self._unplugged.set()

    def _serve(self, connection: socket.socket) -> bool:
        """One request; False when the guest took its leave. Once the power fell, none is answered."""
        magic, _, what, handle, offset, length = struct.unpack(">IHHQQI", _receive(connection, 28))
        assert magic == _REQUEST
        data = _receive(connection, length) if what == _WRITE else b""
        if what == _DISCONNECT:
            return False
        reply, error = b"", 0
        with self._lock:
            if what == _FLUSH and self._waiting and not self.fell.is_set():
                self.flushes += 1
                if self.flushes == self._cut_at:
                    self.fell.set()
            if self.fell.is_set():
                return True
            if what == _READ:
                reply = self._read(offset, length)
            elif what == _WRITE:
                self._write(offset, data)
            elif what == _FLUSH:
                self._flush()
            else:
                error = _EINVAL
        connection.sendall(struct.pack(">IIQ", _REPLY, error, handle) + reply)
        return True


def _negotiate(connection: socket.socket, size: int) -> None:
    connection.sendall(b"NBDMAGIC" + struct.pack(">QH", _OPTION, _FIXED_NEWSTYLE | _NO_ZEROES))
    _receive(connection, 4)
    export = struct.pack(">HQH", 0, size, _HAS_FLAGS | _SENDS_FLUSH)
    while True:
        _, option, length = struct.unpack(">QII", _receive(connection, 16))
        _receive(connection, length)
        if option in (_INFO, _GO):
            connection.sendall(_option_reply(option, _INFO_REPLY, export) + _option_reply(option, _ACK))
        else:
            connection.sendall(_option_reply(option, _ACK if option == _ABORT else _UNSUPPORTED))
        if option == _GO:
            return


def _option_reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", _OPTION_REPLY, option, kind, len(data)) + data


def _receive(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return bytes(data)


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is gone already
