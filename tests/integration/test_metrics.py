"""File, `status --json` and log.csv say the same, to the last row: every figure is a recount of the log."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.forwarder import Forwarder
from tests.support.recount import of_the_log, recount
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, moto
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

REFUSES = Fault(kind=FaultKind.STATUS, status=422, times=1, message="No audio.")
HOLDS = Fault(kind=FaultKind.STATUS, status=503, retry_after="3600")
"""A failed delivery that isn't tried again while a test looks."""


def in_file(spool: Spool) -> dict[str, Any]:
    return json.loads((spool.root / "logs" / "observability.json").read_text())  # type: ignore[no-any-return]


def by_status(spool: Spool) -> dict[str, Any]:
    done = spool.cli("status", "--json")
    assert "" == done.stderr
    return json.loads(done.stdout)["metrics"]  # type: ignore[no-any-return]


def assert_the_logs(spool: Spool, shown: dict[str, Any]) -> None:
    """Every figure of a document is what log.csv counts up to, and all of its rows are in it."""
    assert recount(spool.root / "log.csv", shown) == of_the_log(shown), spool.picture()
    assert len(spool.rows()) == shown["log_seq"], spool.picture()


def assert_all_agree(spool: Spool) -> dict[str, Any]:
    """Wait until the file has seen the last row, then hold file, status and log against each other."""
    wait_until(lambda: in_file(spool)["log_seq"] == len(spool.rows()), "the file shows the last row")
    file, status = in_file(spool), by_status(spool)
    assert_the_logs(spool, file)
    assert_the_logs(spool, status)
    assert file.keys() == status.keys()
    return file


