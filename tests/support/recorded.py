"""Recorded work of the real daemon: what was dropped, every operation on the spool, what the services came to hold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.support import recording
from tests.support.aftermath import Memory
from tests.support.daemon import STAGES, wait_until, zip_bytes
from tests.support.diskmodel import Disk
from tests.support.portal import digest
from tests.support.recording import Operation
from tests.support.s3_servers import S3Server
from tests.support.scene import Scene, scene
from tfwatch.sandbox.faults import Fault, FaultKind

DROPPER = """
import os, sys
how, outbox, *pairs = sys.argv[1:]
for source, name in zip(pairs[::2], pairs[1::2]):
    data = open(source, "rb").read()
    path = os.path.join(outbox, name if how == "in place" else f".{name}.part")
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    piece = len(data) // 3 + 1
    for at in range(0, len(data), piece):
        os.write(fd, data[at:at + piece])
    if how == "synced":
        os.fsync(fd)
    if how != "in place":
        os.rename(path, os.path.join(outbox, name))
    if how == "synced":
        folder = os.open(outbox, os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
    os.close(fd)
"""
"""Drops packages in pieces: `in place` and `renamed` sync nothing, `synced` does all that there is to do."""

Fate = Literal["delivered", "rejected", "refused"]
"""`rejected` by the portal's verdict, `refused` here: never sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """One file that was dropped."""

    name: str
    content: bytes
    fate: Fate
    how: Literal["in place", "renamed", "synced"]

    @property
    def sha256(self) -> str:
        return digest(self.content)


@dataclass
class Recorded:
    """One recording, its scene still open."""

    what: str
    scene: Scene
    memory: Memory
    drops: list[Dropped] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    records: dict[str, Path] = field(default_factory=dict)
    synced_in: dict[str, list[Dropped]] = field(default_factory=dict)
    """What each dropper that syncs dropped, by its record's name."""

    @property
    def disk(self) -> Disk:
        return Disk(self.operations, STAGES)

    def fate_of(self, sha256: str) -> Fate | None:
        """What becomes of a content that lies there whole; None for no such content."""
        fates = [drop.fate for drop in self.drops if drop.sha256 == sha256]
        return fates[0] if fates else None

    def synced_by(self, cut: float) -> set[str]:
        """Contents whose dropper had synced file and folder by then: they must be there, come what may."""
        found = set()
        for who in self.records:
            done = [o.end for o in self.operations if o.by == who and o.kind == "sync folder" and o.end <= cut]
            if who in self.synced_in:
                found |= {drop.sha256 for drop in self.synced_in[who][: len(done)]}
        return found

    # --- while it is made ---

    def start(self) -> None:
        self.scene.spool.start(wrap=recording.tracing(self._record("daemon")))

    def drop(self, *drops: Dropped) -> None:
        pairs = []
        for drop in drops:
            source = self.scene.spool.home / f"source-{len(self.drops)}"
            source.write_bytes(drop.content)
            pairs += [str(source), drop.name]
            self.drops.append(drop)
            self.scene.dropped[drop.sha256] = drop.content
        command = [sys.executable, "-c", DROPPER, drops[0].how, str(self.scene.spool.root / "outbox"), *pairs]
        record = self._record("dropper")
        subprocess.run([*recording.tracing(record), *command], check=True)
        if drops[0].how == "synced":
            self.synced_in[record.stem] = list(drops)

    def requeue(self, drop: Dropped) -> None:
        """Ask for a second order of a package, as an operator does."""
        command = [sys.executable, "-m", "tfwatch", "requeue", "-c", str(self.scene.spool.config), "--force", drop.name]
        subprocess.run([*recording.tracing(self._record("command")), *command], check=True)

    def orders_due(self, sha256: str, tree: dict[str, bytes | None], rows: list[list[str]]) -> int:
        """How many orders of a content that may be sent there must be in the end: one, and one that was asked for."""
        requests = [path for path in tree if path.startswith(".tfwatch/requests/") and path.endswith(".json")]
        asked = any(sha256.encode() in (tree[path] or b"") for path in requests)
        return 1 + (asked or any(row[4] == "REQUEUED" and row[6] == sha256 for row in rows))

    def _record(self, who: str) -> Path:
        who = f"{who}-{len(self.records)}"
        self.records[who] = self.scene.spool.home / f"{who}.strace"
        return self.records[who]

    def wait_until_done(self, *, backed_up: int) -> None:
        """All files settled, so many stored, and the sheet shows it."""

        def is_done() -> bool:
            spool = self.scene.spool
            lying = len(spool.names("delivered") | spool.names("rejected"))
            if lying < len(self.drops) or spool.events().count("BACKED_UP") < backed_up:
                return False
            return self.scene.logged() == self.scene.shown()

        wait_until(is_done, f"{self.what}: all is settled and shown\n{self.scene.picture()}", 120)


def careless(made: Recorded) -> None:
    """Droppers that sync nothing, in place and by a rename; one package is unsound, one a duplicate."""
    made.start()
    first = Dropped(name="a_v1.zip", content=zip_bytes(seed=1, size=2500), fate="delivered", how="in place")
    broken = bytearray(zip_bytes(seed=3, size=900))
    broken[200] ^= 1
    made.drop(first, Dropped(name="b_v1.zip", content=bytes(broken), fate="refused", how="in place"))
    made.wait_until_done(backed_up=1)
    made.drop(
        Dropped(name="c_v1.zip", content=zip_bytes(seed=2, size=700), fate="delivered", how="renamed"),
        Dropped(name="d_v1.zip", content=first.content, fate="delivered", how="renamed"),
    )
    made.wait_until_done(backed_up=2)
    assert 0 == made.scene.spool.stop()


def careful(made: Recorded) -> None:
    """Droppers that sync all; one order is refused by the portal's verdict; the daemon stops and starts in between."""
    made.start()
    made.drop(Dropped(name="a_v1.zip", content=zip_bytes(seed=4, size=2500), fate="delivered", how="synced"))
    made.wait_until_done(backed_up=1)
    assert 0 == made.scene.spool.stop()
    made.drop(
        Dropped(name="reject_v1.zip", content=zip_bytes(seed=5, size=600), fate="rejected", how="synced"),
        Dropped(name="c_v1.zip", content=zip_bytes(seed=6, size=600), fate="delivered", how="synced"),
    )
    made.start()
    made.wait_until_done(backed_up=2)
    assert 0 == made.scene.spool.stop()


def doubtful(made: Recorded) -> None:
    """The daemon is killed while the portal, which has the order, keeps it waiting; the next one settles it."""
    made.scene.sandbox.set_faults(Fault(kind=FaultKind.HANG, accept=True))
    made.start()
    made.drop(Dropped(name="a_v1.zip", content=zip_bytes(seed=7, size=2500), fate="delivered", how="in place"))
    wait_until(made.scene.sandbox.orders, "the portal has the order")
    made.scene.spool.kill()
    made.scene.sandbox.set_faults()
    made.start()
    made.wait_until_done(backed_up=1)
    assert 0 == made.scene.spool.stop()


def commanded(made: Recorded) -> None:
    """An operator asks for a second order of a package, and has it."""
    made.start()
    drop = Dropped(name="a_v1.zip", content=zip_bytes(seed=8, size=1200), fate="delivered", how="synced")
    made.drop(drop)
    made.wait_until_done(backed_up=1)
    made.requeue(drop)
    wait_until(lambda: 2 == made.scene.spool.events().count("COMPLETED"), "it is delivered again", 60)
    made.wait_until_done(backed_up=1)
    assert 0 == made.scene.spool.stop()


SCENARIOS: tuple[Callable[[Recorded], None], ...] = (careless, careful, doubtful, commanded)


@contextmanager
def recorded(home: Path, server: S3Server, scenario: Callable[[Recorded], None]) -> Iterator[Recorded]:
    """A recording of that scenario; its services stay, to be put back to any moment of it."""
    home.mkdir()
    with scene(home, server, spool={"incomplete_timeout_seconds": 1}) as made_scene:
        made = Recorded(scenario.__name__, made_scene, Memory(made_scene))
        with made.memory.watching():
            scenario(made)
        made.operations = recording.read(made.records, made_scene.spool.root)
        made.memory.keep(made.operations)
        yield made


def lying(tree: dict[str, bytes | None]) -> Sequence[tuple[str, str]]:
    """Every package file in a tree: its path, and the SHA-256 of what lies there."""
    folders = (*STAGES, ".tfwatch/claimed")
    return [
        (path, digest(content)) for path, content in tree.items()
        if content is not None and path.endswith(".zip") and path.rpartition("/")[0] in folders
        and not path.rpartition("/")[2].startswith(".")
    ]  # fmt: skip
