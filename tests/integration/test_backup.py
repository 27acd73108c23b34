"""Delivered packages are copied to S3, once each and verified; S3 being down delays nothing but the copy."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator

import pytest

from tests.support.daemon import Spool, wait_until, zip_bytes
from tests.support.forwarder import Forwarder
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, moto
from tfwatch.model import read_detail
from tfwatch.sandbox.server import Sandbox


@pytest.fixture
def bucket(spool: Spool) -> str:
    """A bucket of the test's own, which the spool is configured to use."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    server = moto("http")
    server.client().create_bucket(Bucket=name)
    configure(spool, server.url, name)
    return name


@pytest.fixture
def way(spool: Spool, bucket: str) -> Iterator[Forwarder]:
    """The same, behind a way that can be shut."""
    with Forwarder(moto("http").url) as forwarder:
        configure(spool, forwarder.url, bucket)
        yield forwarder


def configure(spool: Spool, url: str, bucket: str, **more: object) -> None:
    settings = {
        "enabled": True,
        "endpoint_url": url,
        "bucket": bucket,
        "prefix": "tf/",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }
    spool.configure(integrations={"s3": settings | more})


def keys(bucket: str) -> list[str]:
    """All keys in the bucket."""
    return [item["Key"] for item in moto("http").client().list_objects_v2(Bucket=bucket).get("Contents", [])]


def key_of(spool: Spool, name: str) -> str:
    """The key that a package must have: the day is that of its first row."""
    row = spool.rows(name)[0]
    return f"tf/{row['at'][:10].replace('-', '/')}/{row['sha256'][:12]}-{row['package']}"


