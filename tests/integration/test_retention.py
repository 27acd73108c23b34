"""Retention and `tfwatch restore` as people use them: the real daemon, a real S3 protocol, the real commands."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import signal
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.aging import age
from tests.support.daemon import PATIENCE, Spool, wait_until, zip_bytes
from tests.support.daemon import spool as make_spool
from tests.support.host import mounted
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, moto
from tfwatch.model import read_detail
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings

pytestmark = pytest.mark.timeout(300)

MORTAL = """
import itertools, os, signal, sys, threading

from tfwatch import cli
from tfwatch.spool import removal

last, armed, count = int(sys.argv.pop(1)), False, itertools.count(1)

def deadly(call):
    def calling(*args, **kwargs):
        global armed
        armed = armed or call is rename
        is_of_it = threading.current_thread().name in ("retention", "log")
        if armed and is_of_it and next(count) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return calling

rename = removal.rename_noreplace
removal.rename_noreplace = deadly(rename)
os.fsync, os.fdatasync, os.unlink = deadly(os.fsync), deadly(os.fdatasync), deadly(os.unlink)
cli.main()
"""
"""The daemon, killed right before the n-th time that it renames, syncs or deletes anything since it removes one."""

REMOVED_IN = 6
"""So many of these from taking it out of its folder to its end: rename, two folders, the log, unlink, folder."""

ROW_AFTER = 3
"""Killed before the sync of the log, its row is written already; a power cut might take that back."""


@pytest.fixture(scope="module")
def bucket() -> str:
    name = f"retention-{uuid.uuid4().hex[:12]}"
    moto("http").client().create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, bucket: str) -> Iterator[Spool]:
    """A stopped spool in which, forty days ago, one package was delivered and backed up and one was refused."""
    s3 = {
        "enabled": True, "endpoint_url": moto("http").url, "bucket": bucket, "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }  # fmt: skip
    home = tmp_path_factory.mktemp("past")
    with (
        Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.05))) as portal,
        make_spool(home, portal.url, portal.api_key, integrations={"s3": s3}) as made,
    ):
        made.start()
        made.drop("job_v1.zip", seed=1)
        made.drop("reject_v1.zip", seed=2)
        made.wait_for_event("BACKED_UP")
        made.wait_for("rejected", "reject_v1.zip")
        assert 0 == made.stop()
        age(made, 40)
        yield made


def again(past: Spool, home: Path, **retention: int) -> Spool:
    """Another spool with that past, and its own settings."""
    spool = Spool(home, "http://127.0.0.1:9", "key")
    put_backup(past)
    shutil.rmtree(spool.root)
    shutil.copytree(past.root, spool.root)
    spool.configure(integrations=copy.deepcopy(past.settings["integrations"]), retention=retention)
    return spool


def put_backup(past: Spool) -> None:
    """Its object, whatever another test has done to it."""
    content, facts = zip_bytes(seed=1), read_detail(past.row("BACKED_UP")["detail"])[0]
    digest = hashlib.sha256(content).hexdigest()
    moto("http").client().put_object(
        Bucket=facts["bucket"], Key=facts["key"], Body=content, Metadata={"sha256": digest}
    )  # fmt: skip


@pytest.fixture
def old(past: Spool, tmp_path: Path) -> Iterator[Spool]:
    """That spool, for this test alone, with both kinds to be removed after thirty days; its daemon is to be started."""
    spool = again(past, tmp_path, delivered_days=30, rejected_days=30)
    yield spool
    spool.kill()


def told(spool: Spool, *words: str) -> Any:
    done = spool.cli(*words, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def differences(spool: Spool) -> list[Any]:
    return list(told(spool, "fsck")["differences"])


def prune(spool: Spool) -> None:
    spool.start()
    spool.wait_for_event("PRUNED", count=2)
    folders = [spool.root / where for where in ("delivered", "rejected", ".tfwatch/removing")]
    wait_until(lambda: not any(path.is_file() for folder in folders for path in folder.rglob("*")), "all is gone")


def test_old_ones_go_and_everybody_knows(old: Spool) -> None:
    """PRUNED with SHA-256 and key; no file in any folder; fsck finds all in order, `why` tells it, status is calm."""
    prune(old)

    row = old.row("PRUNED", "job_v1.zip")
    digest = hashlib.sha256(zip_bytes(seed=1)).hexdigest()
    assert (digest, "delivered", "", "delivered") == (
        row["sha256"], row["from_stage"], row["to_stage"], row["status"],
    )  # fmt: skip
    assert read_detail(old.row("BACKED_UP")["detail"])[0]["key"] == read_detail(row["detail"])[0]["key"]
    assert "rejected" == old.row("PRUNED", "reject_v1.zip")["from_stage"]
    assert [] == os.listdir(old.root / "delivered") == os.listdir(old.root / "rejected")
    assert [] == differences(old)
    (package,) = told(old, "why", "job_v1.zip")["packages"]
    assert (None, "delivered") == (package["stage"], package["status"])
    assert "tfwatch restore job_v1.zip" in package["what_to_do"]
    assert "was removed from delivered/ by the retention rule" in package["story"][-1]["text"]
    assert [] == told(old, "status")["problems"]
    assert 0 == old.stop()
    assert [] == differences(old)
    old.assert_sound()


def test_a_pruned_content_is_a_duplicate_still(old: Spool) -> None:
    """Dropped again, it makes no second order, also after the index was made anew."""
    prune(old)
    assert 0 == old.stop()
    (old.root / ".tfwatch" / "index.sqlite").unlink()
    old.start()
    old.drop("again.zip", seed=1)
    old.wait_for("rejected", "again.zip")
    assert "duplicate" == read_detail(old.row("REFUSED", "again.zip")["detail"])[0]["flaw"]


def test_a_missing_object_keeps_its_zip_and_is_stored_again(old: Spool, bucket: str) -> None:
    """Somebody emptied the bucket: nothing delivered goes; the copy is made anew, and only then the ZIP may go."""
    client = moto("http").client()
    client.delete_object(Bucket=bucket, Key=read_detail(old.row("BACKED_UP")["detail"])[0]["key"])
    old.start()
    old.wait_for_event("BACKED_UP", "job_v1.zip", count=2)
    assert "its backup is missing" in old.row("BACKUP_FAILED", "job_v1.zip")["detail"]
    assert {"job_v1.zip"} == old.names("delivered")
    key = read_detail(old.rows("job_v1.zip")[-1]["detail"])[0]["key"]
    assert zip_bytes(seed=1) == client.get_object(Bucket=bucket, Key=key)["Body"].read()
    old.configure(retention={"rejected_days": None})
    old.wait_for_event("PRUNED", "job_v1.zip")


def test_without_s3_it_says_that_nothing_goes(old: Spool) -> None:
    """check-config warns, status tells, and nothing delivered is removed; rejects go all the same."""
    old.configure(integrations={"s3": {"enabled": False}})
    (warning,) = told(old, "check-config")["warnings"]
    assert warning.startswith("retention.delivered_days: nothing is removed")
    old.start()
    old.wait_for_event("PRUNED", "reject_v1.zip")
    (problem,) = old.wait_for_state(lambda state: state["problems"], "status tells")
    assert problem.startswith("retention.delivered_days: nothing is removed from delivered/ while s3 is off")
    assert {"job_v1.zip"} == old.names("delivered")


def test_a_changed_setting_is_taken_up_at_once(old: Spool) -> None:
    """Saving config.yaml is enough, in both directions."""
    old.configure(retention={"delivered_days": 100, "rejected_days": 100})
    old.start()
    old.configure(retention={"delivered_days": 30, "rejected_days": None})
    old.wait_for_event("PRUNED")
    assert "job_v1.zip" == old.row("PRUNED")["package"]
    assert {"reject_v1.zip"} == old.names("rejected")


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", range(1, REMOVED_IN + 1))
def test_killed_at_any_moment_of_a_removal(old: Spool, moment: int) -> None:
    """Killed before any rename, sync or unlink of it: the next start leaves its ZIP or its row, never both."""
    old.configure(retention={"rejected_days": None})
    old.start(ready=False, program=("-c", MORTAL, str(moment)))
    assert old.process is not None
    assert -signal.SIGKILL == old.process.wait(2 * PATIENCE), old.picture()
    old.process = None
    logged = old.events("job_v1.zip").count("PRUNED")
    assert int(moment > ROW_AFTER) == logged, old.picture()
    # Without retention the start must finish what was logged all the same, and put back what was not.
    old.configure(retention={"delivered_days": None})
    old.start()
    assert logged == old.events("job_v1.zip").count("PRUNED"), old.picture()
    assert (set() if logged else {"job_v1.zip"}) == old.names("delivered"), old.picture()
    assert [] == list((old.root / ".tfwatch" / "removing").rglob("*.zip"))
    assert "MOVED" not in old.events("job_v1.zip"), old.picture()
    old.assert_sound()


def test_killed_amid_a_removal_it_goes_on(old: Spool) -> None:
    """With retention as it was, the next start ends as if nothing had happened: one row, and no ZIP."""
    old.start(ready=False, program=("-c", MORTAL, "2"))
    assert old.process is not None
    assert -signal.SIGKILL == old.process.wait(2 * PATIENCE), old.picture()
    old.process = None
    prune(old)
    assert 1 == old.events("job_v1.zip").count("PRUNED")
    old.assert_sound()


def test_fsck_tells_of_a_removal_that_a_crash_cut_short(old: Spool) -> None:
    """Before the next start it says where the file is, and that the start settles it."""
    (old.root / "delivered" / "job_v1.zip").rename(old.root / ".tfwatch" / "removing" / "delivered" / "job_v1.zip")

    (found,) = [found for found in differences(old) if found["kind"] == "folder"]

    assert ".tfwatch/removing/delivered/job_v1.zip" == found["where"]
    old.configure(retention={"delivered_days": None})
    old.start()
    assert {"job_v1.zip"} == old.names("delivered")
    assert [] == differences(old)


# --- restore ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_it_comes_back_and_stays(old: Spool, state: str) -> None:
    """Byte for byte into delivered/; the daemon logs MOVED by an operator, and retention doesn't take it again."""
    prune(old)
    if state == "stopped":
        assert 0 == old.stop()

    document = told(old, "restore", "job_v1.zip")

    path = old.root / "delivered" / "job_v1.zip"
    assert (str(path), "delivered") == (document["path"], document["stage"])
    assert zip_bytes(seed=1) == path.read_bytes()
    assert 0 == stat.S_IMODE(path.stat().st_mode) & 0o007
    if state == "stopped":
        old.start()
    old.wait_for_event("MOVED", "job_v1.zip")
    row = old.row("MOVED", "job_v1.zip")
    assert ("", "delivered", "operator", "delivered") == (
        row["from_stage"], row["to_stage"], row["actor"], row["status"],
    )  # fmt: skip
    old.configure(retention={"rejected_days": 29})
    wait_until(lambda: old.output.read_text().count("configuration taken over") == 1, "retention looked again")
    assert 0 == old.stop()
    assert {"job_v1.zip"} == old.names("delivered")
    assert 1 == old.events("job_v1.zip").count("PRUNED")
    assert [] == differences(old)
    assert [] == [name for name in os.listdir(old.root / "delivered") if name.startswith(".")]


