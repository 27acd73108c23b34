"""Networks, names, certificates and clocks that go wrong while the daemon runs, and come right again."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.clock import SettableClock
from tests.support.daemon import PATIENCE, Spool, wait_until
from tests.support.host import unmet
from tests.support.portal import ordered
from tests.support.require import need, need_module
from tests.support.tls import Authority, Terminator
from tfwatch.delivery.failure import BETWEEN_ROUNDS
from tfwatch.model import Integration, read_detail
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import VerdictWhen

DAY = 86_400
NAME = "portal.example.test"


@pytest.fixture(autouse=True)
def patient(spool: Spool) -> None:
    """The service is not given up meanwhile; each failure is one row."""
    spool.configure(integrations={"gotranscript": {"rollback_after": 1000, "retry": {"attempts": 1}}})


def go_on(spool: Spool) -> None:
    """A person mended it and says so: what waits for its next round is due at once."""
    spool.ask("enable", integration=Integration.GOTRANSCRIPT)


def words_of(spool: Spool, name: str, event: str = "DEFERRED") -> str:
    """What the log's last row of that event says to people."""
    return read_detail([row for row in spool.rows(name) if row["event"] == event][-1]["detail"])[1]


# --- names ------------------------------------------------------------------------------------------------------------


@contextmanager
def own_names(home: Path, server: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A hosts file and a way to start a process that looks names up in it, then at the name server `server`."""
    need("unshare")
    hosts, resolver = home / "hosts", home / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    resolver.write_text(f"nameserver {server}\noptions timeout:1 attempts:1\n")
    mounts = f"mount --bind {hosts} /etc/hosts && mount --bind {resolver} /etc/resolv.conf"
    wrap = ("unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh")
    if subprocess.run([*wrap, "true"], capture_output=True).returncode != 0:
        unmet("needs root to have a hosts file of its own")
    yield hosts, wrap


def test_a_name_that_does_not_resolve_is_waited_for(sandbox: Sandbox, spool: Spool, tmp_path: Path) -> None:
    """While no resolver knows the portal the package waits, and the log says why; once one does, it is delivered."""
    spool.configure(integrations={"gotranscript": {"base_url": f"http://{NAME}:{urlsplit(sandbox.url).port}"}})
    with own_names(tmp_path, "127.0.0.1") as (hosts, wrap):
        spool.start(wrap=wrap)
        spool.drop("p.zip")
        spool.wait_for_event("DEFERRED", "p.zip")
        spool.wait_for("outbox", "p.zip")
        assert "can't be reached" in words_of(spool, "p.zip")
        with hosts.open("a") as file:
            file.write(f"127.0.0.1 {NAME}\n")
        go_on(spool)
        spool.wait_for("delivered", "p.zip")
    assert 1 == len(sandbox.orders())
    spool.assert_sound()


def test_a_name_server_that_never_answers_holds_up_no_stop(sandbox: Sandbox, spool: Spool, tmp_path: Path) -> None:
    """A lookup of a name can't be cut; the daemon ends in time all the same, and delivers once after its next start."""
    spool.configure(integrations={"gotranscript": {"base_url": f"http://{NAME}:{urlsplit(sandbox.url).port}"}})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        try:
            silent.bind(("127.53.0.1", 53))
        except PermissionError:
            unmet("needs root to be a name server")
        with own_names(tmp_path, "127.53.0.1") as (hosts, wrap):
            (tmp_path / "resolv.conf").write_text("nameserver 127.53.0.1\noptions timeout:30 attempts:2\n")
            spool.start(wrap=wrap)
            spool.drop("p.zip")
            silent.settimeout(30)
            assert silent.recv(512)
            assert 0 == spool.stop(seconds=25)  # the name server would be waited for far longer
            assert 0 == len(sandbox.orders())
            hosts.write_text(f"127.0.0.1 localhost {NAME}\n")
            spool.start(wrap=wrap)
            go_on(spool)
            spool.wait_for("delivered", "p.zip")
    assert 1 == len(sandbox.orders())
    spool.assert_sound()


# --- certificates -----------------------------------------------------------------------------------------------------


def test_no_package_goes_to_a_portal_that_can_not_prove_its_name(
    sandbox: Sandbox, spool: Spool, tmp_path: Path
) -> None:
    """Self-signed, expired, another's certificate, a handshake cut short: nothing is sent, and the log says why."""
    authority = Authority(tmp_path)
    wrong = {
        "self-signed": authority.context(signed=False),
        "expired": authority.context(expired=True),
        "mismatch": authority.context(host="another.example"),
        "": None,
    }
    with Terminator(sandbox.url, wrong["self-signed"]) as way:
        spool.configure(integrations={"gotranscript": {"base_url": way.url}})
        spool.start(env={"SSL_CERT_FILE": authority.bundle})
        for seed, (word, context) in enumerate(wrong.items()):
            way.context = context
            spool.drop(f"p{seed}.zip", seed=seed)
            spool.wait_for_event("DEFERRED", f"p{seed}.zip")
            assert word in words_of(spool, f"p{seed}.zip")
            assert "can't be reached" in words_of(spool, f"p{seed}.zip")
        assert {} == sandbox.requests()["by_method"]
        way.context = authority.context()
        go_on(spool)
        spool.wait_for("delivered", *(f"p{seed}.zip" for seed in range(len(wrong))))
    assert [1] * len(wrong) == list(ordered(sandbox).values())
    assert "UNKNOWN" not in spool.events()
    spool.assert_sound()


# --- clocks -----------------------------------------------------------------------------------------------------------


def moments(spool: Spool) -> list[datetime]:
    return [datetime.fromisoformat(row["at"]) for row in spool.rows()]


def assert_not_busy(spool: Spool) -> None:
    """The daemon has nothing to do and does nothing: far less than a third of a core."""
    assert spool.process is not None
    process = psutil.Process(spool.process.pid)
    process.cpu_percent()
    wait_until(lambda: process.cpu_percent(interval=2.0) < 30.0, "the daemon comes to rest", 20)


def test_a_clock_that_jumps_holds_nothing_up(sandbox: Sandbox, spool: Spool, tmp_path: Path) -> None:
    """Set by a day and back while packages wait and orders are open: nothing sleeps a day, spins or goes back."""
    clock = SettableClock(tmp_path)
    sandbox.set_settings(portal={"verdict": VerdictWhen.NEVER})
    spool.start(env=clock.env)
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503, times=1))
    spool.drop("waits.zip", seed=1)
    spool.wait_for_event("DEFERRED", "waits.zip")
    names = ["waits.zip"]
    for seed, jump in enumerate((-DAY, DAY, 0), start=2):
        before, after = f"before{seed}.zip", f"after{seed}.zip"
        spool.drop(before, seed=seed)
        spool.wait_for("submitted", before)
        clock.set(jump)
        spool.drop(after, seed=10 + seed)
        names += [before, after]
        spool.wait_for("submitted", after)
        if jump == DAY:
            assert moments(spool)[-1] - datetime.now(UTC) > timedelta(hours=23), "the clock was set"
        spool.wait_for_event("ACCEPTED", "waits.zip", seconds=60)
        for order in sandbox.orders():
            sandbox.give_verdict(str(order["id"]), "completed")
        spool.wait_for("delivered", *names, seconds=30)
        assert_not_busy(spool)
    assert [] == [pair for pair in pairwise(moments(spool)) if pair[0] > pair[1]]
    assert 7 == len(sandbox.orders())
    spool.assert_sound()


