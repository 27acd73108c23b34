"""What systemd is told: ready when it is true, a line that is fresh, a beat that means work, and why when it stops."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.integration.test_backup import configure as configure_s3
from tests.support.daemon import STAGES, Spool, wait_until, zip_bytes
from tests.support.forwarder import Forwarder
from tests.support.s3_servers import moto
from tests.support.systemd import NotifySocket, notify_socket
from tests.unit.house import house
from tfwatch.model import Event, Fact, write_detail
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

IMPATIENT = """
import sys
from tfwatch.delivery import submit
submit.call_timeout = lambda seconds: {timeout}
from tfwatch.cli import main
sys.argv[0] = "tfwatch"
main()
"""
"""The daemon, but for a lane that is taken to stand still after twice that time instead of after a minute."""

ZONE = ZoneInfo("America/Sao_Paulo")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[NotifySocket]:
    with notify_socket(tmp_path) as listening:
        yield listening


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is entered here is left after the test."""
    with ExitStack() as made:
        yield made


def start(spool: Spool, systemd: NotifySocket, *, watchdog_seconds: float | None = None, **words: str) -> None:
    """The daemon, as systemd starts it; returns when it says that it is ready."""
    spool.start(env=systemd.env(watchdog_seconds=watchdog_seconds) | words, ready=False)
    systemd.wait_for("READY")


def start_impatient(spool: Spool, systemd: NotifySocket, *, timeout: float) -> None:
    """The same with a lane's timeout of so many seconds, and a watchdog that waits for it."""
    program = ("-c", IMPATIENT.format(timeout=timeout))
    spool.start(env=systemd.env(watchdog_seconds=1.5), program=program, ready=False)
    systemd.wait_for("READY")


# --- ready ------------------------------------------------------------------------------------------------------------


def test_ready_means_that_it_works(spool: Spool, systemd: NotifySocket) -> None:
    """By READY=1 the folders, the lock and the ledger are there, and the first scan has found what waits."""
    spool.configure(integrations={"gotranscript": {"api_key": None}})
    for stage in STAGES:
        (spool.root / stage).rmdir()
    (spool.root / "outbox").mkdir()
    spool.drop("early.zip")
    start(spool, systemd)
    assert set(STAGES) <= set(os.listdir(spool.root))
    assert (spool.root / "log.csv").stat().st_size
    assert (spool.root / ".tfwatch" / "index.sqlite").exists()
    with (spool.root / ".tfwatch" / "lock").open("rb") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    systemd.wait_for_status(lambda line: "1 waiting" in line, "the first line tells of it")
    assert "1 waiting" in next(line for line in systemd.values("STATUS") if line.startswith("watching"))
    names = [name for message in systemd.messages for name in message.fields]
    assert 1 == names.count("READY")
    assert f"watching {spool.root}/outbox" in systemd.status


@pytest.mark.parametrize(("broken", "code"), [("config", 78), ("log", 1), ("lock", 75)])
def test_never_ready_when_it_can_not_work(
    spool: Spool, systemd: NotifySocket, stack: ExitStack, broken: str, code: int
) -> None:
    """A wrong configuration, a damaged log, a spool that another daemon holds: no READY=1, the exit code, and why."""
    if broken == "config":
        spool.configure(web={"port": "no"})
    elif broken == "log":
        (spool.root / "log.csv").write_text("seq,at\r\nnot a log\r\n")
    else:
        (spool.root / ".tfwatch").mkdir()
        lock = stack.enter_context((spool.root / ".tfwatch" / "lock").open("ab"))
        fcntl.flock(lock, fcntl.LOCK_EX)
    spool.start(env=systemd.env(), ready=False)
    assert spool.process is not None
    assert code == spool.process.wait(60), spool.picture()
    assert [] == systemd.values("READY")
    words = {"config": "web.port: ", "log": "log.csv", "lock": "another tfwatch"}[broken]
    systemd.wait_for_status(lambda line: words in line, f"the status line says {words}")


def test_a_long_start_asks_for_more_time(spool: Spool, systemd: NotifySocket) -> None:
    """While a long log is verified systemd is asked to wait, and told why."""
    detail = write_detail("again", integration="s3", by="command")
    with house(spool.root) as home:
        home.record(*[Fact(event=Event.ENABLED, detail=detail)] * 6000)
    (spool.root / ".tfwatch" / "index.sqlite").unlink()
    start(spool, systemd)
    before = [message.fields for message in systemd.messages if message.at < systemd.wait_for("READY").at]
    asked = next(fields for fields in before if "EXTEND_TIMEOUT_USEC" in fields and "STATUS" in fields)
    assert 10_000_000 <= int(asked["EXTEND_TIMEOUT_USEC"])
    assert asked["STATUS"].startswith("starting: log.csv is read into the index")


