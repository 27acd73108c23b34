"""`tfwatch doctor` on this machine, each check made to fail for real: folders, disks, leases, events, the log."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.daemon import PATIENCE, Spool
from tests.support.daemon import spool as make_spool
from tests.support.examined import case_of, only, results, theirs
from tests.support.host import fill, mounted, unmet
from tests.support.kernel import sysctl
from tfwatch.doctor import (
    folder_check,
    log_check,
    notice_check,
    room_check,
)
from tfwatch.doctor.case import Case
from tfwatch.ledger.index import Index
from tfwatch.ledger.log import Position
from tfwatch.ledger.rows import GENESIS, HEADER, encode
from tfwatch.model import DeliveryRecord, Event, Fact, Stage, Status
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings
from tfwatch.spool import folders as folders_module
from tfwatch.spool import trials
from tfwatch.spool.renames import rename_noreplace

NOBODY_ELSE = 61_234
"""A user that nothing else on this machine runs as."""


@pytest.fixture
def case(spool: Spool) -> Case:
    """A spool whose daemon was never started, with all its folders."""
    found = case_of(spool)
    found.folders.prepare()
    return found


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spool]:
    """A spool whose stopped daemon delivered a package. Whoever changes its log puts it back."""
    quick = SandboxSettings(portal=PortalSettings(verdict_delay=0.05))
    with Sandbox(quick) as sandbox, make_spool(tmp_path_factory.mktemp("log"), sandbox.url, sandbox.api_key) as made:
        made.start()
        made.drop("job_v1.zip")
        made.wait_for("delivered", "job_v1.zip")
        made.stop()
        yield made


@contextlib.contextmanager
def put_back(path: Path) -> Iterator[bytes]:
    """Its content, which it has again at the end."""
    before = path.read_bytes()
    try:
        yield before
    finally:
        path.write_bytes(before)


# --- the folders ----------------------------------------------------------------------------------------------------


def test_a_healthy_spool_passes(case: Case) -> None:
    """Folders, renames, leases, events and room, tried for real; nothing of it stays."""
    before = sorted(path for path in Path(case.folders.root).rglob("*"))
    checks = (
        folder_check.folders, folder_check.rename, folder_check.file_system, notice_check.lease,
        notice_check.others_files, notice_check.events, room_check.space, room_check.retention, log_check.log,
    )  # fmt: skip
    for check in checks:
        only(check(case), "ok")

    assert before == sorted(path for path in Path(case.folders.root).rglob("*"))


def test_before_the_first_start_missing_folders_are_no_fault(spool: Spool) -> None:
    """The daemon makes them; what needs them says so."""
    case = case_of(spool)

    assert "the daemon makes them" in only(folder_check.folders(case), "ok").seen
    assert "through the folders" in only(folder_check.rename(case), "ok").seen
    for folder in Path(case.folders.root).iterdir():
        folder.rmdir()
    only(folder_check.rename(case), "skipped")


def test_a_file_in_a_folders_place_is_named(case: Case) -> None:
    """Something else of that name is in the way."""
    rejected = Path(case.folders.root) / "rejected"
    rejected.rmdir()
    rejected.write_text("?")

    assert f"{rejected}: is not a folder" == only(folder_check.folders(case), "failure").seen


@pytest.mark.root
def test_a_mount_among_the_folders_is_found(case: Case) -> None:
    """A file can't be renamed out of a disk of its own: which one is said, and how to mend it."""
    delivered = Path(case.folders.root) / "delivered"
    with mounted(delivered, "tmpfs"):
        found = only(folder_check.rename(case), "failure")

    assert str(delivered) in found.seen
    assert f"umount {delivered}" in found.what_to_do
    assert [] == list(Path(case.folders.root).rglob(".probe-*"))


@pytest.mark.root
def test_a_read_only_disk_is_told(tmp_path: Path, sandbox: Sandbox) -> None:
    """The kernel makes a disk read-only after an error: that is said, not that rights are missing."""
    home = tmp_path / "disk"
    home.mkdir()
    with mounted(home, "tmpfs"), make_spool(home, sandbox.url, sandbox.api_key) as made:
        case = case_of(made)
        case.folders.prepare()
        subprocess.run(["mount", "-o", "remount,ro", str(home)], check=True)
        found = list(folder_check.folders(case))
        subprocess.run(["mount", "-o", "remount,rw", str(home)], check=True)

    assert {("folders", "failure")} == set(results(found))
    assert "read-only" in found[0].seen


@pytest.mark.root
def test_a_full_disk_fails_and_a_small_one_warns(tmp_path: Path, sandbox: Sandbox) -> None:
    """Less than min_free_bytes is a warning, no room at all is a failure: deliveries wait then."""
    home = tmp_path / "disk"
    home.mkdir()
    with mounted(home, "tmpfs", "size=8m"), make_spool(home, sandbox.url, sandbox.api_key) as made:
        case = case_of(made)
        case.folders.prepare()
        assert "min_free_bytes" in only(room_check.space(case), "warning").seen
        fill(made.root)
        assert "the disk is full" in only(room_check.space(case), "failure").seen


