"""Profile `gotranscript-v4`: the service fetches the package from S3; orders cost money, so doubts go to a person."""

from __future__ import annotations

import uuid

import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, moto
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox


@pytest.fixture(autouse=True)
def bucket(sandbox: Sandbox, spool: Spool) -> str:
    """A bucket of the test's own; the service is spoken to by the public API."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    moto("http").client().create_bucket(Bucket=name)
    s3 = {
        "enabled": True,
        "endpoint_url": moto("http").url,
        "bucket": name,
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }
    v4 = {
        "profile": "gotranscript-v4",
        "language": "pt",
        "callback_url": f"{sandbox.url}/nobody?t=CALLBACK-SECRET",
    }
    spool.configure(integrations={"s3": s3, "gotranscript": v4})
    return name


def keys(bucket: str) -> list[str]:
    return [item["Key"] for item in moto("http").client().list_objects_v2(Bucket=bucket).get("Contents", [])]


def submissions(sandbox: Sandbox) -> list[dict[str, object]]:
    requests: list[dict[str, object]] = sandbox.requests()["requests"]  # type: ignore[assignment]
    return [entry for entry in requests if entry["path"] == "/api/v4/transcriptions"]


def test_the_service_fetches_the_package(sandbox: Sandbox, spool: Spool, bucket: str) -> None:
    """Stored in S3 first, then ordered by a presigned URL; the portal got exactly this content, in test mode."""
    spool.start()
    spool.drop("job_v3.zip", seed=2)
    spool.wait_for("submitted", "job_v3.zip")
    (order,) = sandbox.orders()
    accepted = spool.row("ACCEPTED")
    assert accepted["sha256"] == order["sha256"]
    assert ("test", "pt") == (order["mode"], order["language"])
    assert f"client_reference={accepted['sha256']}" in str(order["callback_url"])
    assert order["id"] == accepted["order_id"]
    assert 1 == len(keys(bucket))
    events = spool.events("job_v3.zip")
    assert events.index("BACKED_UP") < events.index("ATTEMPTED") < events.index("ACCEPTED")
    spool.assert_sound()


def test_no_secret_is_told(sandbox: Sandbox, spool: Spool) -> None:
    """Neither log nor journal nor state show the presigned URL, the API token or the callback's own secret."""
    spool.start()
    spool.drop("a.zip", seed=1)
    spool.wait_for("submitted", "a.zip")
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=400, message="Invalid api_token", times=1))
    spool.drop("b.zip", seed=2)
    spool.wait_for_event("DISABLED")
    told = spool.picture() + str(spool.state()) + spool.document()
    for secret in ("X-Amz-Signature", "CALLBACK-SECRET", SECRET_KEY, sandbox.api_key):
        assert secret not in told


def test_an_unknown_outcome_is_left_to_a_person(sandbox: Sandbox, spool: Spool) -> None:
    """An order whose answer was lost is never ordered again by itself: parked, and sent again only when told to."""
    sandbox.set_faults(Fault(kind=FaultKind.RESET, times=1))
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("rejected", "p.zip")
    assert "Nobody knows whether p.zip was delivered" in spool.reason("p.zip")
    assert 1 == len(sandbox.orders()) == len(submissions(sandbox))
    spool.stop()
    spool.start()
    wait_until(lambda: spool.state()["stages"]["rejected"] == 1, "it stays parked after a restart")
    assert 1 == len(submissions(sandbox))
    (spool.root / "rejected" / "p.zip").rename(spool.root / "outbox" / "p.zip")
    spool.wait_for("submitted", "p.zip")
    assert 2 == len(sandbox.orders())


def test_killed_while_ordering_it_asks(sandbox: Sandbox, spool: Spool) -> None:
    """Killed before the answer came: parked at the next start; one order."""
    sandbox.set_faults(Fault(kind=FaultKind.HANG, accept=True))
    spool.start()
    spool.drop("p.zip")
    wait_until(sandbox.orders, "the portal has opened the order")
    spool.kill()
    sandbox.set_faults()
    spool.start()
    spool.wait_for("rejected", "p.zip")
    assert 1 == len(sandbox.orders()) == len(submissions(sandbox))


def test_a_wrong_token_pauses(sandbox: Sandbox, spool: Spool) -> None:
    """A 400 about the token concerns everybody: paused and documented, nothing rejected; lifted, one order."""
    spool.configure(integrations={"gotranscript": {"api_key": "wrong"}})
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("DISABLED")
    wait_until(lambda: "Invalid api_token" in spool.document(), "it is documented")
    assert {"p.zip"} == spool.names("outbox")
    assert set() == spool.names("rejected")
    spool.configure(integrations={"gotranscript": {"api_key": sandbox.api_key}})
    wait_until(lambda: "configuration taken over" in spool.output.read_text(), "the new token is taken over")
    spool.ask("enable", integration=Integration.GOTRANSCRIPT)
    spool.wait_for("submitted", "p.zip")
    assert 1 == len(sandbox.orders())


def test_an_empty_wallet_pauses(sandbox: Sandbox, spool: Spool) -> None:
    """Live orders cost money; without any nobody is served, and nothing is rejected."""
    spool.configure(integrations={"gotranscript": {"mode": "live"}})
    sandbox.set_settings(portal={"wallet": 1.0, "price": 1.0})
    spool.start()
    spool.drop("a.zip", seed=1)
    spool.wait_for("submitted", "a.zip")
    spool.drop("b.zip", seed=2)
    spool.wait_for_event("DISABLED")
    spool.wait_for("outbox", "b.zip")
    assert 1 == len(sandbox.orders())


def test_a_refusal_concerns_that_package_alone(sandbox: Sandbox, spool: Spool) -> None:
    """A 400 about anything else rejects the package with the service's words."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=400, message="Unsupported language pair", times=1))
    spool.start()
    spool.drop("bad.zip", seed=1)
    spool.wait_for("rejected", "bad.zip")
    assert "Unsupported language pair" in spool.reason("bad.zip")
    spool.drop("good.zip", seed=2)
    spool.wait_for("submitted", "good.zip")


def test_without_s3_it_waits(sandbox: Sandbox, spool: Spool) -> None:
    """While the package can't be stored it can't be ordered: it waits in the outbox, and nobody is asked."""
    spool.configure(integrations={"s3": {"bucket": "no-such-bucket-here"}})
    spool.start()
    spool.drop("p.zip")
    spool.wait_for_event("BACKUP_FAILED")
    spool.wait_for("outbox", "p.zip")
    assert [] == submissions(sandbox)
