"""outbox/ and the whole spool taken away and put back in every way, under a stream of drops: nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import Spool, make_zip, wait_until, zip_bytes
from tests.support.daemon import spool as make_spool
from tests.support.extent import Extent
from tests.support.host import mounted, unmet
from tests.support.portal import digest, ordered
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

RESCAN_SECONDS = 2
PATIENCE = 90.0
HEARD = 5
FULL = 5000
"""Packages asked for in a full run (`make test-stress`); with fewer, of the mounts only a sample is tried."""

pytestmark = pytest.mark.timeout(600)


class Stream(threading.Thread):
    """Somebody who drops ZIPs all the time, by a rename from beside the outbox. Knows where each one went.

    With so many in the outbox that `most` lie there, the next one comes when there are fewer.
    """

    def __init__(self, spool: Spool, count: int, most: int) -> None:
        super().__init__(daemon=True)
        self._spool = spool
        self._most = most
        self._count = count
        self._go = threading.Event()
        self._number = 0
        self.dropped: dict[str, str] = {}

    def run(self) -> None:
        while self._number < self._count and not self._go.wait(0.01):
            name, content = f"s{self._number:05}.zip", zip_bytes(seed=self._number, size=64)
            ready = self._spool.home / f"ready-{name}"
            ready.write_bytes(content)
            try:
                if len(self._spool.names("outbox")) >= self._most:
                    continue
                os.rename(ready, self._spool.root / "outbox" / name)
            except OSError:
                continue  # there is no outbox just now, or it is on another mount: tried again
            self.dropped[name] = digest(content)
            self._number += 1

    def stop(self) -> None:
        self._go.set()
        self.join()


@contextmanager
def streaming(spool: Spool, count: int, most: int) -> Iterator[Stream]:
    stream = Stream(spool, count, most)
    stream.start()
    try:
        yield stream
    finally:
        stream.stop()


def still_hears(spool: Spool) -> None:
    """Some ZIPs, one after the other, each delivered at once: by its event, since the next rescan is an hour away."""
    spool.configure(spool={"rescan_seconds": 3600})
    wait_until(lambda: "configuration taken over" in spool.output.read_text(), "the rescan is far away", PATIENCE)
    for number in range(HEARD):
        make_zip(spool.root / "outbox" / f"heard{number}.zip", seed=10**7 + number)
        spool.wait_for("delivered", f"heard{number}.zip", seconds=PATIENCE)
    assert "inotify" == spool.state()["watch"]["mode"]
    assert 1 == spool.output.read_text().count("watching ")


# Each gives what it dropped itself: name → SHA-256.


def rename_away(outbox: Path, aside: Path) -> dict[str, str]:
    """The folder goes; the daemon makes a new one."""
    outbox.rename(aside)
    return {}


def rename_away_and_make(outbox: Path, aside: Path) -> dict[str, str]:
    """The folder goes, and a person makes a new one at once."""
    outbox.rename(aside)
    outbox.mkdir(exist_ok=True)
    return {}


def swap(outbox: Path, aside: Path) -> dict[str, str]:
    """Another folder, with a ZIP in it already, takes its place in two renames."""
    other = outbox.with_name(f"other-{aside.name}")
    other.mkdir()
    name = f"in-{aside.name}.zip"
    make_zip(other / name, seed=2 * 10**6 + int(aside.name.removeprefix("aside")))
    sha256 = digest((other / name).read_bytes())
    outbox.rename(aside)
    try:
        other.rename(outbox)
    except OSError:  # the daemon was quicker, and somebody has dropped something into its folder
        (other / name).rename(outbox / name)
        other.rmdir()
    return {name: sha256}


def remove_and_make(outbox: Path, aside: Path) -> dict[str, str]:
    """The folder is removed in a moment in which it is empty, and made again: it may well get its old inode."""

    def removed() -> bool:
        try:
            outbox.rmdir()
        except OSError:
            return False
        return True

    wait_until(removed, "the outbox is empty for a moment", PATIENCE)
    outbox.mkdir(exist_ok=True)
    return {}


@pytest.mark.parametrize("replace", [rename_away, rename_away_and_make, swap, remove_and_make])
def test_a_replaced_outbox(
    sandbox: Sandbox, spool: Spool, extent: Extent, replace: Callable[[Path, Path], dict[str, str]]
) -> None:
    """Under a stream of drops, again and again: all in the new folder goes out, what left with the old one stays."""
    times = max(2, min(10, extent.packages // 500))
    outbox, asides = spool.root / "outbox", []
    spool.configure(spool={"rescan_seconds": RESCAN_SECONDS})
    spool.start()
    slowest = 0.0
    # An outbox that must be empty for a moment to be removed gets its ZIPs one by one.
    with streaming(spool, 2000 * times, 1 if replace is remove_and_make else 200) as stream:
        for number in range(times):
            before = len(stream.dropped)
            wait_until(lambda before=before: len(stream.dropped) > before + 30, "drops before", PATIENCE)
            asides.append(spool.home / f"aside{number}")
            stream.dropped |= replace(outbox, asides[-1])
            wait_until(outbox.is_dir, "there is an outbox again", PATIENCE)
            began = time.monotonic()
            spool.drop(f"after{number}.zip", seed=10**6 + number)
            spool.wait_for("delivered", f"after{number}.zip", seconds=PATIENCE)
            slowest = max(slowest, time.monotonic() - began)
        stream.stop()
    kept = {path.name: digest(path.read_bytes()) for aside in asides for path in aside.glob("*.zip")}
    due = {name: sha256 for name, sha256 in stream.dropped.items() if name not in kept}
    spool.wait_for("delivered", *due, seconds=PATIENCE)
    still_hears(spool)

    assert kept.items() <= stream.dropped.items()
    orders = ordered(sandbox)
    assert dict.fromkeys(due.values(), 1).items() <= orders.items()
    assert len(due) + times + HEARD == orders.total()
    assert slowest < RESCAN_SECONDS + 15
    spool.assert_sound()
    print(
        f"\n{replace.__name__}: {times} times under {len(stream.dropped)} drops, {len(kept)} left with the old folder, "
        f"{len(due)} sent once; the first ZIP in the new one after {slowest:.1f} s at most"
    )


# --- mounts -----------------------------------------------------------------------------------------------------------


@contextmanager
def covered(folder: Path, kind: str, beside: Path) -> Iterator[None]:
    """Another mount lies on a folder for the length of the block: a file system of its own, or the same one again."""
    if kind == "tmpfs":
        with mounted(folder, "tmpfs"):
            yield
        return
    if os.geteuid() != 0:
        unmet("needs root to mount")
    beside.mkdir()
    subprocess.run(["mount", "--bind", str(beside), str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


_SHOWN = ("outbox", "submitted", "delivered")


@pytest.mark.root
def test_another_mount_on_a_folder(tmp_path: Path, extent: Extent) -> None:
    """No file can be renamed across: it is said, packages wait, and once it is unmounted all go on by themselves."""
    cases = [(stage, kind) for stage in (*_SHOWN, ".tfwatch/claimed", ".tfwatch") for kind in ("tmpfs", "bind")]
    tried = cases if extent.packages >= FULL else extent.sample(cases, "mounts")
    for stage, kind in tried:
        home = tmp_path / f"{stage.replace('/', '-')}-{kind}"
        home.mkdir()
        with Sandbox() as sandbox, make_spool(home, sandbox.url, sandbox.api_key) as spool:
            sandbox.set_settings(portal={"verdict_delay": 0.0})
            cover_and_uncover(sandbox, spool, stage, kind)
    print(f"\na mount on a folder: {len(tried)} of {len(cases)} cases, each said, waited for and gone on from: {tried}")


def cover_and_uncover(sandbox: Sandbox, spool: Spool, stage: str, kind: str) -> None:
    spool.configure(spool={"rescan_seconds": RESCAN_SECONDS})
    spool.start()
    assert spool.process is not None
    spool.drop("before.zip", seed=1)
    spool.wait_for("delivered", "before.zip", seconds=PATIENCE)
    expected = [digest(zip_bytes(seed=seed)) for seed in (1, 2)]

    spool.process.send_signal(signal.SIGSTOP)
    spool.drop("under.zip", seed=2)
    with covered(spool.root / stage, kind, spool.home / "beside"):
        if stage == "outbox":
            (spool.root / stage / "on.zip").write_bytes(zip_bytes(seed=3))
        spool.process.send_signal(signal.SIGCONT)
        spool.wait_for_state(
            lambda state: [text for text in state["problems"] if f"{stage}: is a mount of its own" in text],
            "status names the mount",
            PATIENCE,
        )
        spool.wait_for_state(lambda state: state, "it beats")
        seen = spool.state()["at"]
        wait_until((spool.root / ".tfwatch/requests").is_dir, "what is missing on the mount is made", PATIENCE)
        spool.ask("disable", integration=Integration.S3)
        spool.wait_for_state(lambda state: state["at"] != seen, "it goes on beating", PATIENCE)
        assert "under.zip" not in spool.names("delivered") | spool.names(stage)
    spool.wait_for("delivered", "before.zip", "under.zip", seconds=PATIENCE)
    still_hears(spool)

    assert dict.fromkeys(expected, 1).items() <= ordered(sandbox).items()
    assert 2 + HEARD == ordered(sandbox).total()
    wait_until(
        lambda: "is no mount of its own any more" in spool.output.read_text(), "the journal says that it is over"
    )
    assert 1 == spool.output.read_text().count("is a mount of its own")
    spool.assert_sound()


# --- the whole spool --------------------------------------------------------------------------------------------------


@contextmanager
def disk(home: Path) -> Iterator[str]:
    """A small ext4 disk: a loop device over a file."""
    if os.geteuid() != 0:
        unmet("needs root to mount")
    image = home / "disk.img"
    with image.open("wb") as file:
        file.truncate(256 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    told = subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True)
    if told.returncode != 0:
        unmet(f"can't make a loop device here: {told.stderr.strip()}")
    device = told.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        image.unlink()


class Disk:
    """A spool on a disk of its own, which is unmounted under the daemon's hands and mounted again."""

    def __init__(self, device: str, root: Path) -> None:
        self._device = device
        self._root = root

    def mount(self) -> None:
        subprocess.run(["mount", self._device, str(self._root)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self._root)], check=True)


