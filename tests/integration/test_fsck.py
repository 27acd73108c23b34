"""`tfwatch fsck` as people use it: on a spool of the real daemon, with a real S3 server and the sandbox's sheet."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Spool, spool, wait_until
from tests.support.extent import Extent
from tests.support.require import need
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, moto
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings, SheetsSettings

BUCKET = f"fsck-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def portal() -> Iterator[Sandbox]:
    sheets = SheetsSettings(reads_per_minute=10_000)
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.05), sheets=sheets)) as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, portal: Sandbox) -> Iterator[Spool]:
    """A spool that works with all three services, with one package delivered and one refused; its daemon runs."""
    server = moto("http")
    server.client().create_bucket(Bucket=BUCKET)
    s3 = {
        "enabled": True, "endpoint_url": server.url, "bucket": BUCKET, "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }  # fmt: skip
    sheets = {
        "enabled": True, "spreadsheet_id": portal.spreadsheet_id, "api_base_url": portal.url,
        "service_account_json": json.dumps(portal.service_account()), "batch_seconds": 0.2,
    }  # fmt: skip
    home = tmp_path_factory.mktemp("fsck")
    with spool(home, portal.url, portal.api_key, integrations={"s3": s3, "sheets": sheets}) as made:
        made.start()
        made.drop("job_v1.zip", seed=1)
        made.drop("reject_v1.zip", seed=2)
        made.wait_for_event("BACKED_UP")
        made.wait_for("rejected", "reject_v1.zip")
        settle(made, portal)
        yield made


@pytest.fixture
def running(place: Spool, portal: Sandbox) -> Spool:
    """The same, its daemon running and nothing pending."""
    if place.process is None:
        place.start()
    settle(place, portal)
    return place


@pytest.fixture
def stopped(place: Spool, portal: Sandbox) -> Spool:
    """The same, its daemon stopped and nothing pending."""
    if place.process is not None:
        settle(place, portal)
        assert place.stop() == 0
    return place


def settle(made: Spool, portal: Sandbox) -> None:
    wait_until(lambda: len(shown(portal)) == len(made.rows()) + 1, "the sheet shows the log")


def shown(portal: Sandbox) -> list[list[Any]]:
    sheets: Any = portal.sheets()["worksheets"]
    values = next((sheet["values"] for sheet in sheets if sheet["properties"]["title"] == "log"), [])
    return [row for row in values if any(row)]


def fsck(made: Spool, *words: str) -> tuple[int, Any]:
    """Exit code and document."""
    done = made.cli("fsck", "--json", *words)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def kinds(document: Any) -> list[str]:
    return [found["kind"] for found in document["differences"]]


def test_all_is_well_while_it_runs(running: Spool) -> None:
    """With the daemon running everything is compared, and nothing differs."""
    code, document = fsck(running, "--deep")

    assert (0, [], True, True) == (
        code, document["differences"], document["fine"], document["daemon_running"],
    )  # fmt: skip
    assert ["log", "index", "folders", "contents", "backups", "sheet"] == document["compared"]


def test_it_is_quiet_while_packages_move(running: Spool) -> None:
    """A daemon in the middle of its work is not taken for a spool in disorder."""
    for number in range(40):
        running.drop(f"busy{number}.zip", seed=100 + number)
    for _ in range(3):
        code, document = fsck(running, "--local")
        assert (0, []) == (code, document["differences"])
    running.wait_for("delivered", *(f"busy{number}.zip" for number in range(40)))
    running.wait_for_event("BACKED_UP", count=41)


def test_a_missing_object_is_stored_again(running: Spool) -> None:
    """fsck asks, the daemon stores: the same key again, logged, and nothing differs any more."""
    client = moto("http").client()
    (key,) = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"] if "job_v1" in item["Key"]]
    client.delete_object(Bucket=BUCKET, Key=key)
    code, document = fsck(running)
    assert (1, ["backup"]) == (code, kinds(document))
    code, document = fsck(running, "--repair")
    assert (1, "asked for; the daemon stores it now") == (code, document["differences"][0]["said"])
    running.wait_for_event("BACKED_UP", "job_v1.zip", count=2)

    assert ["BACKUP_FAILED", "BACKED_UP"] == running.events("job_v1.zip")[-2:]
    assert key in [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert [] == fsck(running)[1]["differences"]


def test_an_edited_sheet_is_found(running: Spool, portal: Sandbox) -> None:
    """The cell is named with what it shows; it is left for a person to undo."""
    before = shown(portal)[2][5]
    portal.edit_sheet(worksheet="log", action="set", range="F3", value="my note")
    try:
        code, document = fsck(running)
    finally:
        portal.edit_sheet(worksheet="log", action="set", range="F3", value=before)

    (found,) = document["differences"]
    assert (1, "sheet", "log!A3", False) == (code, found["kind"], found["where"], found["safe"])
    assert "my note" in found["what"]


def test_while_it_runs_repairs_are_refused(running: Spool) -> None:
    """What the daemon owns is left alone, with the way to do it."""
    stray = running.root / "rejected/nobody.zip.reason.txt"
    stray.write_text("stray")
    try:
        done = running.cli("fsck", "--repair")
        assert stray.exists()
    finally:
        stray.unlink()

    assert 1 == done.returncode
    assert "systemctl stop tfwatch" in done.stdout


def test_all_is_well_while_it_is_stopped(stopped: Spool) -> None:
    """With the daemon stopped, too; for people it is one sentence, and nothing is on stderr."""
    done = stopped.cli("fsck")

    assert (0, "") == (done.returncode, done.stderr)
    assert "nothing differs" == done.stdout.splitlines()[-1]
    assert [] == fsck(stopped, "--local", "--deep")[1]["differences"]


def test_one_flipped_byte_is_found(stopped: Spool) -> None:
    """Row, line and byte are named, and the cell of the sheet that still has the row as it was."""
    log = stopped.root / "log.csv"
    whole = log.read_bytes()
    try:
        log.write_bytes(whole.replace(b"job_v1.zip", b"jab_v1.zip", 1))
        code, document = fsck(stopped)
    finally:
        log.write_bytes(whole)
    row = next(number for number, line in enumerate(whole.splitlines()) if b"job_v1.zip" in line)

    (found,) = document["differences"]
    assert (1, "log", False) == (code, found["kind"], found["safe"])
    assert found["where"].startswith(f"log.csv row {row} (line {row + 1}, byte ")
    assert f"log!A{row + 1}" in found["mend"]


def test_repair_never_touches_the_log(stopped: Spool) -> None:
    """A damaged log stays as it is, whatever is asked for."""
    log = stopped.root / "log.csv"
    whole = log.read_bytes()
    broken = whole.replace(b"job_v1.zip", b"jab_v1.zip", 1)
    try:
        log.write_bytes(broken)
        code, _ = fsck(stopped, "--repair")
        assert (1, broken) == (code, log.read_bytes())
    finally:
        log.write_bytes(whole)


def test_after_a_kill_everything_agrees(stopped: Spool) -> None:
    """A daemon that died leaves side files of its index, and no disorder."""
    stopped.start()
    stopped.kill()
    code, document = fsck(stopped, "--deep", "--local")
    assert (0, []) == (code, document["differences"])


def test_a_wrong_index_is_made_anew(stopped: Spool) -> None:
    """After the repair nothing differs, and the daemon starts on it."""
    for path in stopped.root.glob(".tfwatch/index.sqlite*"):
        path.unlink()
    code, document = fsck(stopped)
    assert (1, ["index"]) == (code, kinds(document))
    assert 0 == fsck(stopped, "--repair")[0]
    assert (0, []) == (lambda code, document: (code, kinds(document)))(*fsck(stopped))
    stopped.start()


def test_an_object_missing_while_stopped_is_stored_at_the_start(stopped: Spool) -> None:
    """The request waits for the next start."""
    client = moto("http").client()
    before = stopped.events("job_v1.zip").count("BACKED_UP")
    (key,) = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"] if "job_v1" in item["Key"]]
    client.put_object(Bucket=BUCKET, Key=key, Body=b"somebody else's")
    code, document = fsck(stopped, "--repair")
    assert (1, "asked for; the daemon stores it once it runs") == (code, document["differences"][0]["said"])
    stopped.start()
    stopped.wait_for_event("BACKED_UP", "job_v1.zip", count=before + 1)
    assert [] == fsck(stopped)[1]["differences"]


def test_a_zip_that_is_gone_and_a_crash_are_told_apart(stopped: Spool) -> None:
    """The one is a person's to judge; the other is finished, and the daemon starts with nothing to repair."""
    root = stopped.root
    (root / "rejected/reject_v1.zip").rename(root / ".tfwatch/claimed/reject_v1.zip")
    (root / "rejected/reject_v1.zip.reason.txt").unlink()
    (root / "delivered/job_v1.zip").rename(root.parent / "away.zip")
    try:
        code, document = fsck(stopped, "--repair")
    finally:
        (root.parent / "away.zip").rename(root / "delivered/job_v1.zip")
    by_place = {found["where"]: found["repaired"] for found in document["differences"]}

    assert (1, {"claimed/reject_v1.zip": True, "delivered/job_v1.zip": False}) == (code, by_place)
    assert (root / "rejected/reject_v1.zip.reason.txt").exists()
    assert 0 == fsck(stopped)[0]
    rows = len(stopped.rows())
    stopped.start()
    assert rows == len(stopped.rows())


