"""Power cuts on true file systems: the disk as it is in mid-work, mounted again, with the daemon started on it; many
times over for one spool, while the portal, the sheet and the store live on.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import images
from tests.support.daemon import STAGES, wait_until, zip_bytes
from tests.support.extent import Extent
from tests.support.facts import rows_in
from tests.support.portal import digest, ordered
from tests.support.s3_servers import S3Server
from tests.support.scene import Scene, scene
from tfwatch.model import read_detail

_DROPPER = """
import os, sys
source, outbox = sys.argv[1:]
for name in sorted(os.listdir(source), key=lambda name: int(name.split("-")[2].split("_")[0])):
    with open(os.path.join(source, name), "rb") as file:
        data = file.read()
    is_careful = name.startswith("synced")
    path = os.path.join(outbox, f".{name}.part" if is_careful else name)
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    piece = len(data) // 3 + 1
    for at in range(0, len(data), piece):
        os.write(fd, data[at:at + piece])
    if is_careful:
        os.fsync(fd)
        os.rename(path, os.path.join(outbox, name))
        folder = os.open(outbox, os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
    os.close(fd)
    os.unlink(os.path.join(source, name))
    print(name, flush=True)
"""
"""Drops everything that lies in a folder, one after the other, and says so; only some are synced."""

_A_ROUND = 15
"""Packages that are dropped between two cuts; the cut mostly comes before they are all delivered."""


@dataclass
class Harm:
    """What the power cuts of one file system took: packages gone, in an earlier folder, with 0 bytes, cut short."""

    cuts: int = 0
    gone: int = 0
    moved_back: int = 0
    empty: int = 0
    short: int = 0


@pytest.mark.root
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", images.KINDS)
def test_cut_off_again_and_again_it_delivers_once(kind: str, tmp_path: Path, server: S3Server, extent: Extent) -> None:
    """What was synced or sent is delivered once, whatever else a cut takes; nothing is sent that isn't whole."""
    began, rng, harm = time.monotonic(), extent.rng(f"images {kind}"), Harm()
    rounds = max(4, 40 // extent.share)
    with (
        images.workbench(tmp_path) as bench,
        scene(tmp_path, server, spool={"incomplete_timeout_seconds": 1}) as world,
    ):
        promised: set[str] = set()
        live: dict[str, tuple[str, int]] = {}
        image = images.make(kind, bench / "0.img")
        with images.mounted(image, world.spool.root):
            for stage in STAGES:
                (world.spool.root / stage).mkdir()
        for number in range(1, rounds + 1):
            with images.mounted(image, world.spool.root):
                count(harm, live, lying(world))
                assert_nothing_lost(world, promised)
                with working(world, number, rng) as dropped:
                    live = lying(world)
                    cut_off = images.cut(image, bench / f"{number}.img")
                promised |= dropped()
            image.unlink()
            image = cut_off
            harm.cuts += 1
        with images.mounted(image, world.spool.root):
            count(harm, live, lying(world))
            assert_nothing_lost(world, promised)
            world.spool.start()
            wait_until(lambda: has_settled(world), f"all is settled\n{world.picture()}", 120)
            assert 0 == world.spool.stop()
            assert_delivered_once(world, promised)
            orders = len(world.sandbox.orders())
    print(
        f"\nimages, {kind}: {harm}; {len(world.dropped)} dropped, {len(promised)} of them synced, {orders} delivered; "
        f"{time.monotonic() - began:.0f} s, seed {extent.seed}"
    )
    assert rounds == harm.cuts
    assert harm.gone + harm.moved_back + harm.empty + harm.short, "no cut took anything"
    assert promised


@contextmanager
def working(world: Scene, number: int, rng: random.Random) -> Iterator[Callable[[], set[str]]]:
    """A daemon and a dropper at work; both stand still inside the block, at a moment that chance chose.

    Gives what tells, once they are gone, which contents were synced before.
    """
    source, told = world.spool.home / f"source-{number}", world.spool.home / f"told-{number}"
    contents = fill(world, source, number, rng)
    is_early = number % 3 == 1
    world.spool.start(ready=not is_early and rng.random() < 0.8)
    with told.open("wb") as out:
        dropper = subprocess.Popen(
            [sys.executable, "-c", _DROPPER, str(source), str(world.spool.root / "outbox")], stdout=out
        )
    try:
        if is_early:
            # Before the daemon could sync anything: such a cut takes something for certain.
            wait_until(lambda: told.read_text().count("plain") >= 3, "some were dropped")
        else:
            time.sleep(rng.uniform(0.1, 2.0))  # the moment of the cut is what chance is about
        assert world.spool.process is not None
        for process in (world.spool.process, dropper):
            stand_still(process)
        yield lambda: {contents[name] for name in told.read_text().splitlines() if name.startswith("synced")}
    finally:
        dropper.kill()
        dropper.wait()
        world.spool.kill()


def fill(world: Scene, source: Path, number: int, rng: random.Random) -> dict[str, str]:
    """Packages to be dropped: name → SHA-256."""
    source.mkdir()
    contents = {}
    for n in range(_A_ROUND):
        content = zip_bytes(seed=number * 100 + n, size=rng.choice((300, 4000, 60_000, 300_000)))
        name = f"{('synced', 'plain')[n % 2]}-{number}-{n}_v1.zip"
        (source / name).write_bytes(content)
        contents[name] = digest(content)
        world.dropped[contents[name]] = content
    return contents


def stand_still(process: subprocess.Popen[bytes]) -> None:
    """Stop a process; what a thread of it has asked the kernel for may still be done, but no thread goes on."""
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{process.pid}/task")
        wait_until(lambda: all(state_of(task) != "R" for task in tasks.iterdir()), "all threads stand still")


def state_of(task: Path) -> str:
    """`R` for running, `T` stopped, `D` in the middle of a disk operation…"""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def lying(world: Scene) -> dict[str, tuple[str, int]]:
    """Where each package lies and how long it is, by its name."""
    found = {}
    for stage in (*STAGES, ".tfwatch/claimed"):
        folder = world.spool.root / stage
        for path in folder.glob("[!.]*.zip") if folder.is_dir() else ():
            found[path.name] = stage, path.stat().st_size
    return found


def count(harm: Harm, live: dict[str, tuple[str, int]], left: dict[str, tuple[str, int]]) -> None:
    """Compare what everybody saw before the cut with what is there after it."""
    for name, (stage, size) in live.items():
        if name not in left:
            harm.gone += 1
            continue
        harm.moved_back += left[name][0] != stage
        harm.empty += left[name][1] == 0 < size
        harm.short += 0 < left[name][1] < size


def assert_nothing_lost(world: Scene, promised: set[str]) -> None:
    """What has a fact is there whole, and so is what a dropper had synced; an order has its ATTEMPTED on disk."""
    there = {sha256 for _, _, sha256 in world.lying()}
    log = world.spool.root / "log.csv"
    rows = rows_in(log.read_bytes() if log.exists() else None)
    assert {row[6] for row in rows if row[6]} <= there, world.picture()
    assert promised <= there, world.picture()
    assert set(ordered(world.sandbox)) <= {row[6] for row in rows if row[4] == "ATTEMPTED"}, world.picture()


def has_settled(world: Scene) -> bool:
    """Nothing is under way any more."""
    spool = world.spool
    if spool.names("outbox") or spool.claimed() or spool.names("submitted"):
        return False
    rows = world.logged()
    delivered = {row[6] for row in rows if row[4] == "COMPLETED"}
    return delivered <= {row[6] for row in rows if row[4] == "BACKED_UP"} and rows == world.shown()


def assert_delivered_once(world: Scene, promised: set[str]) -> None:
    """Every whole package: one order, one place, one object. Everything else was refused, and nobody is blamed."""
    delivered = Counter(sha256 for stage, _, sha256 in world.lying() if stage == "delivered")
    rejected = {sha256 for stage, _, sha256 in world.lying() if stage == "rejected"}
    assert promised <= delivered.keys() <= world.dropped.keys(), world.picture()
    assert delivered == dict.fromkeys(delivered, 1) == ordered(world.sandbox), world.picture()
    assert delivered == Counter(sha256 for _, sha256 in world.objects()), world.picture()
    assert not rejected & world.dropped.keys(), world.picture()
    flaws = {row[6]: read_detail(row[16])[0].get("flaw") for row in world.logged()[1:] if row[4] == "REFUSED"}
    assert {flaws.get(sha256) for sha256 in rejected} <= {"truncated"}, world.picture()
    assert [] == world.uploads()
    assert world.logged() == world.shown(), world.picture()
    world.spool.assert_sound()
    assert [] == [row for row in world.spool.rows() if row["actor"] == "operator" and row["event"] != "ENABLED"]
