"""No room for inotify, at start or later: the folders are polled, it is said, deliveries go on, and events come back.

Each daemon runs in a user namespace of its own: its limits are its own, and nobody else on the machine feels them.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from operator import le
from pathlib import Path

import psutil
import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.extent import Extent
from tests.support.host import unmet
from tests.support.portal import ordered
from tfwatch.sandbox.server import Sandbox

PATIENCE = 60.0
PLENTY = 1000

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


def in_own_namespace(limit: str, value: int) -> tuple[str, ...]:
    """What to start a daemon with so that `user.max_inotify_watches` or `…_instances` is its own affair."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode != 0:
        unmet("needs root and user namespaces")
    return ("unshare", "-Ur", "sh", "-c", f'echo {value} > /proc/sys/user/{limit} && exec "$@"', "sh")


def set_limit(spool: Spool, limit: str, value: int) -> None:
    """The same while it runs."""
    assert spool.process is not None
    command = ["nsenter", "-t", str(spool.process.pid), "-U", "sh", "-c", f"echo {value} > /proc/sys/user/{limit}"]
    subprocess.run(command, check=True)


def mode(spool: Spool) -> str:
    return str(spool.state()["watch"]["mode"])


def deliver(spool: Spool, first: int, count: int) -> None:
    """Drop so many one after the other; all are delivered."""
    names = [f"p{number:04}.zip" for number in range(first, first + count)]
    for number, name in enumerate(names, start=first):
        spool.drop(name, seed=number)
    spool.wait_for("delivered", *names, seconds=PATIENCE + count)


@pytest.mark.parametrize("limit", ["max_inotify_watches", "max_inotify_instances"])
def test_no_room_at_start(sandbox: Sandbox, spool: Spool, extent: Extent, limit: str) -> None:
    """The daemon starts all the same, polls, says why, delivers; with room again it listens, without a restart."""
    count = max(10, extent.packages // 100)
    spool.configure(spool={"rescan_seconds": 3600})
    spool.start(wrap=in_own_namespace(limit, 0))
    assert "polling" == mode(spool)
    status = spool.cli("status", "--json").stdout
    assert "max_user_watches or max_user_instances" in status
    assert "the folders are polled instead" in status
    deliver(spool, 0, count)
    assert "polling" == mode(spool)

    set_limit(spool, limit, PLENTY)
    spool.wait_for_state(lambda state: state["watch"]["mode"] == "inotify", "it listens again", PATIENCE)
    deliver(spool, count, count)

    wait_until(lambda: "file events arrive again; polling ends" in spool.output.read_text(), "the journal says so")
    assert 1 == spool.output.read_text().count("the folders are polled instead")
    assert spool.state()["watch_latency_seconds"] is not None
    assert 2 * count == ordered(sandbox).total()
    print(f"\n{limit}: {count} delivered while polling, {count} after events came back")


def holds(daemon: psutil.Process) -> tuple[int, int]:
    """Threads, and descriptors but for connections: of these lanes keep some open, now more, now fewer."""
    links = []
    for link in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(os.readlink(link))
    return daemon.num_threads(), sum(not link.startswith("socket:") for link in links)


def test_no_room_while_running(sandbox: Sandbox, spool: Spool, extent: Extent) -> None:
    """A folder is replaced when no watch is to be had: polling, for as long as that lasts, and nothing leaks."""
    count = max(10, extent.packages // 100)
    spool.configure(spool={"rescan_seconds": 1})
    spool.start(wrap=in_own_namespace("max_inotify_watches", PLENTY))
    spool.wait_for_state(lambda state: state["watch_latency_seconds"], "the first canary is heard")
    assert "inotify" == mode(spool)
    deliver(spool, 0, count)

    set_limit(spool, "max_inotify_watches", 0)
    (spool.root / "outbox").rename(spool.root / "outbox.older")
    (spool.root / "outbox").mkdir()
    spool.wait_for_state(lambda state: state["watch"]["mode"] == "polling", "it polls", PATIENCE)
    assert "polled instead" in "\n".join(spool.state()["problems"])
    spool.configure(spool={"rescan_seconds": 3600})
    deliver(spool, count, count)
    assert spool.process is not None
    daemon = psutil.Process(spool.process.pid)
    held = holds(daemon)
    deliver(spool, 2 * count, count)
    assert "polling" == mode(spool)
    wait_until(lambda: all(map(le, holds(daemon), held)), f"no more threads and descriptors than {held}")

    set_limit(spool, "max_inotify_watches", PLENTY)
    spool.wait_for_state(lambda state: state["watch"]["mode"] == "inotify", "it listens again", PATIENCE)
    deliver(spool, 3 * count, count)
    wait_until(lambda: "file events arrive again; polling ends" in spool.output.read_text(), "the journal says so")
    assert 1 == spool.output.read_text().count("the folders are polled instead")
    assert 4 * count == ordered(sandbox).total()
    print(f"\nwatches taken away while running: {2 * count} delivered while polling, {2 * count} before and after")
