"""A disk that is full again and again while packages stream through: real file systems, filled at random moments.

tests/integration/test_disk_full.py looks at each rule by itself; here they meet.
"""

from __future__ import annotations

import errno
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import STAGES, wait_until, zip_bytes
from tests.support.extent import Extent
from tests.support.host import fill, mounted, take_all_inodes, unmet
from tests.support.portal import digest
from tests.support.require import need
from tests.support.s3_servers import seaweed
from tests.support.scene import Scene, scene

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]

FILLS = 100
"""How often the disk is filled in a whole run, for each kind of disk."""

PACKAGES_A_FILL = 3
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def tmpfs(where: Path, image: Path) -> Iterator[None]:
    with mounted(where, "tmpfs", "size=8m,nr_inodes=20k"):
        yield


@contextmanager
def few_inodes(where: Path, image: Path) -> Iterator[None]:
    with mounted(where, "tmpfs", "size=64m,nr_inodes=400"):
        yield


@contextmanager
def ext4(where: Path, image: Path) -> Iterator[None]:
    """Delayed allocation: what was written finds its room, or none, later."""
    make = need("mkfs.ext4")
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run([make, "-q", "-F", "-m", "0", str(image)], check=True)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(where)], capture_output=True, text=True)
    if done.returncode != 0:
        unmet(f"can't mount a loop device here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


DISKS = {"tmpfs": (tmpfs, fill), "ext4": (ext4, fill), "inodes": (few_inodes, take_all_inodes)}


class Stream(threading.Thread):
    """People who drop packages: under another name first, again when there is no room, never giving up."""

    def __init__(self, running: Scene, count: int, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._scene = running
        self._rng = rng
        self._contents = {f"{n}.zip": zip_bytes(seed=n, size=20_000) for n in range(count)}
        running.dropped.update({digest(content): content for content in self._contents.values()})
        self.refused = 0

    def run(self) -> None:
        for name, content in self._contents.items():
            while not self._drop(name, content):
                self.refused += 1
                time.sleep(0.1)
            time.sleep(self._rng.uniform(0, 0.7))

    def _drop(self, name: str, content: bytes) -> bool:
        part = self._scene.spool.root / "outbox" / f".{name}.part"
        try:
            part.write_bytes(content)
            part.rename(part.with_name(name))
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            part.unlink(missing_ok=True)
            return False
        return True


@pytest.mark.parametrize("killed", [False, True], ids=["left alone", "killed"])
@pytest.mark.parametrize("disk", DISKS)
def test_filled_again_and_again(disk: str, killed: bool, extent: Extent, tmp_path: Path) -> None:
    """Nothing is lost or sent twice; the daemon waits and says so, and goes on by itself when room returns."""
    rng = extent.rng(f"{disk} {killed}")
    times = max(3, FILLS // extent.share)
    mount, take = DISKS[disk]
    told: Counter[str] = Counter()
    began = time.monotonic()
    with scene(tmp_path, seaweed("http"), spool={"min_free_bytes": 0}) as running:
        root = running.spool.root
        with mount(root, tmp_path / "image"):
            for stage in STAGES:
                (root / stage).mkdir(exist_ok=True)
            try:
                running.spool.start()
                stream = Stream(running, times * PACKAGES_A_FILL, rng)
                stream.start()
                for number in range(times):
                    time.sleep(rng.uniform(0, 0.5))
                    kill = killed and (number == 0 or rng.random() < 0.5)
                    told.update(one_fill(running, take, rng, kill=kill))
                stream.join(300)
                assert not stream.is_alive(), running.picture()
                assert running.spool.process is not None
                assert running.spool.process.poll() is None, running.picture()
                running.wait_until_settled(240)
                assert 0 == running.spool.stop()
                running.assert_invariants()
                assert "Traceback" not in running.spool.output.read_text()
            finally:
                running.spool.kill()
    told["drops refused"] = stream.refused
    seconds = time.monotonic() - began
    print(
        f"\n{disk}, {'killed' if killed else 'left alone'}: {times} fills, {times * PACKAGES_A_FILL} packages, "
        f"{dict(told)}, seed {extent.seed}, {seconds:.0f} s"
    )
    # Without a free inode a rename and a row still find room: then only those who drop are met.
    assert told["noticed"] + told["drops refused"] > 0, "no fill was ever met by anybody"
    assert told["noticed"] or disk == "inodes" or times < 10, "the daemon never met a full disk"
    assert bool(told["kills"]) == killed


def one_fill(running: Scene, take: Callable[[Path], Path], rng: random.Random, *, kill: bool) -> Iterator[str]:
    """Take all there is, leave it so for a while, with a `kill` in the middle, then give it back."""
    spool = running.spool
    before = spool.output.stat().st_size
    ballast = take(spool.root)
    if kill:
        time.sleep(rng.uniform(0, 0.5))
        spool.kill()
        yield "kills"
        if rng.random() < 0.5:
            spool.start(ready=False)
            wait_until(lambda: "the disk is full" in spool.output.read_text()[before:], "it waits for room to start")
            yield "starts without room"
    time.sleep(rng.uniform(0, 1.5))
    release(ballast)
    if spool.process is None:
        spool.start()
    elif kill:
        wait_until(lambda: b"watching " in spool.output.read_bytes()[before:], "the daemon watches")
    assert spool.process is not None
    assert spool.process.poll() is None, running.picture()
    said = spool.output.read_bytes()[before:].decode(errors="replace")
    if "deliveries wait" in said:
        yield "noticed"
    yield "fills"


def release(ballast: Path) -> None:
    for path in sorted(ballast.iterdir()) if ballast.is_dir() else []:
        path.unlink()
    if ballast.is_dir():
        ballast.rmdir()
    else:
        ballast.unlink()