def test_a_file_that_is_hashed_at_the_start_is_told(spool: Spool, systemd: NotifySocket) -> None:
    """A crash leaves a large file in claimed/: it is told by its content, and reading that may take a while."""
    claimed = spool.root / ".tfwatch" / "claimed"
    claimed.mkdir(parents=True)
    (claimed / "large.zip").write_bytes(zip_bytes(size=3 * 2**20))
    start(spool, systemd)
    assert any(line.startswith("starting: large.zip is read, ") for line in systemd.values("STATUS"))
    spool.wait_for("delivered", "large.zip")


# --- the line ---------------------------------------------------------------------------------------------------------


def test_the_line_tells_it_all_plainly(sandbox: Sandbox, spool: Spool, systemd: NotifySocket) -> None:
    """Where it watches, what is under way, what was done today, and which service is tried again since when, there."""
    with Forwarder(moto("http").url) as way:
        configure_s3(spool, way.url, "never-reached")
        way.shut()
        spool.configure(timezone=ZONE.key)
        sandbox.set_settings(portal={"verdict_delay": 600})
        start(spool, systemd)
        sandbox.set_settings(portal={"verdict_delay": 0})
        began = datetime.now(UTC)
        spool.drop("done.zip", seed=1)
        spool.wait_for("delivered", "done.zip")
        spool.wait_for_event("BACKUP_FAILED")
        ended = datetime.now(UTC)
        sandbox.set_settings(portal={"verdict_delay": 600})
        spool.drop("open.zip", seed=2)
        spool.wait_for("submitted", "open.zip")
        times = {f"{moment.astimezone(ZONE):%H:%M}" for moment in (began, ended)}
        lines = {
            f"watching {spool.root}/outbox · 1 submitted · {delivered} delivered today · S3 retrying since {time_}"
            for time_ in times
            for delivered in (0, 1)  # midnight may fall into the test
        }
        systemd.wait_for_status(lambda line: line in lines, f"one of {lines}")
        assert "in trouble" not in systemd.status


def test_a_storage_that_refuses_us_is_named_with_what_to_do(spool: Spool, systemd: NotifySocket) -> None:
    """S3 and the sheet are never switched off by themselves: they are tried again, and the line says what a person
    must do. Deliveries go on, nothing is documented as a rollback."""
    configure_s3(spool, moto("http").url, "no-such-bucket-anywhere")
    start(spool, systemd)
    spool.drop("a.zip")
    spool.wait_for_event("BACKUP_FAILED")
    line = systemd.wait_for_status(lambda line: "S3 in trouble since" in line, "the line says so")
    assert re.search(r"S3 in trouble since \d\d:\d\d: .*NoSuchBucket.*create the bucket", line), line
    spool.drop("b.zip", seed=2)
    spool.wait_for("delivered", "a.zip", "b.zip")
    assert set() == {"DISABLED", "ROLLBACK"} & set(spool.events())
    assert "" == spool.document()
    assert spool.state()["integrations"]["s3"]["enabled"]


def test_no_api_key_is_said_exactly(spool: Spool, systemd: NotifySocket) -> None:
    """An empty key is no key: the line names all three ways to give one, and nothing is sent."""
    spool.configure(integrations={"gotranscript": {"api_key": None}})
    start(spool, systemd, GOTRANSCRIPT_API_KEY="")
    spool.drop("a.zip")
    line = systemd.wait_for_status(lambda line: "1 waiting" in line, "the package waits")
    said = (
        "GoTranscript held: no API key: set integrations.gotranscript.api_key_file, the variable "
        "GOTRANSCRIPT_API_KEY or the systemd credential gotranscript_api_key"
    )
    assert line.endswith(said)
    assert [] == spool.rows()


def test_failing_deliveries_show_at_once(sandbox: Sandbox, spool: Spool, systemd: NotifySocket) -> None:
    """From the first failure on the line says since when; once one gets through it says nothing more."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503))
    start(spool, systemd)
    spool.drop("a.zip")
    systemd.wait_for_status(lambda line: re.search(r"GoTranscript retrying since \d\d:\d\d", line), "it says so")
    sandbox.set_faults()
    spool.drop("b.zip", seed=2)
    spool.wait_for("delivered", "b.zip")
    systemd.wait_for_status(lambda line: "GoTranscript" not in line, "all is well")


def test_strangers_words_never_pass_for_ours(sandbox: Sandbox, spool: Spool, systemd: NotifySocket) -> None:
    """What a service says is part of the line, however long it is and whatever line ends it has."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=401, message="no\nSTOPPING=1\r\nMAINPID=1 " + "é" * 3000))
    start(spool, systemd)
    spool.drop("a.zip")
    systemd.wait_for_status(lambda line: "GoTranscript paused: no STOPPING=1 MAINPID=1" in line, "it says why")
    assert [] == systemd.values("STOPPING") + systemd.values("MAINPID")


