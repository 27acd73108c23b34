"""The lives of one machine: in each, packages are dropped, and its power is cut; after each, its disk is looked at.

What the host knows for sure is kept here: which content was dropped, and which of it was synced by its dropper before
the cut. The services run on the host and outlive every cut.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import yaml

from tests.power.disk_truth import Truth
from tests.support.daemon import STAGES, wait_until, zip_bytes
from tests.support.guest import HOST, Guest, Machine, PowerCut
from tests.support.guest_disk import Loss, VolatileDisk
from tests.support.looking import differences
from tests.support.portal import digest, ordered
from tests.support.scene import Scene

PATIENCE: Final = 240.0
"""An emulated processor on a busy machine is slow."""

MOMENTS: Final = ("at a flush", "at any time", "at a start")
"""When the power falls: at a flush before it is carried out, or at any time, amid deliveries; or at an early flush."""

_IDLE: Final = 20.0
"""Seconds without a flush after which a cut at a flush falls anyway."""


@dataclass
class Lives:
    """One disk, its machine and the scene around them."""

    scene: Scene
    machine: Machine
    disk: VolatileDisk
    kind: str
    rng: random.Random
    offered: dict[str, str] = field(default_factory=dict)
    """SHA-256 → name of everything that was ever dropped, if only in part."""
    promised: set[str] = field(default_factory=set)
    """What was on disk when its dropper was told so."""
    losses: list[Loss] = field(default_factory=list)
    cut_in: Counter[str] = field(default_factory=Counter)
    """Stage → packages that lay in it on the disk at the cuts."""
    refused: int = 0
    moments: Counter[str] = field(default_factory=Counter)

    # --- one life ----------------------------------------------------------------------------------------------------

    def pick_moments(self, cuts: int) -> list[str]:
        """When the power is to fall. However few cuts there are, one makes the disk forget something it was given."""
        first = ["at a start", "at a flush"] if cuts > 2 else ["at a flush"]
        return [*first, *self.rng.choices(MOMENTS, k=cuts)][:cuts]

    def live_and_be_cut(self, moment: str, packages: int) -> None:
        """Wake up, work, drop packages meanwhile, and lose the power at that moment, about."""
        before = len(self.scene.sandbox.orders())
        with self._woken() as guest:
            self._look_at_the_disk(guest)
            if moment == "at a start":
                self.disk.cut_at_flush(self.rng.randint(1, 12))
            guest.ask("start")
            dropper = threading.Thread(target=self._drop, args=(guest, packages), name="dropper")
            dropper.start()
            if moment != "at a start":
                self._wait_for_orders(guest, before + self.rng.randint(1, packages - 1))
            if moment == "at a flush":
                self.disk.cut_at_flush(self.rng.randint(1, 6 * packages) if "at a flush" in self.moments else 1)
            if moment == "at any time":
                time.sleep(self.rng.uniform(0.0, 2.0))
            else:
                self._wait_for_the_fall(guest)
            self.disk.fall()
            guest.off()
            dropper.join()
        loss = self.disk.forget(self.rng)
        self.losses.append(loss)
        self.moments[moment] += 1
        print(
            f"  cut {moment}: {loss.waiting} pages in the disk's cache, {loss.lost} of them lost; "
            f"{len(self.scene.sandbox.orders()) - before} new orders"
        )

    def live_to_the_end(self) -> None:
        """Wake up, finish everything, be stopped in good order; then lose the power once more, and look at the disk."""
        with self._woken() as guest:
            self._look_at_the_disk(guest)
            guest.ask("start")
            self._wait_until_settled(guest)
            code = guest.ask("stop")
            assert 0 == code, guest.ask("output")
            self.disk.fall()
        self.losses.append(self.disk.forget(self.rng))
        with self._woken() as guest:
            self._pull(guest)
            self.disk.fall()

    @contextmanager
    def _woken(self) -> Iterator[Guest]:
        config = yaml.safe_dump(self.scene.spool.settings)
        with self.machine.woken(self.disk, self.kind, config.replace("127.0.0.1", HOST)) as guest:
            yield guest

    # --- what happens in it ------------------------------------------------------------------------------------------

    def _drop(self, guest: Guest, packages: int) -> None:
        """Drop packages until the power falls. Half of them are never synced, as people do it."""
        rng = random.Random(self.rng.random())
        try:
            for number in range(packages):
                if number == 2:
                    wait_until(lambda: guest.ask("watching"), "the daemon watches", PATIENCE)
                seed = len(self.offered)
                content = zip_bytes(seed=seed, size=rng.choice((500, 5_000, 60_000, 300_000)))
                name, synced = f"n{seed}.zip", rng.random() < 0.5
                self.offered[digest(content)] = name
                guest.drop(name, content, way=rng.choice(("rename", "in place")), synced=synced)
                if synced:
                    self.promised.add(digest(content))
                time.sleep(rng.choice((0.0, 0.3, 1.0)))
        except PowerCut:
            pass

    def _wait_for_orders(self, guest: Guest, count: int) -> None:
        try:
            wait_until(lambda: len(self.scene.sandbox.orders()) >= count, f"{count} orders", PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{guest.ask('log')}\n{guest.ask('output')}") from None

    def _wait_for_the_fall(self, guest: Guest) -> None:
        """A flush that never comes, since all is done: the power falls once nothing was flushed for a while."""
        seen, since = -1, time.monotonic()
        while not self.disk.fell.wait(0.05):
            if self.disk.flushes != seen:
                seen, since = self.disk.flushes, time.monotonic()
            elif time.monotonic() > since + _IDLE:
                assert guest.ask("alive"), guest.ask("output")
                return

    def _wait_until_settled(self, guest: Guest) -> None:
        def settled() -> bool:
            assert guest.ask("alive"), guest.ask("output")
            if not guest.ask("watching"):
                return False
            lying = guest.ask("names")
            if any(
                name.lower().endswith(".zip")
                for stage in ("outbox", ".tfwatch/claimed", "submitted")
                for name in lying[stage]
            ):
                return False
            rows = Truth.read(guest.ask("log")).rows
            backed_up = {row["sha256"] for row in rows if row["event"] == "BACKED_UP"}
            accepted = {row["sha256"] for row in rows if row["event"] == "ACCEPTED"}
            return accepted <= backed_up and len(self.scene.shown()) == len(rows) + 1

        try:
            wait_until(settled, "everything in the machine is settled", PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{guest.ask('names')}\n{guest.ask('log')}\n{guest.ask('output')}") from None

    # --- what is seen of it ------------------------------------------------------------------------------------------

    def _pull(self, guest: Guest) -> None:
        """Put what the disk holds where the scene's spool is."""
        shutil.rmtree(self.scene.spool.root, ignore_errors=True)
        guest.pull(self.scene.spool.root)
        for stage in STAGES:
            # not there yet after a cut at the very first start
            (self.scene.spool.root / stage).mkdir(exist_ok=True)

    def _look_at_the_disk(self, guest: Guest) -> None:
        """Before anything is repaired, the disk bears out all that anybody outside was told."""
        self._pull(guest)
        if self.losses:
            truth = Truth.of(self.scene)
            self.cut_in.update(stage for stage, _, _ in truth.lying)
            truth.assert_bears_out(self.scene, offered=set(self.offered), promised=self.promised)

    def assert_nothing_lost_nothing_twice(self) -> None:
        """At the very end; the disk is as the last cut left it."""
        scene, truth = self.scene, Truth.of(self.scene)
        scene.spool.configure(spool={"root": str(scene.spool.root)})
        assert [] == differences(scene.spool), scene.picture()
        for stage, name, sha256 in truth.lying:
            if stage == "rejected":
                # Cut short before its dropper synced it: said so beside it, and never sent.
                assert sha256 not in self.offered, scene.picture()
                assert "again" in scene.spool.reason(name), scene.spool.reason(name)
                (scene.spool.root / stage / name).unlink()
                self.refused += 1
        sent = set(ordered(scene.sandbox))
        assert self.promised <= sent, scene.picture()
        assert sent <= set(self.offered), scene.picture()
        scene.dropped = dict.fromkeys(sent, b"")
        scene.assert_invariants()

    def tell(self) -> None:
        """What was tried, in numbers."""
        sent = len(self.scene.sandbox.orders())
        moments = ", ".join(f"{number} {moment}" for moment, number in self.moments.items())
        print(
            f"{self.kind}: {len(self.losses)} cuts: {moments}, 1 when all was done\n"
            f"  at them lay: {', '.join(f'{number} in {stage}' for stage, number in self.cut_in.items())}\n"
            f"  {sum(loss.waiting for loss in self.losses)} pages were in the disk's cache, "
            f"{sum(loss.lost for loss in self.losses)} of them were lost\n"
            f"  {len(self.offered)} packages dropped, {len(self.promised)} of them synced; {sent} delivered, "
            f"{self.refused} refused as cut short, {len(self.offered) - sent - self.refused} gone"
        )
