"""A full disk: nothing is lost, nothing is half written, it is said, and work goes on by itself when there is room."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import PATIENCE, STAGES, Spool, wait_until, zip_bytes
from tests.support.forwarder import Forwarder
from tests.support.host import fill, mounted
from tests.support.portal import digest, ordered
from tests.support.require import need_module
from tfwatch.sandbox.server import Sandbox

pytestmark = pytest.mark.root

COUNT = 12
NAMES = [f"{n}.zip" for n in range(COUNT)]
CONTENTS = {name: zip_bytes(seed=n, size=20_000) for n, name in enumerate(NAMES)}


@pytest.fixture
def small(spool: Spool) -> Iterator[Spool]:
    """A spool on a disk of 3 MiB of its own; its configuration and journal lie elsewhere."""
    with mounted(spool.root, "tmpfs", "size=3m"):
        spool.configure(spool={"min_free_bytes": 0})
        for stage in STAGES:
            (spool.root / stage).mkdir()
        yield spool
        spool.kill()


def drop_all(spool: Spool) -> None:
    for name, content in CONTENTS.items():
        (spool.root / "outbox" / name).write_bytes(content)


def assert_all_delivered_once(sandbox: Sandbox, spool: Spool) -> None:
    spool.wait_for("delivered", *NAMES, seconds=60)
    assert {digest(content): 1 for content in CONTENTS.values()} == ordered(sandbox)
    for name, content in CONTENTS.items():
        assert content == (spool.root / "delivered" / name).read_bytes()
    assert set() == spool.names("outbox") | spool.names("rejected") | spool.claimed()
    assert [] == [name for name in os.listdir(spool.root / "outbox") if name.startswith(".")]
    spool.assert_sound()


def test_a_disk_that_fills_up_while_packages_are_sent(sandbox: Sandbox, small: Spool, way: Forwarder) -> None:
    """Filled in the middle of the work: no package and no half row is lost, and with room again all goes on."""
    way.hold()
    small.start()
    drop_all(small)
    small.wait_for_event("ATTEMPTED")
    ballast = fill(small.root)
    way.let_go()
    told = "deliveries wait"
    wait_until(lambda: told in small.output.read_text(), "the journal says that there is no room")
    assert small.process is not None
    assert small.process.poll() is None, small.picture()
    assert set(NAMES) == small.claimed().union(*(small.names(stage) for stage in STAGES))
    assert set() == small.names("rejected")
    shown = small.cli("status").stdout
    assert "free some space" in shown.replace("\n", " "), shown
    small.assert_sound()
    ballast.unlink()
    assert_all_delivered_once(sandbox, small)
    wait_until(lambda: "there is room again" in small.output.read_text(), "the journal says that it is over")


def test_a_disk_that_is_full_at_the_start(sandbox: Sandbox, small: Spool) -> None:
    """Started on a full disk it waits, says so, and touches nothing; with room it starts by itself and delivers."""
    drop_all(small)
    ballast = fill(small.root)
    small.start(ready=False)
    wait_until(lambda: "the disk is full" in small.output.read_text(), "it says that there is no room")
    assert small.process is not None
    assert small.process.poll() is None, small.picture()
    assert "the disk is full" in small.cli("status").stdout
    assert set(NAMES) == small.names("outbox")
    assert [] == sandbox.orders()
    ballast.unlink()
    assert_all_delivered_once(sandbox, small)
    assert "Traceback" not in small.output.read_text()


def test_stopping_on_a_full_disk(sandbox: Sandbox, small: Spool, way: Forwarder) -> None:
    """Told to stop while it waits for room, it stops in time; the next start goes on without a second order."""
    way.hold()
    small.start()
    drop_all(small)
    small.wait_for_event("ATTEMPTED")
    ballast = fill(small.root)
    way.let_go()
    wait_until(lambda: "deliveries wait" in small.output.read_text(), "it waits for room")
    small.stop()
    small.assert_sound()
    ballast.unlink()
    small.start()
    assert_all_delivered_once(sandbox, small)


def test_a_row_that_fits_and_an_index_that_does_not(small: Spool, tmp_path: Path) -> None:
    """The loop itself waits for the index: it says why, beats on for the watchdog, and goes on once there is room."""
    need_module("systemd.daemon")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        small.start(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(3 * 10**6)})
        ballast = fill(small.root)
        small.configure(integrations={"gotranscript": {"enabled": False}})
        wait_until(lambda: "deliveries wait for room" in small.output.read_text(), "the index finds no room")
        small.wait_for_event("DISABLED")
        systemd.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                systemd.recv(65536)
        systemd.settimeout(PATIENCE)
        heard = b""
        while heard.count(b"WATCHDOG=1") < 3 or b"index.sqlite" not in heard:
            heard += systemd.recv(65536)
        ballast.unlink()
        wait_until(lambda: "there is room again" in small.output.read_text(), "it goes on")
        small.wait_for_state(lambda state: state["integrations"]["gotranscript"]["state"] == "off", "it is off")
        small.wait_for_state(lambda state: state["problems"] == [], "no problem is left")
        assert 0 == small.stop()


def test_little_space_is_only_told(sandbox: Sandbox, spool: Spool) -> None:
    """Below `min_free_bytes` status says how much is left and what to do; deliveries go on."""
    spool.configure(spool={"min_free_bytes": "900TiB"})
    spool.start()
    spool.drop("a.zip")
    spool.wait_for("delivered", "a.zip")
    (problem,) = spool.wait_for_state(lambda state: state["problems"], "status tells")
    assert str(spool.root) in problem
    assert "less than spool.min_free_bytes" in problem
    assert "free some space" in problem
    assert 1 == ordered(sandbox).total()
