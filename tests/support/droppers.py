"""People and programs that drop packages while a test goes on: by rename, in place and slowly, under equal names."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.support.daemon import Spool, zip_bytes
from tests.support.portal import digest
from tfwatch.spool.renames import rename_noreplace

_NAMES = 40
"""So few that names meet again: in the outbox, in work and in the folders behind."""

_FULL = 20
"""With so many in the outbox nobody drops more."""

_SMALL, _LARGE = 2_000, 6 * 2**20
"""The large ones go to S3 in parts."""


@dataclass
class Droppers:
    """A stream of packages into one spool. `dropped`: how often each SHA-256; `ways`: how often each way.

    What lies in the outbox is never overwritten: that would be a loss of the dropper's own making.
    """

    spool: Spool
    rng: random.Random
    dropped: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    _contents: int = 0
    _writers: list[threading.Thread] = field(default_factory=list)

    def drop(self, count: int) -> None:
        """Begin so many drops, fewer when the outbox is full; slow ones go on by themselves."""
        for _ in range(min(count, _FULL - len(os.listdir(self.spool.root / "outbox")))):
            content = self._content()
            if self.rng.random() < 0.3:
                self.ways["in place"] += 1
                pauses = [self.rng.uniform(0, 0.1) for _ in range(8)]
                fd = self._make()
                writer = threading.Thread(target=_write, args=(fd, content, pauses))
                self._writers.append(writer)
                writer.start()
            else:
                self.ways["by rename"] += 1
                self._rename(content)

    def finish(self) -> None:
        """Wait until the slow ones are done."""
        for writer in self._writers:
            writer.join()

    def _content(self) -> bytes:
        """Mostly a new one; sometimes one that was dropped before, lately or long ago."""
        if self._contents and self.rng.random() < 0.12:
            self.ways["dropped before"] += 1
            seed = max(1, self._contents - self.rng.choice((0, 1, 2, 10, 100)))
        else:
            self._contents += 1
            seed = self._contents
        size = _LARGE if random.Random(seed).random() < 0.01 else _SMALL
        content = zip_bytes(seed=seed, size=size)
        self.dropped[digest(content)] += 1
        return content

    def _name(self) -> str:
        return f"job-{self.rng.randrange(_NAMES)}_v1.zip"

    def _make(self) -> int:
        while True:
            try:
                path = self.spool.root / "outbox" / self._name()
                return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o660)
            except FileExistsError:
                time.sleep(0.001)

    def _rename(self, content: bytes) -> None:
        ready = self.spool.home / f"drop-{self._contents}"
        ready.write_bytes(content)
        while True:
            try:
                rename_noreplace(str(ready), str(self.spool.root / "outbox" / self._name()))
            except FileExistsError:
                time.sleep(0.001)
            else:
                return


def _write(fd: int, content: bytes, pauses: list[float]) -> None:
    size = -(-len(content) // len(pauses))
    try:
        for number, pause in enumerate(pauses):
            os.write(fd, content[number * size : (number + 1) * size])
            time.sleep(pause)
    finally:
        os.close(fd)
