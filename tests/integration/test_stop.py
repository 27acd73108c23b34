"""A stop comes within ten seconds whatever is under way, and nothing is lost or sent twice by it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack

import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.daemon import spool as make_spool
from tests.support.forwarder import Forwarder
from tests.unit.zips import megabytes_of_zeros
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

PROMPT = 20.0
"""Seconds. Ten are promised, and a loaded machine is given as much again; whatever isn't cut takes a minute or more."""

MORE_THAN_BUFFERS = 64 * 1024**2


def sparse_zip(path: Path, size: int) -> None:
    """A sound ZIP with one stored member of `size` zero bytes, which take no room on the disk."""
    crc = 0
    zeros = bytes(16 * 1024**2)
    for start in range(0, size, len(zeros)):
        crc = zlib.crc32(zeros[: size - start], crc)
    name = b"job/recording.wav"
    about = pack("<HHHHHIIIHH", 20, 0, 0, 0, 0x21, crc, size, size, len(name), 0)
    with path.open("wb") as file:
        file.write(b"PK\x03\x04" + about + name)
        file.seek(size, os.SEEK_CUR)
        directory = b"PK\x01\x02" + pack("<H", 20) + about + pack("<HHHII", 0, 0, 0, 0, 0) + name
        end = b"PK\x05\x06" + pack("<HHHHIIH", 0, 0, 1, 1, len(directory), file.tell(), 0)
        file.write(directory + end)


def zip_that_takes_long(path: Path) -> None:
    """A sound ZIP of 40 MB that unpacks to 40 GB of zeros: half a minute's inspection on a fast machine."""
    packed, size = megabytes_of_zeros(1024), 1024**3
    crc = 0
    for _ in range(1024):
        crc = zlib.crc32(bytes(1024**2), crc)
    directory, count = b"", 40
    with path.open("wb") as file:
        for number in range(count):
            name = f"job/{number:02}.wav".encode()
            about = pack("<HHHHHIIIHH", 20, 0, 8, 0, 0x21, crc, len(packed), size, len(name), 0)
            directory += b"PK\x01\x02" + pack("<H", 20) + about + pack("<HHHII", 0, 0, 0, 0, file.tell()) + name
            file.write(b"PK\x03\x04" + about + name + packed)
        end = b"PK\x05\x06" + pack("<HHHHIIH", 0, 0, count, count, len(directory), file.tell(), 0)
        file.write(directory + end)


@contextmanager
def tough_sink() -> Iterator[tuple[str, threading.Event]]:
    """An address that takes a request's first kilobytes and then no more; says when it got some."""
    got, done = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            got.set()
            done.wait()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", got
    finally:
        done.set()
        thread.join()
        listener.close()


def is_stuck(spool: Spool) -> bool:
    """Whether the upload under way made no progress from one second to the next."""
    before = spool.state()
    wait_until(lambda: spool.state()["at"] != before["at"], "the state is shown anew")
    return (
        [work["bytes_done"] for work in before["in_flight"]]
        == [work["bytes_done"] for work in spool.state()["in_flight"] if work["doing"] == "sending"]
        != []
    )


def stop(spool: Spool, number: int = signal.SIGTERM) -> float:
    """Stop it, which must succeed; gives the seconds it took."""
    began = time.monotonic()
    assert 0 == spool.stop(number)
    return time.monotonic() - began


def test_idle_it_stops_at_once(spool: Spool) -> None:
    """An idle daemon exits 0 by itself, and doesn't say any more that it runs."""
    spool.start()
    assert stop(spool) < 2
    assert not (spool.root / ".tfwatch" / "state.json").exists()
    spool.start()
    assert stop(spool, signal.SIGINT) < PROMPT


def test_amid_an_upload_that_is_stuck(tmp_path: Path, sandbox: Sandbox) -> None:
    """On its way into a portal that has stopped reading: back in the outbox within 10 s, and delivered once later."""
    with tough_sink() as (url, got), make_spool(tmp_path, url, sandbox.api_key) as spool:
        spool.configure(integrations={"gotranscript": {"timeout_seconds": 120}})
        sparse_zip(spool.home / "big", MORE_THAN_BUFFERS)
        (spool.home / "big").rename(spool.root / "outbox" / "big.zip")
        spool.start()
        assert got.wait(30)
        wait_until(lambda: is_stuck(spool), "the upload is stuck")
        assert {"big.zip"} == spool.claimed()
        assert stop(spool) < PROMPT
        assert {"big.zip"} == spool.names("outbox"), spool.picture()
        assert set() == spool.claimed()
        assert ["ATTEMPTED", "DEFERRED"] == spool.events("big.zip")
        spool.configure(integrations={"gotranscript": {"base_url": sandbox.url, "timeout_seconds": 30}})
        spool.start()
        spool.wait_for("delivered", "big.zip")
    (order,) = sandbox.orders()
    assert spool.rows()[0]["sha256"] == order["sha256"]
    spool.assert_sound()