@pytest.mark.root
def test_the_whole_spool_is_unmounted_and_mounted_again(tmp_path: Path, sandbox: Sandbox, extent: Extent) -> None:
    """Lazily, under work: what is in flight is finished, it is said, and once mounted again all goes on, once each."""
    times = max(2, min(10, extent.packages // 500))
    with disk(tmp_path) as device, make_spool(tmp_path, sandbox.url, sandbox.api_key) as spool:
        for folder in spool.root.iterdir():
            folder.rmdir()
        volume = Disk(device, spool.root)
        volume.mount()
        try:
            (spool.root / "lost+found").rmdir()
            spool.configure(spool={"rescan_seconds": RESCAN_SECONDS})
            spool.start()
            sandbox.set_faults(Fault(kind=FaultKind.LATENCY, seconds=1))
            expected, in_flight = {}, 0
            for number in range(times):
                names = [f"v{number}-{each}.zip" for each in range(10)]
                for each, name in enumerate(names):
                    content = zip_bytes(seed=100 * number + each)
                    (spool.root / "outbox" / f"{name}.part").write_bytes(content)
                    (spool.root / "outbox" / f"{name}.part").rename(spool.root / "outbox" / name)
                    expected[digest(content)] = 1
                wait_until(spool.claimed, "work is under way", PATIENCE)
                volume.unmount()
                wait_until(lambda n=number: away(spool) == n + 1, "it is said", PATIENCE)
                assert [] == os.listdir(spool.root)
                before = ordered(sandbox).total()
                wait_until(lambda b=before: ordered(sandbox).total() > b or all_ordered(sandbox, expected),
                           "what waits goes on", PATIENCE)  # fmt: skip
                in_flight += ordered(sandbox).total() - before
                volume.mount()
                wait_until(lambda n=number: back(spool) == n + 1, "it is there again", PATIENCE)
                spool.wait_for("delivered", *names, seconds=PATIENCE)
            sandbox.set_faults()
            still_hears(spool)

            assert in_flight > 0, "nothing was under way while it was away"
            assert expected.items() <= ordered(sandbox).items()
            assert len(expected) + HEARD == ordered(sandbox).total()
            assert spool.process is not None
            assert spool.process.poll() is None
            assert {"ATTEMPTED", "ACCEPTED", "COMPLETED"} == set(spool.events())
            spool.assert_sound()
            assert 0 == spool.stop()
        finally:
            spool.kill()
            if spool.root.is_mount():
                volume.unmount()
    print(f"\nthe whole spool: unmounted lazily {times} times over {len(expected)} ZIPs; "
          f"{in_flight} orders were made while it was away, none twice")  # fmt: skip


def away(spool: Spool) -> int:
    return spool.output.read_text().count("the path leads elsewhere")


def back(spool: Spool) -> int:
    return spool.output.read_text().count("the path leads here again")


def all_ordered(sandbox: Sandbox, expected: dict[str, int]) -> bool:
    return expected.keys() <= ordered(sandbox).keys()
