"""A stretch of a ZIP as boto3 sends it: never in memory, hashed as it leaves, cut when the daemon stops."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from tfwatch.errors import ContentChanged, Stopping
from tfwatch.language import tr

_CHUNK: Final = 1024 * 1024


class Body:
    """`size` bytes of an open ZIP from byte `start`: a file for boto3 to read, as often as it likes.

    boto3 reads a body once to sign it and once to send it; `sending` must be called in between. From then on
    `sha256` continues `before` (the digest of everything sent earlier), `md5` (None without `with_md5`) covers this
    stretch alone, and `progress` hears the position in the ZIP. Reading raises `Stopping`, and `ContentChanged` at an
    early end.
    """

    def __init__(
        self,
        zip_file: BinaryIO,
        *,
        start: int,
        size: int,
        before: hashlib._Hash,
        with_md5: bool,
        stopping: Callable[[], bool],
        progress: Callable[[int], None],
    ) -> None:
        self._zip = zip_file
        self._start = start
        self._size = size
        self._at = 0
        self._before = before
        self._with_md5 = with_md5
        self._stopping = stopping
        self._progress = progress
        self._is_sending = False
        self._rewind_digests()

    @property
    def sent_whole(self) -> bool:
        """Whether the last byte was handed over to be sent."""
        return self._is_sending and self._at == self._size

    def rewind(self) -> None:
        """Back to the beginning, for another try: what is read next is not sent yet."""
        self._is_sending = False
        self.seek(0)

    def sending(self) -> None:
        """From here on what is read is sent."""
        self._is_sending = True
        self._rewind_digests()

    def read(self, size: int = -1) -> bytes:
        if self._stopping():
            raise Stopping("told to stop")
        left = self._size - self._at
        wanted = left if size < 0 else min(size, left)
        self._zip.seek(self._start + self._at)
        chunk = self._zip.read(wanted)
        if len(chunk) < wanted:
            raise ContentChanged(tr("not the bytes that were inspected"))
        self._at += len(chunk)
        if self._is_sending:
            self.sha256.update(chunk)
            if self.md5 is not None:
                self.md5.update(chunk)
        # Reading it to be signed moves nothing in the ZIP's sending, and is no standstill.
        self._progress(self._start + (self._at if self._is_sending else 0))
        return chunk

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = origin + offset
        if self._at == 0:
            self._rewind_digests()
        return self._at

    def tell(self) -> int:
        return self._at

    def digest(self) -> bytes:
        """SHA-256 of this stretch, read here and now."""
        digest = hashlib.sha256()
        self.rewind()
        while chunk := self.read(_CHUNK):
            digest.update(chunk)
        self.rewind()
        return digest.digest()

    def _rewind_digests(self) -> None:
        self.sha256 = self._before.copy()
        self.md5 = hashlib.md5(usedforsecurity=False) if self._with_md5 else None


def stretches(size: int, part: int) -> Iterator[tuple[int, int]]:
    """`(start, size)` of each part of at most `part` bytes."""
    for start in range(0, size, part):
        yield start, min(part, size - start)