def test_a_clock_set_back_before_a_start_makes_no_round_wait_longer(
    sandbox: Sandbox, spool: Spool, tmp_path: Path
) -> None:
    """The log holds a next round of tomorrow, by today's clock: it is kept as late as it was meant to be, no later."""
    clock = SettableClock(tmp_path)
    clock.set(DAY)
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503, times=1))
    spool.start(env=clock.env)
    spool.drop("waits.zip")
    spool.wait_for_event("DEFERRED", "waits.zip")
    spool.stop()
    spool.start()
    spool.wait_for("delivered", "waits.zip", seconds=45)
    first, second = [entry["monotonic"] for entry in sandbox.requests()["requests"] if entry["method"] == "POST"]  # type: ignore[attr-defined]
    assert BETWEEN_ROUNDS.initial / 2 - 0.5 <= second - first
    assert 1 == len(sandbox.orders())
    spool.assert_sound()


def test_a_clock_that_jumps_does_not_stop_the_watchdogs_beat(spool: Spool, tmp_path: Path) -> None:
    """systemd hears from the daemon at least as often as it wants to, whichever way the clock is set meanwhile."""
    need_module("systemd.daemon")
    clock, pause = SettableClock(tmp_path), 4.5
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        spool.start(
            env={**clock.env, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(round(pause * 1e6))}
        )

        def beat() -> float:
            """Wait for the next one."""
            while b"WATCHDOG=1" not in systemd.recv(65536):
                pass
            return time.monotonic()

        beats = [beat()]
        for jump in (DAY, 0, -DAY, 0):
            clock.set(jump)
            beats += [beat() for _ in range(2)]
        gaps = [later - sooner for sooner, later in pairwise(beats)]
        assert max(gaps) < pause, gaps
        assert sum(gaps) > 0.5 * len(gaps), "it beats, it doesn't rattle"


# --- a login that ends ------------------------------------------------------------------------------------------------


def test_a_login_that_is_revoked_and_refused_costs_the_sheet_no_row(sandbox: Sandbox, spool: Spool) -> None:
    """Tokens revoked, soon over, the login down or talking nonsense: deliveries go on, and the sheet loses no row."""
    spool.configure(
        integrations={
            "sheets": {
                "enabled": True, "spreadsheet_id": sandbox.spreadsheet_id, "api_base_url": sandbox.url,
                "service_account_json": json.dumps(sandbox.service_account()), "batch_seconds": 0.2,
            }
        }
    )  # fmt: skip
    troubles = [
        (),
        (Fault(kind=FaultKind.STATUS, status=503, target=Target.TOKEN, times=2),),
        (Fault(kind=FaultKind.GARBAGE, target=Target.TOKEN, times=1),),
        (Fault(kind=FaultKind.RESET, target=Target.TOKEN, times=1),),
        (Fault(kind=FaultKind.STATUS, status=401, target=Target.SHEETS, times=2),),
    ]
    spool.start()
    for seed, faults in enumerate(troubles):
        sandbox.set_faults(*faults)
        sandbox.revoke_tokens()
        spool.drop(f"p{seed}.zip", seed=seed)
        spool.wait_for("delivered", f"p{seed}.zip")
    sandbox.set_settings(sheets={"token_expires_in": 1})

    def shown() -> list[list[str]]:
        (sheet,) = [one for one in sandbox.sheets()["worksheets"] if one["properties"]["title"] == "log"]  # type: ignore[attr-defined]
        return [[str(cell) for cell in row] for row in sheet["values"] if any(row)]

    def logged() -> list[list[str]]:
        with (spool.root / "log.csv").open(newline="") as file:
            return list(csv.reader(file))

    wait_until(lambda: shown() == logged(), "the sheet shows the log", 60)
    assert len(troubles) == len(sandbox.orders())
