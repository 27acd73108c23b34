"""docs/PRIVACY.md is followed, step by step and with the public commands: afterwards nothing of a package is left."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Spool, spool, wait_until
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, moto
from tfwatch.ledger.rows import COLUMNS
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings, SheetsSettings

pytestmark = pytest.mark.timeout(300)

ERASED = [chr(ord("A") + COLUMNS.index(name)) for name in ("package", "trace_id", "order_id", "detail")]
NAME = "maria_silva_v1.zip"


@pytest.fixture
def portal() -> Iterator[Sandbox]:
    sheets = SheetsSettings(reads_per_minute=10_000)
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.05), sheets=sheets)) as running:
        yield running


@pytest.fixture
def bucket() -> str:
    """One that keeps every version of an object."""
    name = f"privacy-{uuid.uuid4().hex[:12]}"
    client = moto("http").client()
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def place(tmp_path: Path, portal: Sandbox, bucket: str) -> Iterator[Spool]:
    """A spool with all three services; its daemon is to be started."""
    s3 = {
        "enabled": True, "endpoint_url": moto("http").url, "bucket": bucket, "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }  # fmt: skip
    sheets = {
        "enabled": True, "spreadsheet_id": portal.spreadsheet_id, "api_base_url": portal.url,
        "service_account_json": json.dumps(portal.service_account()), "batch_seconds": 0.2,
    }  # fmt: skip
    with spool(tmp_path, portal.url, portal.api_key, integrations={"s3": s3, "sheets": sheets}) as made:
        yield made


def shown(portal: Sandbox) -> list[list[Any]]:
    sheets: Any = portal.sheets()["worksheets"]
    values = next((sheet["values"] for sheet in sheets if sheet["properties"]["title"] == "log"), [])
    return [row for row in values if any(row)]


def mirrored(made: Spool, portal: Sandbox) -> None:
    wait_until(lambda: len(shown(portal)) == len(made.rows()) + 1, "the sheet shows the log")


def story(made: Spool) -> Any:
    (package,) = json.loads(made.cli("why", "--json", NAME).stdout)["packages"]
    return package


def erase_cells(portal: Sandbox, rows: list[str]) -> None:
    """What a person does in the sheet, row by row: `log!A12` is row 12."""
    for place in rows:
        found = re.fullmatch(r"log!A(\d+)", place)
        assert found
        for column in ERASED:
            portal.edit_sheet(worksheet="log", action="set", range=f"{column}{found[1]}", value="erased")


def everything_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def versions(bucket: str, key: str) -> list[str]:
    listed = moto("http").client().list_object_versions(Bucket=bucket, Prefix=key)
    return [item["VersionId"] for kind in ("Versions", "DeleteMarkers") for item in listed.get(kind, [])]


def fsck(made: Spool, *words: str) -> Any:
    return json.loads(made.cli("fsck", "--json", *words).stdout)


def test_one_package_is_erased(place: Spool, portal: Sandbox, bucket: str) -> None:
    """ZIP, every version in S3 and the sheet's cells are gone, and only log.csv and its index know the name; the chain
    holds, fsck is content, and the sheet is mirrored on, also by a daemon that compares all of it at its start."""
    place.start()
    place.drop(NAME, seed=1)
    place.wait_for_event("BACKED_UP")
    client = moto("http").client()

    # 1: find it (2, bringing back what retention removed, is a test of its own)
    key = story(place)["backup_key"]
    client.put_object(Bucket=bucket, Key=key, Body=b"another version")
    # 3: delete the ZIP
    (place.root / "delivered" / NAME).unlink()
    place.wait_for_event("MOVED", NAME)
    assert ("delivered", "", "operator") == tuple(
        place.rows(NAME)[-1][column] for column in ("from_stage", "to_stage", "actor")
    )
    # 4: delete every version of the backup
    client.delete_object(Bucket=bucket, Key=key)
    for version in versions(bucket, key):
        client.delete_object(Bucket=bucket, Key=key, VersionId=version)
    assert [] == versions(bucket, key)
    # 5: say so in the log
    (found,) = fsck(place, "--repair")["differences"]
    assert "both were erased on purpose: tfwatch fsck --repair" in found["mend"]
    place.wait_for_event("BACKUP_FAILED", NAME)
    assert ("", "", "operator") == tuple(place.rows(NAME)[-1][column] for column in ("from_stage", "to_stage", "actor"))
    # 6: erase the sheet's cells
    mirrored(place, portal)
    erase_cells(portal, [line["sheet_row"] for line in story(place)["story"]])
    # 9: check
    document = fsck(place)
    assert ([], True) == (document["differences"], document["fine"])
    assert any("have cells that a person erased" in note for note in document["notes"])

    assert NAME not in json.dumps(shown(portal))
    assert place.stop() == 0
    holding = {name for name, content in everything_in(place.root).items() if NAME.encode() in content}
    assert {"log.csv", ".tfwatch/index.sqlite"} >= holding
    place.assert_sound()
    place.start()
    place.drop("4711_v1.zip", seed=2)
    place.wait_for_event("BACKED_UP", "4711_v1.zip")
    mirrored(place, portal)
    assert "" == place.state()["integrations"]["sheets"]["trouble"]


def test_a_reject_is_erased_with_its_reason(place: Spool) -> None:
    """Deleting the ZIP is all: the daemon deletes the reason file beside it."""
    place.start()
    place.drop("reject_maria.zip", seed=1)
    place.wait_for("rejected", "reject_maria.zip")
    (place.root / "rejected" / "reject_maria.zip").unlink()
    place.wait_for_event("MOVED")
    wait_until(lambda: not list((place.root / "rejected").iterdir()), "the reason is gone")


def test_a_log_is_closed(place: Spool, portal: Sandbox, tmp_path: Path) -> None:
    """A new log begins with row 1 and knows no name; the old one is whole by itself; fsck is content."""
    place.start()
    place.drop(NAME, seed=1)
    place.wait_for_event("BACKED_UP")
    mirrored(place, portal)
    assert 0 == place.stop()
    (place.root / "delivered" / NAME).rename(tmp_path / NAME)
    (place.root / "log.csv").rename(tmp_path / "old.csv")
    for path in (place.root / ".tfwatch").glob("index.sqlite*"):
        path.unlink()
    place.configure(integrations={"sheets": {"worksheet": "log-next"}})
    place.start()
    place.drop("4711_v1.zip", seed=2)
    place.wait_for_event("BACKED_UP", "4711_v1.zip")

    assert NAME.encode() not in (place.root / "log.csv").read_bytes()
    assert "1" == place.rows()[0]["seq"]
    wait_until(lambda: fsck(place)["fine"], "nothing differs")
    place.assert_sound()
    (place.root / "log.csv").rename(tmp_path / "new.csv")
    (tmp_path / "old.csv").rename(place.root / "log.csv")
    place.assert_sound()