def test_a_copy_goes_where_it_is_asked_for(old: Spool, tmp_path: Path) -> None:
    """By a few digits of its SHA-256, of a package that lies in delivered/ still; nothing in the spool changes."""
    (tmp_path / "desk").mkdir()
    digest = hashlib.sha256(zip_bytes(seed=1)).hexdigest()

    document = told(old, "restore", digest[:10], "--to", str(tmp_path / "desk"))

    assert (str(tmp_path / "desk" / "job_v1.zip"), None) == (document["path"], document["stage"])
    assert zip_bytes(seed=1) == (tmp_path / "desk" / "job_v1.zip").read_bytes()
    assert ["job_v1.zip"] == os.listdir(tmp_path / "desk")
    assert "MOVED" not in old.events()


def refusal(spool: Spool, *words: str) -> str:
    """What a restore that can't be done says; its exit code is 1."""
    done = spool.cli("restore", *words)
    assert (1, "") == (done.returncode, done.stdout)
    return done.stderr


def test_nobodys_file_is_overwritten(old: Spool, tmp_path: Path) -> None:
    """Neither in delivered/ nor elsewhere; nothing half-written stays."""
    assert "lies there already; to have a copy of the backup: --to FOLDER" in refusal(old, "job_v1.zip")
    (tmp_path / "job_v1.zip").write_bytes(b"mine")
    assert "a file of that name lies there, and stays as it is" in refusal(old, "job_v1.zip", "--to", str(tmp_path))
    assert b"mine" == (tmp_path / "job_v1.zip").read_bytes()
    assert [] == [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_backup_that_is_not_right_leaves_nothing(old: Spool, bucket: str) -> None:
    """Missing, or other bytes of the same size: nothing is written, and it is said what to do."""
    client = moto("http").client()
    key = read_detail(old.row("BACKED_UP")["detail"])[0]["key"]
    (old.root / "delivered" / "job_v1.zip").unlink()
    client.put_object(Bucket=bucket, Key=key, Body=b"X" * len(zip_bytes(seed=1)))
    assert "is another object" in refusal(old, "job_v1.zip")
    client.delete_object(Bucket=bucket, Key=key)
    assert "is not in the bucket any more" in refusal(old, "job_v1.zip")
    old.configure(integrations={"s3": {"bucket": "elsewhere"}})
    assert "create the bucket, or check integrations.s3.bucket" in refusal(old, "job_v1.zip")
    client.create_bucket(Bucket="elsewhere")
    assert f"stored in bucket {bucket}, and integrations.s3.bucket is elsewhere now" in refusal(old, "job_v1.zip")
    assert [] == os.listdir(old.root / "delivered")


def test_what_can_not_be_restored_is_said(old: Spool, tmp_path: Path) -> None:
    """Unknown names, packages without a backup, folders that are not there, S3 that is off."""
    assert "did you mean: job_v1.zip" in refusal(old, "job_v2.zip")
    assert "has no backup" in refusal(old, "reject_v1.zip")
    assert "there is no such folder" in refusal(old, "job_v1.zip", "--to", str(tmp_path / "nowhere"))
    old.configure(integrations={"s3": {"enabled": False}})
    assert "integrations.s3 is off" in refusal(old, "job_v1.zip", "--to", str(tmp_path))


@pytest.mark.root
def test_no_room_leaves_nothing(old: Spool, tmp_path: Path) -> None:
    """A disk that is too small is told of before anything is fetched."""
    (tmp_path / "small").mkdir()
    with mounted(tmp_path / "small", "tmpfs", "size=512k") as small:
        said = refusal(old, "job_v1.zip", "--to", str(small))
        assert f"{small}: no room: 512 KiB are free, and job_v1.zip has 2.1 KiB" in said
        assert [] == os.listdir(small)
