"""One package's story in a real journal: found by its trace id, from claim to backup and sheet, refusals included."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, moto
from tests.support.systemd import Journal, journald
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

pytestmark = pytest.mark.root

STORY = ["CLAIMED", "ATTEMPTED", "ACCEPTED", "COMPLETED", "BACKED_UP"]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with journald(tmp_path) as running:
        yield running


@pytest.fixture
def everything(sandbox: Sandbox, spool: Spool) -> Spool:
    """All three services are on."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    server = moto("http")
    server.client().create_bucket(Bucket=bucket)
    spool.configure(
        integrations={
            "s3": {
                "enabled": True, "endpoint_url": server.url, "bucket": bucket,
                "access_key": ACCESS_KEY, "secret_key": SECRET_KEY,
            },
            "sheets": {
                "enabled": True, "spreadsheet_id": sandbox.spreadsheet_id, "batch_seconds": 0.2,
                "service_account_json": json.dumps(sandbox.service_account()), "api_base_url": sandbox.url,
            },
        }
    )  # fmt: skip
    return spool


def start(spool: Spool, journal: Journal) -> None:
    """The daemon, with the journal for its stderr."""
    spool.start(wrap=journal.wrap, env=journal.env(spool), ready=False)
    wait_until(lambda: any("watching " in entry["MESSAGE"] for entry in journal.entries()), "it watches", 60)


def story(journal: Journal, trace_id: str) -> list[dict[str, str]]:
    return journal.entries(f"TRACE_ID={trace_id}")


def wait_for_event(journal: Journal, trace_id: str, event: str) -> list[dict[str, str]]:
    """Wait until a package's story has an event, and give the story."""
    wait_until(lambda: event in [entry.get("EVENT") for entry in story(journal, trace_id)], f"{event} in its story")
    return story(journal, trace_id)


def test_one_package_is_one_story(sandbox: Sandbox, everything: Spool, journal: Journal) -> None:
    """`journalctl TRACE_ID=…` gives this package alone, in order, each record with all that is known by then."""
    start(everything, journal)
    everything.drop("job_v1.zip", seed=1)
    everything.drop("other_v1.zip", seed=2)
    everything.wait_for_event("BACKED_UP", count=2)
    about = everything.row("BACKED_UP", "job_v1.zip")
    wait_until(
        lambda: any("up to log row " + about["seq"] in entry["MESSAGE"] for entry in story(journal, about["trace_id"])),
        "its last row is in the sheet",
    )
    told = story(journal, about["trace_id"])
    assert STORY == [entry["EVENT"] for entry in told if entry["EVENT"] != "MIRRORED"]
    for entry in told:
        assert ("job_v1.zip", about["sha256"], about["exec_id"]) == (
            entry["PACKAGE"], entry["SHA256"], entry["EXEC_ID"],
        )  # fmt: skip
    ordered = [entry.get("ORDER_ID") for entry in told if entry["EVENT"] in ("ACCEPTED", "COMPLETED", "BACKED_UP")]
    assert [about["order_id"]] * 3 == ordered
    services = {entry["EVENT"]: entry.get("INTEGRATION") for entry in told}
    assert {"gotranscript"} == {services[event] for event in ("ATTEMPTED", "ACCEPTED", "COMPLETED")}
    assert ("s3", "sheets") == (services["BACKED_UP"], services["MIRRORED"])
    assert {"6"} == {entry["PRIORITY"] for entry in told}


def test_refusals_and_failures_belong_to_the_story(sandbox: Sandbox, everything: Spool, journal: Journal) -> None:
    """Refused here, refused by the service, put off, rolled back: each is found by the trace that the log gave it."""
    everything.configure(integrations={"gotranscript": {"rollback_after": 2, "workers": 1}})
    start(everything, journal)
    (everything.root / "outbox" / "bad.zip").write_bytes(b"PK\x03\x04 no ZIP at all")
    everything.configure(spool={"incomplete_timeout_seconds": 0.5})
    everything.wait_for_event("REFUSED", "bad.zip")
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=422, message="no speech in it"))
    everything.drop("mute.zip", seed=1)
    everything.wait_for_event("REFUSED", "mute.zip")
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503))
    everything.drop("first.zip", seed=2)
    everything.drop("second.zip", seed=3)
    everything.wait_for_event("ROLLBACK")
    rows = everything.rows()
    for event in ("REFUSED", "DEFERRED", "ROLLBACK"):
        for row in (row for row in rows if row["event"] == event):
            told = wait_for_event(journal, row["trace_id"], event)
            assert "CLAIMED" == told[0]["EVENT"], "it begins where its file was taken"
            assert {row["package"]} == {entry["PACKAGE"] for entry in told}
            assert {row["sha256"]} == {entry["SHA256"] for entry in told}
    (rollback,) = [row for row in rows if row["event"] == "ROLLBACK"]
    alert = [entry for entry in wait_for_event(journal, rollback["trace_id"], "ALERT") if entry["EVENT"] == "ALERT"]
    assert any("rollback of gotranscript" in entry["MESSAGE"] for entry in alert), "what it tripped is in its story"


def test_no_record_about_a_package_lacks_its_fields(sandbox: Sandbox, everything: Spool, journal: Journal) -> None:
    """Whatever names a package has PACKAGE, EVENT and EXEC_ID; once its trace is known, that too."""
    everything.configure(integrations={"gotranscript": {"base_url": "http://127.0.0.1:9"}})
    start(everything, journal)
    names = {f"hostile {number} TRACE_ID=x.zip" for number in range(3)}
    for number, name in enumerate(sorted(names)):
        everything.drop(name, seed=number)
    (everything.root / "outbox" / "link.zip").symlink_to("/etc/passwd")
    everything.wait_for_event("DEFERRED", count=2)
    wait_until(lambda: any("link.zip" in entry["MESSAGE"] for entry in journal.entries("EVENT=NOTE")), "it is told")
    everything.stop()
    traces = {row["package"]: row["trace_id"] for row in everything.rows() if row["package"]}
    for entry in journal.entries(f"EXEC_ID={everything.rows()[0]['exec_id']}"):
        named = [name for name in (*names, "link.zip") if name in entry["MESSAGE"]]
        if named:
            assert named == [entry["PACKAGE"]], entry["MESSAGE"]
            assert entry["EVENT"]
            assert traces.get(named[0]) == entry.get("TRACE_ID"), entry["MESSAGE"]