def test_amid_an_upload_that_flows(sandbox: Sandbox, spool: Spool) -> None:
    """Stopped while the portal still reads: the ZIP is back in the outbox, and the portal has no order of it."""
    sparse_zip(spool.home / "big", MORE_THAN_BUFFERS)
    (spool.home / "big").rename(spool.root / "outbox" / "big.zip")
    with Forwarder(sandbox.url) as way:
        way.pause = 0.1  # a minute and more for all of it
        spool.configure(intake={"verify": "structure"}, integrations={"gotranscript": {"base_url": way.url}})
        spool.start()
        wait_until(lambda: sandbox.requests()["requests"], "the upload has begun")
        assert stop(spool) < PROMPT
    assert {"big.zip"} == spool.names("outbox"), spool.picture()
    assert [] == sandbox.orders()
    assert "DEFERRED" == spool.events("big.zip")[-1]


def test_amid_the_inspection(spool: Spool) -> None:
    """Stopped while a big ZIP is still being read: it is put back, and the log says nothing, for nothing happened."""
    zip_that_takes_long(spool.home / "big")
    (spool.home / "big").rename(spool.root / "outbox" / "big.zip")
    spool.start()
    wait_until(lambda: spool.claimed() == {"big.zip"}, "it is claimed")
    assert stop(spool) < PROMPT
    assert {"big.zip"} == spool.names("outbox")
    assert [] == spool.rows()


@pytest.mark.parametrize("accepted", [True, False])
def test_waiting_for_the_reply(sandbox: Sandbox, spool: Spool, accepted: bool) -> None:
    """Everything was sent and no reply came: whether the portal has it or not, there is one order in the end."""
    spool.configure(integrations={"gotranscript": {"timeout_seconds": 120}})
    sandbox.set_faults(Fault(kind=FaultKind.HANG, accept=accepted))
    spool.start()
    spool.drop("p.zip")
    wait_until(lambda: sandbox.orders() if accepted else sandbox.requests()["requests"], "the portal has the request")
    assert stop(spool) < PROMPT
    assert {"p.zip"} == spool.claimed()
    assert set() == spool.names("outbox")
    sandbox.set_faults()
    spool.start()
    spool.wait_for("delivered", "p.zip")
    assert 1 == len(sandbox.orders())
    spool.assert_sound()


@pytest.mark.parametrize("policy", ["retry", "ask"])
def test_many_waiting_for_the_reply(sandbox: Sandbox, spool: Spool, policy: str) -> None:
    """However many wait for a reply when it is stopped: that is no failure of the portal's, nothing is rolled back."""
    spool.configure(integrations={"gotranscript": {"timeout_seconds": 120, "on_unknown_outcome": policy}})
    sandbox.set_faults(Fault(kind=FaultKind.HANG, accept=False))
    spool.start()
    names = {f"n{number}.zip" for number in range(4)}
    for number, name in enumerate(names):
        spool.drop(name, seed=number)
    wait_until(lambda: len(sandbox.requests()["requests"]) >= 4, "the portal has the requests")  # type: ignore[arg-type]
    assert stop(spool) < PROMPT
    assert names == spool.claimed()
    assert {"ATTEMPTED"} == set(spool.events())
    sandbox.set_faults()
    spool.start()
    spool.wait_for("delivered" if policy == "retry" else "rejected", *names)
    assert "ROLLBACK" not in spool.events()
    assert (len(names) if policy == "retry" else 0) == len(sandbox.orders())


def test_between_two_tries(sandbox: Sandbox, spool: Spool) -> None:
    """Stopped while it pauses between tries: back in the outbox at once; nothing was accepted."""
    spool.configure(integrations={"gotranscript": {"retry": {"initial_seconds": 600, "max_seconds": 600}}})
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503))
    spool.start()
    spool.drop("p.zip")
    wait_until(lambda: sandbox.requests()["by_status"], "the first try has failed")  # type: ignore[attr-defined]
    assert stop(spool) < 2
    assert {"p.zip"} == spool.names("outbox")
    assert "DEFERRED" == spool.events("p.zip")[-1]
    sandbox.set_faults()
    spool.start()
    spool.wait_for("delivered", "p.zip")
    assert 1 == len(sandbox.orders())


def test_with_many_under_way(sandbox: Sandbox, spool: Spool) -> None:
    """Stopped amid forty packages: every one of them lies in exactly one place, and becomes exactly one order."""
    sandbox.set_faults(Fault(kind=FaultKind.LATENCY, seconds=0.1))
    names = {f"n{number}.zip" for number in range(40)}
    for number, name in enumerate(names):
        spool.drop(name, seed=number)
    spool.start()
    wait_until(lambda: len(sandbox.orders()) >= 4, "some are accepted")
    assert stop(spool) < PROMPT
    assert set() == spool.claimed(), spool.picture()
    spool.assert_sound()
    sandbox.set_faults()
    spool.start()
    spool.wait_for("delivered", *names)
    assert sorted(names) == sorted(str(order["filename"]) for order in sandbox.orders())


def test_only_one_daemon_works_in_a_spool(spool: Spool) -> None:
    """A second one exits 75 at once and names the first; the first goes on."""
    spool.start()
    assert spool.process is not None
    second = spool.cli("run")
    assert 75 == second.returncode
    assert str(spool.process.pid) in second.stderr
    spool.drop("p.zip")
    spool.wait_for("delivered", "p.zip")