@pytest.mark.timeout(180)
def test_no_gap_between_file_status_and_log(sandbox: Sandbox, spool: Spool) -> None:
    """Deliveries, refusals, failures, hands, backups good and bad: all agree, also stopped, restarted and rebuilt."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    moto("http").client().create_bucket(Bucket=bucket)
    with Forwarder(moto("http").url) as way:
        way.shut()
        spool.configure(integrations={
            "gotranscript": {"workers": 1, "rollback_after": 9},
            "s3": {
                "enabled": True, "endpoint_url": way.url, "bucket": bucket,
                "access_key": ACCESS_KEY, "secret_key": SECRET_KEY,
            },
        })  # fmt: skip
        spool.start()
        spool.drop("a_v1.zip", seed=1)
        spool.drop("b_v1.zip", seed=2)
        spool.wait_for_event("BACKUP_FAILED", count=2)
        way.open()
        spool.drop("c_v1.zip", seed=3)
        spool.wait_for_event("BACKED_UP", count=3)
        make_trouble(sandbox, spool)
        file = assert_all_agree(spool)
        expected = {
            "accepted": 4, "completed": 3, "refused": 1, "refused_later": 1, "refused_here": 2, "deferred": 1,
            "unknown": 0, "rolled_back": 0, "by_hand": 1, "failed": 2,
        }  # fmt: skip
        assert expected == file["deliveries"]
        assert 4 / 6 == file["delivery_success_rate"]
        assert 4 == file["delivery_latency_seconds"]["count"]
        assert 3 == file["turnaround_seconds"]["count"]
        assert 1 == file["fallback_count"] == file["fallback_total"]
        failed = spool.events().count("BACKUP_FAILED")
        assert {"backed_up": 4, "failed": failed, "asked_again": 0} == file["backups"]
        assert 4 / (4 + failed) == file["backup_success_rate"]
        assert [4, 3, 2] == [sum(h[word] for h in file["hourly"]) for word in ("accepted", "completed", "failed")]
    survives(spool, file)


def make_trouble(sandbox: Sandbox, spool: Spool) -> None:
    """One more of each: duplicate, corrupt, refused at once, refused later, delivered by hand, failed."""
    spool.drop("again_v1.zip", seed=1)
    spool.wait_for("rejected", "again_v1.zip")
    whole = spool.drop("corrupt.zip.part", seed=4)
    content = bytearray(whole.read_bytes())
    content[60] ^= 1
    whole.write_bytes(content)
    whole.rename(whole.with_name("corrupt.zip"))
    spool.wait_for("rejected", "corrupt.zip")
    spool.drop("reject.zip", seed=5)
    spool.wait_for("rejected", "reject.zip")
    sandbox.set_faults(REFUSES)
    spool.drop("refused.zip", seed=6)
    spool.wait_for("rejected", "refused.zip")
    (spool.root / "rejected" / "refused.zip").rename(spool.root / "delivered" / "refused.zip")
    spool.wait_for_event("BACKED_UP", "refused.zip")
    sandbox.set_faults(HOLDS)
    spool.drop("fails.zip", seed=7)
    spool.wait_for_event("DEFERRED", "fails.zip")
    spool.wait_for("outbox", "fails.zip")


def survives(spool: Spool, before: dict[str, Any]) -> None:
    """Stopped, with its index deleted, and started again: the figures are those of the log, and none was lost."""
    assert 0 == spool.stop()
    stopped = by_status(spool)
    assert_the_logs(spool, stopped)
    assert_the_logs(spool, in_file(spool))
    assert before["deliveries"]["accepted"] <= stopped["deliveries"]["accepted"]
    for path in (spool.root / ".tfwatch").glob("index.sqlite*"):
        path.unlink()
    rebuilt = by_status(spool)
    assert {**stopped, "snapshot_at": "", "window_begins_at": ""} | ages(rebuilt) == {
        **rebuilt, "snapshot_at": "", "window_begins_at": "",
    }  # fmt: skip
    spool.start()
    restarted = assert_all_agree(spool)
    assert stopped["deliveries"]["completed"] <= restarted["deliveries"]["completed"]
    assert stopped["delivery_latency_seconds"]["count"] <= restarted["delivery_latency_seconds"]["count"]


def ages(shown: dict[str, Any]) -> dict[str, Any]:
    """What changes with the clock alone."""
    return {key: shown[key] for key in ("oldest_package_seconds", "hourly")}


def test_the_file_is_there_from_the_start_and_whole(spool: Spool) -> None:
    """Before anything was dropped it shows zeros, and no rate of nothing; it is replaced, never written in place."""
    spool.start()
    path = spool.root / "logs" / "observability.json"
    wait_until(path.exists, "the file is written")
    first = in_file(spool)
    assert 0 == sum(first["deliveries"].values())
    assert first["delivery_success_rate"] is first["avg_delivery_latency_ms"] is first["backup_success_rate"] is None
    with path.open() as file:
        before = file.read()
        spool.drop("a.zip")
        spool.wait_for("delivered", "a.zip")
        wait_until(lambda: in_file(spool)["deliveries"]["completed"] == 1, "the file shows it")
        file.seek(0)
        assert before == file.read()


@pytest.mark.timeout(180)
def test_the_present_is_shown_alike(sandbox: Sandbox, spool: Spool) -> None:
    """Where packages lie, what is switched on, how far the sheet is: file and status agree; rows wait for a sheet."""
    sheet = {
        "enabled": True, "spreadsheet_id": sandbox.spreadsheet_id, "api_base_url": sandbox.url, "batch_seconds": 0.2,
        "service_account_json": json.dumps(sandbox.service_account()),
    }  # fmt: skip
    spool.configure(integrations={"sheets": sheet})
    spool.start()
    spool.drop("a.zip", seed=1)
    spool.drop("reject.zip", seed=2)
    spool.wait_for("delivered", "a.zip")
    spool.wait_for("rejected", "reject.zip")

    def at_rest() -> dict[str, Any] | None:
        shown = in_file(spool)
        is_whole = shown["log_seq"] == len(spool.rows()) and shown["pending_rows"] == 0
        return shown if is_whole and shown["packages"]["claimed"] == shown["in_flight"] == 0 else None

    file = wait_until(at_rest, "the sheet has all rows, and the file says so")
    keys = ("packages", "in_flight", "pending_rows", "backup_pending", "integration_enabled")
    present = {key: file[key] for key in keys}
    wait_until(lambda: present == {key: by_status(spool)[key] for key in keys}, f"status shows {present}")
    assert {"outbox": 0, "claimed": 0, "submitted": 0, "delivered": 1, "rejected": 1} == file["packages"]
    assert {"delivered", "rejected"} == file["oldest_package_seconds"].keys()
    assert {"gotranscript": True, "s3": False, "sheets": True} == file["integration_enabled"]
    assert 0 <= file["sheet_sync_latency_ms"]
    assert 0 < file["watch_latency_seconds"]
    assert 0 == spool.stop()
    spool.configure(integrations={"sheets": {"worksheet": "another"}})
    stopped = by_status(spool)
    assert len(spool.rows()) == stopped["pending_rows"]
    assert stopped["sheet_sync_latency_ms"] is stopped["watch_latency_seconds"] is None
