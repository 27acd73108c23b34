"""The guards at the door: a log that was tampered with, a second daemon, a bad configuration, an unusable spool."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Spool, wait_until, zip_bytes
from tests.support.host import mounted, without_power
from tests.support.portal import digest, keys, ordered
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import VerdictWhen


def log_of(spool: Spool) -> Path:
    return spool.root / "log.csv"


def deliver(spool: Spool, *names: str) -> None:
    for name in names:
        spool.drop(name, seed=sum(name.encode()))
    spool.wait_for("delivered", *names)


def exit_code(spool: Spool) -> int:
    """Wait until the daemon ends by itself."""
    process = spool.process
    assert process is not None
    wait_until(lambda: process.poll() is not None, "the daemon ends by itself")
    spool.process = None
    return int(process.returncode)


def start_in_vain(spool: Spool, **options: object) -> tuple[int, str]:
    """Start a daemon that refuses to: its exit code and its words."""
    before = spool.output.stat().st_size if spool.output.exists() else 0
    spool.start(ready=False, **options)  # type: ignore[arg-type]
    code = exit_code(spool)
    return code, spool.output.read_bytes()[before:].decode()


# --- the log ----------------------------------------------------------------------------------------------------------


def edit_in_place(log: Path) -> None:
    """As an editor that writes in place would: one cell of row 2."""
    lines = log.read_bytes().split(b"\r\n")
    lines[2] = lines[2].replace(b",tfwatch,", b",somebody,")
    log.write_bytes(b"\r\n".join(lines))


def replace(log: Path) -> None:
    """As most editors save: another file under the same name."""
    shutil.copyfile(log, log.with_name("log.csv~"))
    edit_in_place(log.with_name("log.csv~"))
    log.with_name("log.csv~").rename(log)


def remove_a_row(log: Path) -> None:
    lines = log.read_bytes().split(b"\r\n")
    log.write_bytes(b"\r\n".join([*lines[:2], *lines[3:]]))


def truncate(log: Path) -> None:
    """Back to its first row: what was taken off is well-formed and gone."""
    lines = log.read_bytes().split(b"\r\n")
    os.truncate(log, len(b"\r\n".join(lines[:2])) + 2)


def append_a_row(log: Path) -> None:
    with log.open("ab") as file:
        file.write(b"99,by hand\r\n")


def edit_the_last_row(log: Path) -> None:
    """Of the same length, so that only its chain can tell."""
    lines = log.read_bytes().split(b"\r\n")
    lines[-2] = lines[-2].replace(b",tfwatch,", b",nobody1,")
    log.write_bytes(b"\r\n".join(lines))


TAMPERING: dict[str, Callable[[Path], None]] = {
    "replaced": replace,
    "removed": Path.unlink,
    "a row removed": remove_a_row,
    "truncated": truncate,
    "appended": append_a_row,
}


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_while_it_runs_ends_the_run(sandbox: Sandbox, spool: Spool, how: str) -> None:
    """A log replaced, removed, cut or written to by another: exit 1, naming the row; nothing more is logged or sent."""
    spool.start()
    deliver(spool, "a.zip")
    TAMPERING[how](log_of(spool))
    after = log_of(spool).read_bytes() if log_of(spool).exists() else None
    spool.drop("b.zip", seed=1)
    assert 1 == exit_code(spool)
    told = spool.output.read_text()
    assert str(log_of(spool)) in told
    assert "row 4" in told, told[-3000:]
    assert "tfwatch fsck" in told
    assert after == (log_of(spool).read_bytes() if log_of(spool).exists() else None)
    assert 1 == ordered(sandbox).total()
    assert {"b.zip"} == spool.names("outbox") | spool.claimed()


def test_a_log_that_may_not_be_looked_at_is_not_removed(spool: Spool) -> None:
    """The spool's rights were taken away while it ran: exit 1 with what mends that; the log is there and believed."""
    spool.start(wrap=without_power("lease"))
    deliver(spool, "a.zip")
    spool.root.chmod(0)
    try:
        assert 1 == exit_code(spool)
    finally:
        spool.root.chmod(0o755)
    said = spool.output.read_text()
    assert "Permission denied; let the user that tfwatch runs as use it" in said
    assert "removed" not in said
    assert "Traceback" not in said
    spool.start()
    deliver(spool, "b.zip")