def test_a_disk_that_fills_before_anything_is_removed_is_told(case: Case) -> None:
    """What came within the last week, a day of it more than is free, and nothing is set to be removed."""
    fact = Fact(
        event=Event.COMPLETED, package="p.zip", sha256="0" * 64, bytes=10 * case.folders.free_bytes(),
        from_stage=Stage.SUBMITTED, to_stage=Stage.DELIVERED, status=Status.DELIVERED,
    )  # fmt: skip
    with closing(Index(case.folders.index)) as index:
        record = DeliveryRecord.of(fact, seq=1, at=datetime.now(UTC), exec_id="x", chain="")
        index.apply([record], Position.start())

    seen = only(room_check.retention(case), "warning").seen

    assert seen.startswith("the disk is full within 1 day: ")
    assert "nothing is set to be removed" in seen


@pytest.mark.root
def test_few_inodes_are_told(tmp_path: Path, sandbox: Sandbox) -> None:
    """A disk can run out of files while it has bytes."""
    home = tmp_path / "disk"
    home.mkdir()
    with mounted(home, "tmpfs", "size=8m,nr_inodes=200"), make_spool(home, sandbox.url, sandbox.api_key) as made:
        made.configure(spool={"min_free_bytes": 0})
        assert "more files" in only(room_check.space(case_of(made)), "warning").seen


