"""Read an open file again and again from its start, without its name."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, cast


def reader_of(fd: int) -> BinaryIO:
    """A binary reader at byte 0 with a place of its own; closing it leaves `fd` open.

    Whoever sends a package reads the file that was inspected, whatever its name or its mode have become since.
    """
    return cast("BinaryIO", _Reader(fd))


class _Reader(io.RawIOBase):
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._fd, [buffer], self._at)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}
        self._at = (os.fstat(self._fd).st_size if whence == io.SEEK_END else origin[whence]) + offset
        return self._at

    def tell(self) -> int:
        return self._at