@pytest.mark.parametrize(
    "tamper",
    [edit_in_place, edit_the_last_row, replace, Path.unlink, remove_a_row, truncate],
    ids=lambda each: each.__name__,
)
def test_tampering_while_it_is_stopped_is_found_at_start(
    sandbox: Sandbox, spool: Spool, tamper: Callable[[Path], None]
) -> None:
    """A log that is not the one left behind: exit 1 with the row, the file untouched, nothing claimed or sent."""
    spool.start()
    deliver(spool, "a.zip", "b.zip")
    spool.stop()
    tamper(log_of(spool))
    assert_refused(sandbox, spool, "row 6")


@pytest.mark.parametrize("tamper", [edit_in_place, replace, remove_a_row], ids=lambda each: each.__name__)
def test_tampering_is_found_without_the_index(sandbox: Sandbox, spool: Spool, tamper: Callable[[Path], None]) -> None:
    """The chain alone tells the very row, when nothing else remembers what was in the log."""
    spool.start()
    deliver(spool, "a.zip", "b.zip")
    spool.stop()
    tamper(log_of(spool))
    (spool.root / ".tfwatch" / "index.sqlite").unlink()
    assert_refused(sandbox, spool, "row 2")


def assert_refused(sandbox: Sandbox, spool: Spool, row: str) -> None:
    after = log_of(spool).read_bytes() if log_of(spool).exists() else None
    spool.drop("c.zip", seed=1)
    code, told = start_in_vain(spool)
    assert 1 == code
    assert row in told, told
    assert "tfwatch fsck" in told
    assert after == (log_of(spool).read_bytes() if log_of(spool).exists() else None)
    assert 2 == ordered(sandbox).total()
    assert {"c.zip"} == spool.names("outbox")


@pytest.mark.parametrize("tail", [b"8,2025-11-13T10:", b"garbage\r\n", b"\0" * 500, b'8,"open quote\r\n'])
def test_a_torn_tail_is_cut_saved_and_said(sandbox: Sandbox, spool: Spool, tail: bytes) -> None:
    """What a crash left at the end is cut at start, kept in torn-<EXEC_ID> and logged RECOVERED; work goes on."""
    spool.start()
    deliver(spool, "a.zip")
    spool.kill()
    whole = log_of(spool).read_bytes()
    with log_of(spool).open("ab") as file:
        file.write(tail)
    spool.start()
    deliver(spool, "b.zip")
    (torn,) = (spool.root / ".tfwatch").glob("torn-*")
    recovered = spool.row("RECOVERED")
    assert tail == torn.read_bytes()
    assert f"torn-{recovered['exec_id']}" == torn.name
    assert str(len(tail)) in recovered["detail"]
    assert torn.name in recovered["detail"]
    assert log_of(spool).read_bytes().startswith(whole)
    assert 2 == ordered(sandbox).total()
    spool.assert_sound()


def test_the_index_is_only_a_projection(sandbox: Sandbox, spool: Spool) -> None:
    """Deleted, it is rebuilt from the log: orders are followed on, duplicates known, nothing is sent again."""
    sandbox.set_settings(portal={"verdict": VerdictWhen.NEVER})
    spool.start()
    spool.drop("a.zip", seed=1)
    spool.wait_for("submitted", "a.zip")
    spool.stop()
    for path in (spool.root / ".tfwatch").glob("index.sqlite*"):
        path.unlink()
    rows = spool.rows()
    spool.start()
    assert rows == spool.rows()
    (order,) = sandbox.orders()
    sandbox.give_verdict(str(order["id"]), "completed")
    spool.wait_for("delivered", "a.zip")
    spool.drop("twin.zip", seed=1)
    spool.wait_for("rejected", "twin.zip")
    assert "a.zip" in spool.reason("twin.zip")
    assert [digest(zip_bytes(seed=1))] == keys(sandbox)
    spool.assert_sound()