def test_services_that_are_down_are_said(stopped: Spool) -> None:
    """A service that doesn't answer is one difference; the others are compared. `--local` doesn't ask."""
    url = stopped.settings["integrations"]["s3"]["endpoint_url"]
    stopped.configure(integrations={"s3": {"endpoint_url": "http://127.0.0.1:1"}})
    try:
        code, document = fsck(stopped)
        assert 0 == fsck(stopped, "--local")[0]
    finally:
        stopped.configure(integrations={"s3": {"endpoint_url": url}})

    assert (1, ["backup"]) == (code, kinds(document)), document
    assert "can't be compared" in document["differences"][0]["what"]
    assert "sheet" in document["compared"]
    assert SECRET_KEY not in json.dumps(document)


def test_a_missing_bucket_is_said_once(stopped: Spool) -> None:
    """That the bucket is gone is one difference with its hint; not each object in it is called missing."""
    stopped.configure(integrations={"s3": {"bucket": f"{BUCKET}-gone"}})
    try:
        code, document = fsck(stopped, "--repair")
    finally:
        stopped.configure(integrations={"s3": {"bucket": BUCKET}})

    (found,) = document["differences"]
    assert (1, "backup", False) == (code, found["kind"], found["safe"])
    assert f"there is no bucket {BUCKET}-gone" in found["what"]
    assert "create the bucket, or check integrations.s3.bucket" == found["mend"]


