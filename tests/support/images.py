"""True file systems in files, and what the disk under one holds at one instant, as if its power had gone.

The images lie on an XFS of their own: it clones a file in one step while the loop device writes it. A clone has all
that the inner file system has given to its disk by then, and nothing of what is still in its page cache: a power cut,
with a disk that loses nothing it was given.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.host import unmet
from tests.support.require import need

_MAKE: Final = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
_BYTES: Final = 320 << 20
"""The least that XFS takes; the files are sparse."""

KINDS: Final = tuple(_MAKE)


@contextmanager
def workbench(home: Path) -> Iterator[Path]:
    """A folder where images may lie. Skips unless root may mount images here."""
    if os.geteuid() != 0:
        unmet("needs root to mount images")
    image, bench = home / "bench.img", home / "bench"
    bench.mkdir()
    _make("xfs", image, 8 * _BYTES)
    try:
        with mounted(image, bench):
            yield bench
    finally:
        image.unlink()


def make(kind: str, image: Path) -> Path:
    """A new, empty file system in a file."""
    _make(kind, image, _BYTES)
    return image


def _make(kind: str, image: Path, size: int) -> None:
    program, *options = _MAKE[kind]
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([need(program), *options, str(image)], check=True, capture_output=True)


@contextmanager
def mounted(image: Path, where: Path) -> Iterator[None]:
    """Mounted for the length of the block, its journal replayed. Nothing stays behind, whatever happens."""
    done = subprocess.run(["mount", "-o", "loop", str(image), str(where)], capture_output=True, text=True)
    if done.returncode != 0:
        reason = f"can't mount {image.name} here: {done.stderr.strip()}"
        known = Path("/proc/filesystems").read_text().split()
        if any(kind not in known for kind in KINDS) or "loop" in done.stderr:
            unmet(reason)
        raise AssertionError(reason)
    try:
        yield
    finally:
        if subprocess.run(["umount", str(where)], capture_output=True).returncode != 0:
            subprocess.run(["umount", "--lazy", str(where)], check=True)


def cut(image: Path, copy: Path) -> Path:
    """What the disk holds at this instant. Whoever works on the file system must have been stopped, not synced."""
    subprocess.run(["cp", "--reflink=always", str(image), str(copy)], check=True)
    return copy
