"""The power fails in mid-work, again and again, on a disk that forgets what was not flushed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.power.lives import Lives
from tests.support.extent import Extent
from tests.support.guest import Machine, make_disk
from tests.support.guest_disk import VolatileDisk
from tests.support.guest_image import FILE_SYSTEMS
from tests.support.s3_servers import S3Server
from tests.support.scene import scene
from tfwatch.sandbox.settings import PortalSettings

pytestmark = pytest.mark.timeout(7200)

PACKAGES = 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Few cuts go to one file system and one policy, by the seed; many to each pair of them."""
    extent = Extent.of(metafunc.config)
    pairs = [(kind, policy) for kind in FILE_SYSTEMS for policy in ("retry", "lookup")]
    shares = max(1, min(len(pairs), extent.cuts // 3))
    first = extent.rng("power").randrange(len(pairs))
    taken = [pairs[(first + number * len(pairs) // shares) % len(pairs)] for number in range(shares)]
    cuts = [extent.cuts * (number + 1) // shares - extent.cuts * number // shares for number in range(shares)]
    metafunc.parametrize(("kind", "policy", "cuts"), [(*pair, count) for pair, count in zip(taken, cuts, strict=True)])


def test_the_power_is_cut_in_mid_work(
    kind: str, policy: str, cuts: int, tmp_path: Path, machine: Machine, server: S3Server, extent: Extent
) -> None:
    """After every cut the disk bears out what others were told; in the end all is sent once, stored once, shown once.

    What its dropper synced is never lost; what nobody synced is sent whole, refused as cut short, or gone.
    """
    portal = PortalSettings(verdict_delay=0.5, work_seconds=0.2, idempotency=policy == "retry")
    changes = {
        "spool": {"root": "/spool", "min_free_bytes": "1MiB", "incomplete_timeout_seconds": 2},
        "integrations": {"gotranscript": {"timeout_seconds": 60, "on_unknown_outcome": policy}},
    }
    make_disk(tmp_path / "disk", kind)
    with (
        scene(tmp_path, server, portal=portal, **changes) as house,
        VolatileDisk(tmp_path / "disk") as disk,
    ):
        rng = extent.rng(f"{kind} {policy}")
        lives = Lives(scene=house, machine=machine, disk=disk, kind=kind, rng=rng)
        print(f"\n{kind}, on_unknown_outcome: {policy}; {cuts} cuts, seed {extent.seed}")
        for moment in lives.pick_moments(cuts):
            lives.live_and_be_cut(moment, PACKAGES)
        lives.live_to_the_end()
        lives.assert_nothing_lost_nothing_twice()
        lives.tell()
        assert sum(loss.lost for loss in lives.losses), "no cut lost anything: the disk forgot nothing"
    (tmp_path / "disk").unlink()