# --- the watchdog -----------------------------------------------------------------------------------------------------


def test_it_beats_while_idle(spool: Spool, systemd: NotifySocket) -> None:
    """With nothing to do systemd goes on hearing from it: one beat for each pass of the loop."""
    spool.configure(spool={"rescan_seconds": 600})
    start(spool, systemd, watchdog_seconds=3)
    systemd.wait_for("WATCHDOG", count=3)
    assert 1 == len([line for line in systemd.values("STATUS") if line.startswith("watching")]), "nothing changes"


def test_a_lane_that_stands_still_ends_the_beat(sandbox: Sandbox, spool: Spool, systemd: NotifySocket) -> None:
    """Not a byte for twice its timeout: no beat, and line and journal say why. It moves again: the beat is back."""
    sandbox.set_faults(Fault(kind=FaultKind.LATENCY, seconds=6, times=1))
    start_impatient(spool, systemd, timeout=1)
    spool.drop("stuck.zip")
    systemd.wait_for_status(lambda line: "stuck.zip: not a byte has moved for" in line, "it says so")
    spool.wait_for("delivered", "stuck.zip")
    systemd.wait_for_status(lambda line: "1 delivered today" in line and "moved" not in line, "it goes on")
    for sooner, later in pairwise([message for message in systemd.messages if "STATUS" in message.fields]):
        if all("not a byte has moved" in message.fields["STATUS"] for message in (sooner, later)):
            beats = [m for m in systemd.messages if "WATCHDOG" in m.fields and sooner.at < m.at < later.at]
            assert [] == beats, "no beat while it stands still"
    systemd.wait_for("WATCHDOG", count=len(systemd.values("WATCHDOG")) + 1)
    for words in ("the watchdog is not told any more, so systemd starts tfwatch anew", "no lane stands still any more"):
        wait_until(lambda words=words: words in spool.output.read_text(), f"the journal says: {words}")


@pytest.mark.parametrize("after", [8, 3600], ids=["a pause between two tries", "everybody waits"])
def test_a_wait_on_purpose_is_no_standstill(sandbox: Sandbox, spool: Spool, systemd: NotifySocket, after: int) -> None:
    """A service that asks for patience, within an attempt and for long; a package that is years old: it beats on."""
    spool.configure(integrations={"gotranscript": {"retry": {"attempts": 2, "max_seconds": 10}}})
    os.utime(spool.drop("old.zip"), (1, 1))
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503, retry_after=after, times=1))
    start_impatient(spool, systemd, timeout=3)
    if after == 8:
        spool.wait_for("delivered", "old.zip", seconds=60)
    else:
        systemd.wait_for_status(lambda line: "GoTranscript waiting" in line, "everybody waits")
        systemd.wait_for("WATCHDOG", count=len(systemd.values("WATCHDOG")) + 14)
    assert "not a byte has moved" not in spool.output.read_text()
    assert not [line for line in systemd.values("STATUS") if "moved" in line]


# --- reload and stop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_sound", [True, False])
def test_a_reload_is_announced_and_ends(spool: Spool, systemd: NotifySocket, is_sound: bool) -> None:
    """RELOADING=1 with the moment it began, then READY=1: when the file was taken over, and when it was not."""
    start(spool, systemd)
    before = time.monotonic_ns() // 1000
    if not is_sound:
        spool.config.write_text("no: such key\n")
    assert spool.process is not None
    spool.process.send_signal(signal.SIGHUP)
    reloading = systemd.wait_for("RELOADING")
    assert before <= int(reloading.fields["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert reloading.at <= systemd.wait_for("READY", count=2).at
    if not is_sound:
        systemd.wait_for_status(lambda line: "config.yaml was not taken over" in line, "the line says so")


def test_a_stop_is_announced_with_the_time_it_may_take(sandbox: Sandbox, spool: Spool, systemd: NotifySocket) -> None:
    """STOPPING=1 at once, in the middle of an upload too, and systemd waits for as long as a stop may take."""
    sandbox.set_faults(Fault(kind=FaultKind.HANG))
    start(spool, systemd)
    spool.drop("a.zip")
    spool.wait_for_event("ATTEMPTED")
    assert 0 == spool.stop(seconds=60)
    stopping = systemd.wait_for("STOPPING")
    assert 8_000_000 <= int(stopping.fields["EXTEND_TIMEOUT_USEC"])
    assert "stopping: what is under way is put down" == stopping.fields["STATUS"]
