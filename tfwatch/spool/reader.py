"""Read an open file again and again from its start, without its name."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from tfwatch import disk
from tfwatch.errors import Unreadable


def reader_of(fd: int, *, owned: bool = False) -> BinaryIO:
    """A binary reader at byte 0 with a place of its own; closing it leaves `fd` open unless it is `owned`.

    Whoever sends a package reads the file that was inspected, whatever its name or its mode have become since. What
    the disk does to it is raised as `Unreadable`.
    """
    return cast("BinaryIO", _Reader(fd, owned=owned))


def concerns_it_alone(error: OSError) -> bool:
    """Whether the disk doesn't give this one package, while all others may well be read.

    Not when somebody took it away, may read it no more, or holds it: whoever opens it knows what that means.
    """
    by_somebody = isinstance(error, FileNotFoundError | PermissionError | BlockingIOError)
    return disk.is_of_one_file(error) and not by_somebody


@contextmanager
def reading() -> Iterator[None]:
    """Raise `Unreadable` for what concerns the package being read alone."""
    try:
        yield
    except OSError as error:
        if not concerns_it_alone(error):
            raise
        raise Unreadable(error.strerror or str(error)) from error


class _Reader(io.RawIOBase):
    def __init__(self, fd: int, *, owned: bool) -> None:
        self._fd = fd
        self._owned = owned
        self._at = 0

    def close(self) -> None:
        if self._owned and not self.closed:
            os.close(self._fd)
        super().close()

    def fileno(self) -> int:
        return self._fd

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with reading():
            count = os.preadv(self._fd, [buffer], self._at)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}
        self._at = (os.fstat(self._fd).st_size if whence == io.SEEK_END else origin[whence]) + offset
        return self._at

    def tell(self) -> int:
        return self._at
