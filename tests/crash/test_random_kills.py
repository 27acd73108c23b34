"""Killed at any moment, thousands of times, over a stream of packages: nothing is lost, nothing is sent twice."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import wait_until
from tests.support.droppers import Droppers
from tests.support.extent import Extent
from tests.support.looking import differences, told
from tests.support.portal import ordered
from tests.support.s3_servers import S3Server
from tests.support.scene import Scene, scene
from tests.support.warm import Nursery
from tfwatch.sandbox.settings import PortalSettings

pytestmark = pytest.mark.timeout(0)  # --hours

DEADLINE = 300.0
THINKING = 0.02
"""Seconds that the portal takes between a package and its order, so that many kills fall between."""

PORTALS: dict[str, tuple[PortalSettings, dict[str, Any]]] = {
    "keys": (PortalSettings(verdict_delay=0.1, work_seconds=THINKING), {}),
    "lookup": (
        PortalSettings(verdict_delay=0.1, work_seconds=THINKING, idempotency=False),
        {"on_unknown_outcome": "lookup"},
    ),
}
"""A portal that honours idempotency keys, and one that does not; each with a spool of its own, at the same time."""


@dataclass(kw_only=True)
class Lives:
    """What became of one spool's daemons."""

    portal: str
    kills: Counter[str] = field(default_factory=Counter)
    stops: int = 0
    seconds: float = 0.0


