"""More files than the kernel's event queue holds, and more than go out: none is lost, the oldest goes first."""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise

import psutil
import pytest

from tests.support.daemon import Spool, wait_until, zip_bytes
from tests.support.extent import Extent
from tests.support.kernel import lowered, sysctl
from tests.support.portal import digest, ordered
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

QUEUE = "fs.inotify.max_queued_events"
KERNELS_OWN = 16_384
"""Events that the kernel's queue holds unless told otherwise."""

FULL = 20_000
"""Files of the full run: more than that."""

MOST_RESCAN = 3600
"""Seconds between rescans where one must not be what finds the files."""

WORKERS = 8
PATIENCE = 120.0
MIB = 2**20


class Stream:
    """Tiny ZIPs, each with its own content, renamed into the outbox one after the other. Names sort as they come."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._staging = spool.home / "staging"
        self._staging.mkdir()
        self.names: list[str] = []
        self.expected: dict[str, int] = {}

    def prepare(self, count: int) -> None:
        """Write so many beside the spool."""
        for number in range(len(self.names), len(self.names) + count):
            name, content = f"f{number:06}.zip", zip_bytes(seed=number, size=64)
            (self._staging / name).write_bytes(content)
            self.names.append(name)
            self.expected[digest(content)] = 1

    def drop(self, *names: str) -> None:
        """Rename these in: one event each."""
        for name in names:
            os.rename(self._staging / name, self._spool.root / "outbox" / name)


def waits(spool: Spool, count: int) -> bool:
    """Whether the daemon shows so many in the outbox, and none further on."""
    stages = spool.state()["stages"]
    return bool(count == stages["outbox"] and 0 == stages["delivered"] + stages["submitted"])


@pytest.mark.root
@pytest.mark.timeout(1800)
def test_more_files_than_the_event_queue_holds_are_all_noticed_and_sent(
    sandbox: Sandbox, spool: Spool, extent: Extent
) -> None:
    """The queue overflows while the daemon is stopped: once it goes on, all are seen long before a rescan, and sent."""
    count = FULL if extent.packages >= 5000 else extent.packages
    spool.configure(
        spool={"rescan_seconds": MOST_RESCAN},
        integrations={"gotranscript": {"enabled": False, "workers": WORKERS}},
    )
    with lowered(QUEUE, min(sysctl(QUEUE), KERNELS_OWN) if count == FULL else count // 4):
        queue = sysctl(QUEUE)
        spool.start()
    assert spool.process is not None
    stream = Stream(spool)
    stream.prepare(count)
    spool.wait_for_state(lambda state: state["watch_latency_seconds"], "the first canary is heard")

    spool.process.send_signal(signal.SIGSTOP)
    stream.drop(*stream.names)
    spool.process.send_signal(signal.SIGCONT)
    began = time.monotonic()
    wait_until(lambda: waits(spool, count), "all are noticed", PATIENCE)
    noticed = time.monotonic() - began
    wait_until(lambda: "more file events came than" in spool.output.read_text(), "the overflow is told", PATIENCE)
    said = spool.output.read_text()
    assert queue < count
    assert "polled instead" not in said
    assert 1 == said.count("watching ")

    sandbox.set_settings(portal={"verdict": "immediate"})
    spool.configure(integrations={"gotranscript": {"enabled": True}})
    began = time.monotonic()
    spool.wait_for_state(lambda state: state["stages"]["delivered"] == count, "all are delivered", 60 + count / 15)
    delivered = time.monotonic() - began

    assert set(stream.names) == spool.names("delivered")
    assert stream.expected == ordered(sandbox)
    spool.assert_sound()
    assert 1 == spool.output.read_text().count("watching ")
    print(f"\noverflow: {count} ZIPs over a queue of {queue}: noticed in {noticed:.1f} s, "
          f"delivered in {delivered:.0f} s ({count / delivered:.0f}/s)")  # fmt: skip


# --- more than goes out -----------------------------------------------------------------------------------------------


def beat_of(spool: Spool) -> float:
    """When the loop last beat: in the same step it tells systemd's watchdog and writes its state."""
    return (spool.root / ".tfwatch" / "state.json").stat().st_mtime


@pytest.mark.timeout(900)
def test_files_that_come_faster_than_they_go_out(sandbox: Sandbox, spool: Spool, extent: Extent) -> None:
    """A flood before a slow portal: oldest first, flat memory, a loop that beats and answers, a queue that is shown."""
    seconds, pace = (20.0, 100) if extent.packages >= 5000 else (6.0, 60)
    spool.configure(integrations={"gotranscript": {"workers": 4}})
    sandbox.set_faults(Fault(kind=FaultKind.LATENCY, seconds=0.5))
    stream = Stream(spool)
    stream.prepare(int(seconds * pace))
    spool.start()
    assert spool.process is not None
    daemon = psutil.Process(spool.process.pid)
    spool.drop("warm.zip", seed=10**6)
    spool.wait_for("delivered", "warm.zip", seconds=PATIENCE)
    memory, answers, queued, beats = [daemon.memory_info().rss], [], [], {beat_of(spool)}
    began = time.monotonic()
    for number, name in enumerate(stream.names):
        wait_until(lambda due=began + number / pace: time.monotonic() >= due, "the next drop is due")
        stream.drop(name)
        beats.add(beat_of(spool))
        if number % pace == 0:
            asked = time.monotonic()
            spool.ask("disable", integration=Integration.S3)
            answers.append(time.monotonic() - asked)
            memory.append(daemon.memory_info().rss)
            queued.append(spool.state()["stages"]["outbox"])
    flood = time.monotonic() - began
    shown = spool.wait_for_state(lambda state: state["stages"]["outbox"] > 0 and state, "the queue is shown")
    assert f"{shown['stages']['outbox']} waiting" in shown["line"]
    gone_out = len(spool.names("submitted")) + len(spool.names("delivered"))
    assert gone_out < len(stream.names) / 2, "the flood was no flood"
    sandbox.set_faults()
    spool.wait_for("delivered", *stream.names, seconds=PATIENCE + len(stream.names) / 10)
    memory.append(daemon.memory_info().rss)
    longest = max(after - before for before, after in pairwise(sorted(beats)))

    accepted = [row["package"] for row in spool.rows() if row["event"] == "ATTEMPTED" and row["package"] != "warm.zip"]
    displaced = max(abs(place - stream.names.index(name)) for place, name in enumerate(accepted))
    assert displaced <= 4 * 4, "not the oldest first"
    assert sorted(accepted) == stream.names
    assert set(stream.expected.values()) == {1}
    found = ordered(sandbox)
    assert stream.expected.items() <= found.items()
    assert len(stream.names) + 1 == found.total()
    assert max(memory) - memory[0] < 24 * MIB, [size // MIB for size in memory]
    assert longest < 10.0
    assert max(answers) < 10.0
    spool.assert_sound()
    print(
        f"\nflood: {len(stream.names)} ZIPs in {flood:.0f} s, {gone_out} gone out by then, "
        f"queue shown up to {max(queued)}; displaced by at most {displaced}; "
        f"memory {memory[0] / MIB:.0f} to {max(memory) / MIB:.0f} MiB; "
        f"{len(beats)} beats at most {longest:.1f} s apart; "
        f"{len(answers)} requests answered within {max(answers):.1f} s"
    )