def test_a_completed_package_is_stored(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """Its key tells day, content and name; its metadata the SHA-256, trace and order; it is logged as BACKED_UP."""
    spool.start()
    spool.drop("job_v1.zip", seed=4)
    spool.wait_for_event("BACKED_UP")
    assert ["ATTEMPTED", "ACCEPTED", "COMPLETED", "BACKED_UP"] == spool.events("job_v1.zip")
    row = spool.row("BACKED_UP")
    (key,) = keys(bucket)
    assert key_of(spool, "job_v1.zip") == key == read_detail(row["detail"])[0]["key"]
    assert re.fullmatch(r"tf/\d{4}/\d\d/\d\d/[0-9a-f]{12}-job_v1\.zip", key)
    found = moto("http").client().get_object(Bucket=bucket, Key=key)
    assert zip_bytes(seed=4) == found["Body"].read()
    (order,) = sandbox.orders()
    expected = {"sha256": row["sha256"], "trace-id": row["trace_id"], "order-id": order["id"]}
    assert expected == found["Metadata"]
    assert ("delivered", "delivered") == (row["from_stage"], row["to_stage"])
    assert {"job_v1.zip"} == spool.names("delivered")


def test_a_large_package_is_stored_in_parts(spool: Spool, bucket: str) -> None:
    """Above part_size_mib the copy goes up in parts, and is whole."""
    configure(spool, moto("http").url, bucket, part_size_mib=5)
    spool.start()
    spool.drop("large.zip", size=12 * 1024**2)
    spool.wait_for_event("BACKED_UP")
    (key,) = keys(bucket)
    found = moto("http").client().get_object(Bucket=bucket, Key=key)
    assert hashlib.sha256(found["Body"].read()).hexdigest() == spool.row("BACKED_UP")["sha256"]
    assert found["ETag"].strip('"').endswith("-3")


def test_what_was_not_delivered_is_not_stored(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """Refused packages have no copy; one that an operator put into delivered/ has."""
    spool.start()
    spool.drop("reject.zip", seed=1)
    spool.wait_for("rejected", "reject.zip")
    assert [] == keys(bucket)
    (spool.root / "rejected" / "reject.zip").rename(spool.root / "delivered" / "reject.zip")
    spool.wait_for_event("BACKED_UP")
    assert [key_of(spool, "reject.zip")] == keys(bucket)


def test_one_that_was_renamed_on_its_way_is_stored(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """Somebody's file lay in its way in delivered/: it is stored in this run, under the name it has since."""
    sandbox.set_settings(portal={"verdict_delay": 3})
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("submitted", "p.zip")
    (spool.root / "delivered" / "p.zip").write_text("stranger")
    spool.wait_for("delivered", "p~2.zip")
    spool.wait_for_event("BACKED_UP", "p~2.zip")
    digest = spool.row("COMPLETED")["sha256"]
    assert [f"{digest[:12]}-p~2.zip"] == [key.rpartition("/")[2] for key in keys(bucket) if digest[:12] in key]


def test_s3_down_delays_no_delivery(sandbox: Sandbox, spool: Spool, bucket: str, way: Forwarder) -> None:
    """While S3 is down packages are delivered as ever; once a copy gets through, all others follow at once."""
    way.shut()
    spool.start()
    names = {f"n{number}.zip" for number in range(5)}
    for number, name in enumerate(names):
        spool.drop(name, seed=number)
    spool.wait_for("delivered", *names)
    spool.wait_for_event("BACKUP_FAILED", count=5)
    assert {"delivered"} == {row["to_stage"] for row in spool.rows() if row["event"] == "BACKUP_FAILED"}
    wait_until(lambda: spool.state()["backup_pending"] == 5, "the state counts them")
    assert "" != spool.state()["integrations"]["s3"]["trouble"]
    way.open()
    spool.drop("next.zip", seed=9)
    spool.wait_for_event("BACKED_UP", count=6, seconds=12)
    assert 6 == len(keys(bucket))
    wait_until(lambda: spool.state()["integrations"]["s3"]["trouble"] == "", "the state says that all is well")
    assert 6 == len(sandbox.orders())
    spool.assert_sound()


def test_one_that_can_not_be_stored_keeps_to_its_own_pauses(spool: Spool, bucket: str) -> None:
    """A package whose file was changed is told of once, not as trouble with S3, however many others get through."""
    configure(spool, moto("http").url, bucket, enabled=False)
    spool.start()
    spool.drop("bad.zip")
    spool.wait_for("delivered", "bad.zip")
    with (spool.root / "delivered" / "bad.zip").open("r+b") as file:
        file.write(b"XX")
    configure(spool, moto("http").url, bucket)
    spool.wait_for_event("BACKUP_FAILED", "bad.zip")
    for number in range(4):
        name = f"good{number}.zip"
        spool.drop(name, seed=number + 1)
        spool.wait_for_event("BACKED_UP", name)
    # Its own pauses are half a minute and more; four others that got through are no reason to try it again.
    assert 3 > spool.events("bad.zip").count("BACKUP_FAILED")
    (problem,) = spool.wait_for_state(lambda state: state["problems"], "status tells")
    assert f"{spool.root}/delivered/bad.zip: can't be backed up" in problem
    assert "" == spool.state()["integrations"]["s3"]["trouble"]
    wait_until(lambda: 1 == spool.output.read_text().count("can't be backed up"), "the journal tells once")
    assert "backups fail" not in spool.output.read_text()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_missing_copy_is_made_after_a_restart(spool: Spool, bucket: str, way: Forwarder, end: str) -> None:
    """COMPLETED but not BACKED_UP at the end of a run: the next one makes the copy, under the same key."""
    way.shut()
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("BACKUP_FAILED")
    getattr(spool, end)()
    way.open()
    spool.start()
    spool.wait_for_event("BACKED_UP")
    assert [key_of(spool, "p.zip")] == keys(bucket)


def test_stored_but_not_logged(spool: Spool, bucket: str) -> None:
    """Killed between the copy and its row: the copy is found to be there, and nothing is stored a second time."""
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("BACKED_UP")
    spool.stop()
    log = spool.root / "log.csv"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    (spool.root / ".tfwatch" / "index.sqlite").unlink()
    before = moto("http").client().head_object(Bucket=bucket, Key=keys(bucket)[0])["LastModified"]
    spool.start()
    spool.wait_for_event("BACKED_UP")
    assert "it was there already" in spool.row("BACKED_UP")["detail"]
    (key,) = keys(bucket)
    assert before == moto("http").client().head_object(Bucket=bucket, Key=key)["LastModified"]


def test_switched_on_later_it_catches_up(spool: Spool, bucket: str) -> None:
    """What was delivered before S3 was switched on is copied when it is."""
    configure(spool, moto("http").url, bucket, enabled=False)
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("delivered", "p.zip")
    configure(spool, moto("http").url, bucket)
    spool.wait_for_event("BACKED_UP")
    assert [key_of(spool, "p.zip")] == keys(bucket)


def test_strange_names_are_stored(spool: Spool, bucket: str) -> None:
    """Spaces, umlauts, brackets and bytes that are no UTF-8 in a name: the copy is there under a key of one's own."""
    spool.start()
    names = ["später [1] + & é.zip", "a\udcffb.zip", "=1+1.zip", "%2e%2e.zip"]
    for number, name in enumerate(names):
        spool.drop(name, seed=number)
    spool.wait_for_event("BACKED_UP", count=4)
    assert 4 == len(keys(bucket))


def test_no_secret_is_told(spool: Spool, bucket: str, way: Forwarder) -> None:
    """Neither the log nor the journal nor the state ever show the keys."""
    spool.start()
    spool.drop("a.zip", seed=1)
    spool.wait_for_event("BACKED_UP")
    way.shut()
    spool.drop("b.zip", seed=2)
    spool.wait_for_event("BACKUP_FAILED")
    told = spool.picture() + str(spool.state())
    assert SECRET_KEY not in told
    assert ACCESS_KEY not in told