def test_killed_at_random_moments(tmp_path: Path, server: S3Server, nursery: Nursery, extent: Extent) -> None:
    """Every package dropped ends as one order, one object and one file, or as a duplicate with its reason."""
    until = time.monotonic() + extent.hours * 3600
    turn = 0
    while turn == 0 or time.monotonic() < until:
        with ThreadPoolExecutor(len(PORTALS)) as pool:
            kills = max(1, extent.kills // len(PORTALS))
            jobs = [
                pool.submit(_stream, tmp_path / f"{portal}-{turn}", server, nursery, extent, portal, kills)
                for portal in PORTALS
            ]
            for job in jobs:
                job.result()
        turn += 1


def _stream(home: Path, server: S3Server, nursery: Nursery, extent: Extent, portal: str, kills: int) -> None:
    """One spool's whole time: lives and deaths, then a quiet end and the reckoning."""
    home.mkdir()
    rng = extent.rng(home.name)
    settings, gotranscript = PORTALS[portal]
    lives = Lives(portal=portal)
    began = time.monotonic()
    with ExitStack() as stack:
        sections = {"integrations": {"gotranscript": {"workers": 4, **gotranscript}, "s3": {"part_size_mib": 5}}}
        stage = stack.enter_context(scene(home, server, portal=settings, **sections))
        stage.spool.launch = nursery.start
        droppers = Droppers(stage.spool, rng)
        try:
            while lives.kills.total() < kills:
                _live(stage, droppers, lives)
            droppers.finish()
            _end(stage, droppers)
            _reckon(stage, droppers, lives)
        except Exception as error:
            picture = home / "picture.txt"
            picture.write_text(stage.picture(), errors="surrogateescape")
            error.add_note(
                f"seed {extent.seed}, {home.name}: {lives}\nthe whole picture: {picture}\n{stage.picture()[-4000:]}"
            )
            raise
        finally:
            droppers.finish()
        lives.seconds = time.monotonic() - began
        _tell(stage, droppers, lives, extent)
    shutil.rmtree(home)


def _live(stage: Scene, droppers: Droppers, lives: Lives) -> None:
    """One life: some packages are dropped around its start; it ends by SIGKILL, rarely by a stop."""
    spool, rng = stage.spool, droppers.rng
    spool.output.unlink(missing_ok=True)  # the last life is enough for a picture
    droppers.drop(rng.randint(0, 3))
    spool.start(ready=False)
    process = spool.process
    assert process is not None
    if rng.random() < 0.25:
        _lives_for(process, rng.uniform(0.0, 0.4))
    else:
        wait_until(lambda: spool.is_watching() or process.poll() is not None, "the daemon watches", DEADLINE)
        droppers.drop(rng.randint(0, 4))
        _lives_for(process, min(2.0, rng.expovariate(4.0)))
    if spool.is_watching() and rng.random() < 0.08:
        lives.stops += 1
        code = spool.stop(seconds=DEADLINE)
        assert 0 == code, f"exit code {code} at a stop"
        return
    if spool.is_watching() and rng.random() < 0.05:
        process.send_signal(signal.SIGTERM)
        when = "while it stopped"
        time.sleep(rng.uniform(0, 0.3))
    else:
        when = "" if spool.is_watching() else "while it started"
    process.kill()
    code = process.wait(DEADLINE)
    spool.process = None
    assert code == -signal.SIGKILL or (when == "while it stopped" and code == 0), f"exit code {code}"
    if code != 0:
        lives.kills[when or _at_work(stage)] += 1


def _lives_for(process: subprocess.Popen[bytes], seconds: float) -> None:
    """By chance, so many seconds; it must not end by itself meanwhile."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError(f"the daemon ended by itself, exit code {code}")


def _at_work(stage: Scene) -> str:
    """What the daemon had in hand when it died."""
    if stage.spool.claimed():
        return "while it delivered"
    if stage.spool.names("submitted"):
        return "while it followed orders"
    return "while it backed up or waited"


# --- the end ---------------------------------------------------------------------------------------------------------


def _end(stage: Scene, droppers: Droppers) -> None:
    """Let it finish in peace, and stop it."""
    spool = stage.spool
    spool.output.unlink(missing_ok=True)
    spool.start(seconds=DEADLINE)
    process = spool.process
    assert process is not None

    def is_over() -> bool:
        if process.poll() is not None:
            return True
        time.sleep(0.2)  # thousands of rows to compare
        settled = len(spool.names("delivered")) + len(spool.names("rejected"))
        if settled < droppers.dropped.total():
            return False
        rows = stage.logged()
        return set(droppers.dropped) <= {row[6] for row in rows if row[4] == "BACKED_UP"} and rows == stage.shown()

    wait_until(is_over, "every package has found its end", DEADLINE)
    assert process.poll() is None, f"the daemon ended by itself, exit code {process.poll()}"
    code = spool.stop(seconds=DEADLINE)
    assert 0 == code, f"exit code {code} at the last stop"


def _reckon(stage: Scene, droppers: Droppers, lives: Lives) -> None:
    """Nothing lost, nothing twice, and everybody says the same."""
    spool, once = stage.spool, dict.fromkeys(droppers.dropped, 1)
    lying = stage.lying()
    assert droppers.dropped == Counter(sha256 for _, _, sha256 in lying)
    assert once == Counter(sha256 for where, _, sha256 in lying if where == "delivered")
    assert {"delivered", "rejected"} >= {where for where, _, _ in lying}
    for where, name, _ in lying:
        assert where == "delivered" or "The same content was" in spool.reason(name), name
    assert once == ordered(stage.sandbox)
    assert once == Counter(sha256 for _, sha256 in stage.objects())
    assert [] == stage.uploads()
    assert stage.logged() == stage.shown()
    spool.assert_sound()
    assert [] == spool.litter()
    assert [] == differences(spool)
    orders = {str(order["sha256"]): str(order["id"]) for order in stage.sandbox.orders()}
    for sha256 in droppers.rng.sample(sorted(once), min(20, len(once))):
        stories = {package["stage"]: package for package in told(spool, sha256)["packages"]}
        assert orders[sha256] == stories["delivered"]["order_id"]
    if lives.kills.total() >= 50:
        at_work = lives.kills.total() - lives.kills["while it started"] - lives.kills["while it backed up or waited"]
        assert at_work >= 0.3 * lives.kills.total(), lives
        assert lives.kills["while it started"] > 0, lives
        assert any("~2" in name for _, name, _ in lying), "no name was taken twice"


def _tell(stage: Scene, droppers: Droppers, lives: Lives, extent: Extent) -> None:
    rows = stage.logged()
    print(
        f"\nportal with {lives.portal}: {lives.kills.total()} kills, {lives.stops} stops, seed {extent.seed}, "
        f"{lives.seconds:.0f} s\n  kills: {dict(lives.kills)}\n"
        f"  packages: {droppers.dropped.total()}, contents: {len(droppers.dropped)}, {dict(droppers.ways)}\n"
        f"  log: {len(rows) - 1} rows, {dict(Counter(row[4] for row in rows[1:]))}"
    )