# --- the door ---------------------------------------------------------------------------------------------------------


def test_a_second_daemon_is_turned_away(sandbox: Sandbox, spool: Spool) -> None:
    """One daemon to a spool: the second exits 75 and names the first, which works on; a killed one's lock is gone."""
    spool.start()
    first = spool.process
    assert first is not None
    code, told = start_in_vain(spool)
    spool.process = first
    assert 75 == code
    assert str(first.pid) in told
    assert str(spool.root) in told
    deliver(spool, "a.zip")
    spool.kill()
    spool.start()
    deliver(spool, "b.zip")
    assert 2 == ordered(sandbox).total()


def test_a_bad_configuration_starts_nothing(sandbox: Sandbox, spool: Spool) -> None:
    """Exit 78 with every problem and its line at once; the spool is not touched."""
    shutil.rmtree(spool.root)
    spool.root.mkdir()
    spool.configure(
        spool={"rescan_seconds": -1, "watch": "inotfy", "colour": "blue"},
        integrations={"gotranscript": {"workers": "many", "base_url": "portal.example"}},
    )
    code, told = start_in_vain(spool)
    assert 78 == code
    lines = spool.config.read_text().splitlines()
    for key in ("rescan_seconds", "watch", "colour", "workers", "base_url"):
        number = next(n for n, line in enumerate(lines, start=1) if line.strip().startswith(f"{key}:"))
        assert f"config.yaml:{number}" in told, (key, told)
        assert key in told
    assert sandbox.api_key not in told
    assert [] == os.listdir(spool.root)


@pytest.mark.root
def test_a_spool_on_two_file_systems_is_refused(sandbox: Sandbox, spool: Spool) -> None:
    """A folder mounted by itself: renames can't reach it, so exit 78 naming it and the command that mends it."""
    delivered = spool.root / "delivered"
    spool.drop("a.zip")
    with mounted(delivered, "tmpfs", "size=1m"):
        code, told = start_in_vain(spool)
    assert 78 == code
    assert f"{delivered}: is on another file system or mount" in told
    assert f"umount {delivered}" in told
    assert {"a.zip"} == spool.names("outbox")
    assert [] == sandbox.orders()


def test_a_missing_spool_is_not_made_up(sandbox: Sandbox, spool: Spool) -> None:
    """No spool folder (a disk that isn't mounted, say): exit 78 with the command that makes it; nothing is made."""
    shutil.rmtree(spool.root)
    code, told = start_in_vain(spool)
    assert 78 == code
    assert f"{spool.root}: the spool folder does not exist" in told
    assert f"install -d -o tfwatch -g tfwatch -m 2770 {spool.root}" in told
    assert not spool.root.exists()


@pytest.mark.parametrize("folder", ["", "outbox", "submitted", ".tfwatch", ".tfwatch/claimed"])
def test_a_folder_that_cannot_be_written_is_named(sandbox: Sandbox, spool: Spool, folder: str) -> None:
    """A folder of another's, or read-only: exit 78 with its exact path and the mending command, no traceback."""
    (spool.root / ".tfwatch" / "claimed").mkdir(parents=True)
    spool.drop("a.zip")
    closed = spool.root / folder
    closed.chmod(0o555)
    code, told = start_in_vain(spool, wrap=without_power())
    closed.chmod(0o755)
    assert 78 == code, told
    assert "Traceback" not in told
    assert f"{closed}" in told
    assert "install -d -o tfwatch -g tfwatch -m 2770" in told
    assert {"a.zip"} == spool.names("outbox")
    assert [] == sandbox.orders()


def test_it_stops_cleanly_when_told(sandbox: Sandbox, spool: Spool) -> None:
    """SIGTERM and SIGINT: exit 0, claims put down, nothing left in claimed/."""
    for number in (signal.SIGTERM, signal.SIGINT):
        spool.start()
        deliver(spool, f"{number.name}.zip")
        assert 0 == spool.stop(number)
        assert set() == spool.claimed()
    assert 2 == ordered(sandbox).total()
