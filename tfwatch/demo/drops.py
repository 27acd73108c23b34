"""Dropping packages as people and programs do: most moved in whole, a moment apart, one copied slowly."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tfwatch.demo.samples import Sample
from tfwatch.model import Stage
from tfwatch.spool.folders import Folders

_BETWEEN_SECONDS: Final = 0.5
_SLOW_PIECES: Final = 12


@contextmanager
def dropping(samples: Sequence[Sample], folders: Folders, beside: str) -> Iterator[None]:
    """Drop samples in the background, those moved in from the folder `beside`; leaving ends it at once."""
    stop = threading.Event()
    hands = [threading.Thread(target=_write_slowly, args=(one, folders, stop)) for one in samples if one.slowly]
    quick = [one for one in samples if not one.slowly]
    hands.append(threading.Thread(target=_move_in, args=(quick, folders, beside, stop)))
    for hand in hands:
        hand.start()
    try:
        yield
    finally:
        stop.set()
        for hand in hands:
            hand.join()


def _move_in(samples: Sequence[Sample], folders: Folders, beside: str, stop: threading.Event) -> None:
    for sample in samples:
        if stop.wait(_BETWEEN_SECONDS):
            return
        ready = os.path.join(beside, sample.name)
        with open(ready, "xb") as file:
            file.write(sample.content)
        os.rename(ready, folders.path(Stage.OUTBOX, sample.name))


def _write_slowly(sample: Sample, folders: Folders, stop: threading.Event) -> None:
    """In place, as scp, FTP and file shares do: the unfinished ZIP lies in the outbox all the while."""
    size = -(-len(sample.content) // _SLOW_PIECES)
    with open(folders.path(Stage.OUTBOX, sample.name), "xb", buffering=0) as file:
        for at in range(0, len(sample.content), size):
            file.write(sample.content[at : at + size])
            if stop.wait(_BETWEEN_SECONDS):
                return