def test_repairing_shows_how_far_it_is(stopped: Spool) -> None:
    """On a terminal the index that is made anew has a line of its own, not only the comparison before it."""
    need("script")
    for path in stopped.root.glob(".tfwatch/index.sqlite*"):
        path.unlink()
    command = shlex.join([sys.executable, "-m", "tfwatch", "fsck", "--repair", "--local", "-c", str(stopped.config)])
    done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stdout
    assert "making the index anew" in done.stdout


def flipped(whole: bytes, bit: int) -> bytes:
    return whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :]


def without(lines: list[bytes], row: int) -> list[bytes]:
    return lines[:row] + lines[row + 1 :]


def swapped(lines: list[bytes], one: int, other: int) -> list[bytes]:
    changed = list(lines)
    changed[one], changed[other] = lines[other], lines[one]
    return changed


def test_whatever_is_done_to_a_row_is_found_by_the_command(stopped: Spool, extent: Extent) -> None:
    """Any bit flipped, any row removed, any two swapped: exit 1, and the first row concerned or the next is named."""
    rng, log = extent.rng("rows of fsck"), stopped.root / "log.csv"
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    rows = range(1, len(lines))
    changes: list[tuple[str, int, bytes]] = []
    for bit in rng.sample(range(8 * len(whole)), 8):
        changes.append((f"bit {bit} flipped", whole[: bit // 8].count(b"\r\n"), flipped(whole, bit)))
    for row in {1, *rng.sample(rows, 4), len(lines) - 1}:
        changes.append((f"row {row} removed", row, b"".join(without(lines, row))))
    for one, other in (sorted(rng.sample(rows, 2)) for _ in range(6)):
        changes.append((f"rows {one} and {other} swapped", one, b"".join(swapped(lines, one, other))))
    try:
        for what, row, content in changes:
            log.write_bytes(content)
            code, document = fsck(stopped, "--local")
            first = document["differences"][0]
            assert (1, "log") == (code, first["kind"]), what
            named = 0 if "header" in first["where"] else int(first["where"].split()[2])
            assert named in (row, row + 1), (what, first)
    finally:
        log.write_bytes(whole)
    print(f"\n{len(changes)} changes of {len(rows)} rows, all found; seed {extent.seed}")


def test_a_wrong_configuration_is_78(stopped: Spool, tmp_path: Path) -> None:
    """Settings that can't be used end it before anything is looked at."""
    config = tmp_path / "config.yaml"
    config.write_text("spool: {rot: /x}\n")
    done = subprocess.run([sys.executable, "-m", "tfwatch", "fsck", "-c", str(config)], capture_output=True, text=True)
    assert 78 == done.returncode