def test_interrupted_between_two_renames_nothing_stays(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may come right after the kernel has renamed the probe: it is removed wherever it lies."""
    for renames in range(1, 6):
        left = iter([None] * (renames - 1))

        def interrupted(here: str, there: str, left: Iterator[None] = left) -> bool:
            moved = rename_noreplace(here, there)
            if next(left, "now"):
                raise KeyboardInterrupt
            return moved

        monkeypatch.setattr(folders_module, "rename_noreplace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(folder_check.rename(case))
        assert [] == list(Path(case.folders.root).rglob(".probe-*"))


def test_interrupted_while_a_lease_is_tried_nothing_stays(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the hidden file whose lease is asked for."""

    def interrupted(fd: int, **settings: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "probe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(notice_check.lease(case))
    assert [] == list(Path(case.folders.root).rglob(".probe-*"))


# --- noticing files -------------------------------------------------------------------------------------------------


def test_leases_and_events_are_tried_as_the_daemon_uses_them(case: Case) -> None:
    """A granted lease and a heard canary; the canary's file is not the daemon's own."""
    assert "granted afterwards" in only(notice_check.lease(case), "ok").seen
    assert "ms" in only(notice_check.events(case), "ok").seen


def test_what_comes_after_the_canary_is_not_told(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is heard: the events of its removal are nobody's concern, and stderr stays empty."""
    for _ in range(20):
        only(notice_check.events(case), "ok")
    assert [] == [record.getMessage() for record in caplog.records]


def test_polling_by_choice_needs_no_events(spool: Spool) -> None:
    """With `spool.watch: polling` nothing of inotify is asked for."""
    spool.configure(spool={"watch": "polling"})
    case = case_of(spool)

    only(notice_check.events(case), "skipped")
    only(notice_check.inotify(case, notice_check.Used(instances=0, watches=0)), "skipped")


def test_inotify_used_up_is_told_with_the_command(case: Case) -> None:
    """Another program of this user holds all there is."""
    used = notice_check.Used(instances=sysctl("fs.inotify.max_user_instances"), watches=0)
    found = [each for each in notice_check.inotify(case, used) if each.result == "failure"]

    assert ["inotify"] == [each.check for each in found]
    assert "sysctl fs.inotify.max_user_instances=" in found[0].what_to_do


def test_what_this_process_watches_is_counted(case: Case) -> None:
    """A descriptor and a watch of our own are among those in use."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init()
    try:
        assert libc.inotify_add_watch(fd, os.fsencode(case.folders.root), 2) > 0
        used = notice_check.used_by(os.geteuid())
    finally:
        os.close(fd)
    # other processes of this user may hold more
    assert used.instances >= 1
    assert used.watches >= 1


@pytest.mark.root
def test_no_watch_to_be_had_is_a_failure(sandbox: Sandbox) -> None:
    """The kernel refuses this user one more: the daemon would poll, and the limit is named."""
    if os.geteuid() != 0:
        unmet("needs root to be a user who has used up inotify")
    with theirs(sandbox.url, sandbox.api_key) as place:
        case = case_of(place)
        trials.event_seconds(case.folders, patience=PATIENCE)  # all modules are read: that user may not be able to
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            _say_as_a_user_without_inotify(case, tell)
        os.close(tell)
        with os.fdopen(told) as said:
            result, what_to_do = json.loads(said.read())
        os.waitpid(child, 0)

    assert "failure" == result
    assert "max_user_instances" in what_to_do


def _say_as_a_user_without_inotify(case: Case, tell: int) -> NoReturn:
    """In a child process: the limits count for one user alone, so no other test is met."""
    try:
        os.chown(case.folders.folder(Stage.OUTBOX), NOBODY_ELSE, NOBODY_ELSE)
        os.setgroups([])
        os.setgid(NOBODY_ELSE)
        os.setuid(NOBODY_ELSE)
        libc = ctypes.CDLL(None, use_errno=True)
        while libc.inotify_init() >= 0:
            pass
        (found,) = notice_check.events(case)
        os.write(tell, json.dumps([found.result, found.what_to_do]).encode())
    finally:
        os._exit(0)


def test_others_may_drop_only_with_cap_lease(case: Case) -> None:
    """An outbox that a group may write needs the capability, and it is said who would give it."""
    outbox = Path(case.folders.root) / "outbox"
    outbox.chmod(0o2770)
    (found,) = notice_check.others_files(case)

    assert ("ok" if os.geteuid() == 0 else "warning") == found.result
    assert "CAP_LEASE" in found.seen


# --- the log --------------------------------------------------------------------------------------------------------


def test_a_sound_log_and_its_index_pass(delivered: Spool) -> None:
    """The chain's end holds and the index is at its last row."""
    case = case_of(delivered)

    assert "the chain of the last" in only(log_check.log(case), "ok").seen
    only(log_check.index(case), "ok")
    only(log_check.switches(case), "ok")


def test_an_edited_last_row_is_found(delivered: Spool) -> None:
    """Whoever edits the end of the log is found out without reading all of it."""
    with put_back(delivered.root / "log.csv") as content:
        (delivered.root / "log.csv").write_bytes(content.replace(b"COMPLETED", b"COMPLETEd"))
        case = case_of(delivered)
        assert "fsck" in only(log_check.log(case), "failure").what_to_do


def test_a_torn_end_is_a_warning(delivered: Spool) -> None:
    """A crash leaves such an end, and the next start mends it."""
    with put_back(delivered.root / "log.csv") as content:
        (delivered.root / "log.csv").write_bytes(content + b"9,2026-")
        assert "7 bytes" in only(log_check.log(case_of(delivered)), "warning").seen


def test_another_log_than_the_index_knows_is_found(delivered: Spool) -> None:
    """A log that lost rows is no log to append to."""
    with put_back(delivered.root / "log.csv") as content:
        (delivered.root / "log.csv").write_bytes(content[: content.rindex(b"\r\n", 0, -2) + 2])
        case = case_of(delivered)
        only(log_check.log(case), "ok")
        only(log_check.index(case), "failure")


def test_a_log_that_is_gone_is_found(delivered: Spool) -> None:
    """The index knows rows of it."""
    log = delivered.root / "log.csv"
    away = log.rename(log.with_name("away"))
    try:
        only(log_check.log(case_of(delivered)), "failure")
        only(log_check.index(case_of(delivered)), "failure")
    finally:
        away.rename(log)


def test_a_long_log_is_read_from_near_its_end(case: Case) -> None:
    """The look stays cheap: an old row is for fsck to find, one of the last is found here."""
    log = Path(case.folders.log)
    lines, chain = [HEADER], GENESIS
    for seq in range(1, 3001):
        fact = Fact(event=Event.ENABLED, detail=f"row {seq}")
        record, line = encode(fact, seq=seq, at=datetime.now(UTC), exec_id="x", previous_chain=chain)
        chain = record.chain
        lines.append(line)
    log.write_bytes(b"".join(lines))
    assert log.stat().st_size > 300_000
    found = only(log_check.log(case), "ok")
    assert found.seen.startswith("3,000 rows; the chain of the last ")
    assert "last 3,000" not in found.seen

    edited = [*lines[:10], lines[10].replace(b"row ", b"raw "), *lines[11:]]
    log.write_bytes(b"".join(edited))
    only(log_check.log(case), "ok")
    log.write_bytes(b"".join([*lines[:2990], lines[2990].replace(b"row ", b"raw "), *lines[2991:]]))
    only(log_check.log(case), "failure")


def test_an_index_that_is_no_database_is_found(delivered: Spool) -> None:
    """It is made anew from the log: how is said."""
    with put_back(delivered.root / ".tfwatch" / "index.sqlite"):
        (delivered.root / ".tfwatch" / "index.sqlite").write_bytes(b"no database" * 1000)
        assert "made anew from the log" in only(log_check.index(case_of(delivered)), "failure").what_to_do


def test_an_index_behind_a_stopped_daemons_log_is_fine(delivered: Spool) -> None:
    """The next start reads the rest."""
    path = delivered.root / ".tfwatch" / "index.sqlite"
    with put_back(path):
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            first = (delivered.root / "log.csv").read_bytes().splitlines(keepends=True)[:2]
            chain = first[1].rpartition(b",")[2].strip().decode()
            for key, value in (("seq", "1"), ("offset", str(len(b"".join(first)))), ("chain", chain)):
                database.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
        assert "behind the log" in only(log_check.index(case_of(delivered)), "ok").seen
