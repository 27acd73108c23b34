"""What the service answers, and what becomes of the package: every class of CONTRACT §6, by the portal's own list."""

from __future__ import annotations

import hashlib
from email import message_from_bytes
from email.message import Message
from itertools import pairwise
from pathlib import Path

from tests.support.daemon import Spool, wait_until, zip_bytes
from tests.support.daemon import spool as make_spool
from tests.support.http import ScriptedServer, Seen, Step, reply
from tfwatch.model import Integration
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import VerdictWhen

REFUSALS = (400, 409, 410, 413, 415, 422)
PAUSES = (301, 307, 401, 402, 403, 404, 405, 418)
PASSING = (408, 425, 429, 500, 502, 503, 504)


def status(code: int, *, times: int | None = 1, target: Target = Target.SUBMIT, **more: str | int) -> Fault:
    return Fault(kind=FaultKind.STATUS, target=target, status=code, times=times, **more)  # type: ignore[arg-type]


def parts_of(seen: Seen) -> dict[str, Message]:
    """The parts of a multipart form by name."""
    head = f"Content-Type: {seen.headers['content-type']}\r\n\r\n".encode()
    form = message_from_bytes(head + bytes(seen.body))
    return {str(part.get_param("name", header="content-disposition")): part for part in form.get_payload()}  # type: ignore[union-attr,misc]


def test_the_request_is_the_contracts_letter_by_letter(tmp_path: Path) -> None:
    """One POST of multipart/form-data with exactly the fields and headers of CONTRACT §6."""
    accepted = Step(send=reply(201, {"id": "gt-1", "status": "completed"}))
    with ScriptedServer(accepted) as server, make_spool(tmp_path, server.url, "key-1234") as spool:
        spool.start()
        spool.drop("interview 7_v12.zip", seed=3)
        spool.wait_for("delivered", "interview 7_v12.zip")
    (seen,) = server.seen
    content = zip_bytes(seed=3)
    sha256 = hashlib.sha256(content).hexdigest()
    trace_id = spool.row("ACCEPTED")["trace_id"]
    parts = parts_of(seen)
    assert ("POST", "/deliveries") == (seen.method, seen.target)
    assert "Bearer key-1234" == seen.headers["authorization"]
    assert f'"{sha256}"' == seen.headers["idempotency-key"]
    assert trace_id in seen.headers["traceparent"]
    assert "transfer-encoding" not in seen.headers
    fields = {name: part.get_payload() for name, part in parts.items() if name != "package"}
    expected = {
        "job_id": "interview 7",
        "version": "12",
        "sha256": sha256,
        "client_reference": sha256,
        "meta[trace_id]": trace_id,
    }
    assert expected == fields
    package = parts["package"]
    assert ("application/zip", "interview 7_v12.zip") == (package.get_content_type(), package.get_filename())
    assert content == package.get_payload(decode=True)


def test_the_order_at_the_portal_is_the_package(sandbox: Sandbox, spool: Spool) -> None:
    """One package is one order with its content, name and trace, and the log has that order's id and code."""
    sandbox.set_settings(portal={"accepted_status": 202})
    spool.start()
    spool.drop("job7_v2.zip", seed=1)
    spool.wait_for("delivered", "job7_v2.zip")
    (order,) = sandbox.orders()
    accepted = spool.row("ACCEPTED")
    assert hashlib.sha256(zip_bytes(seed=1)).hexdigest() == order["sha256"] == accepted["sha256"]
    assert ("job7", "2", "job7_v2.zip") == (order["job_id"], order["version"], order["filename"])
    assert accepted["trace_id"] == order["trace_id"]
    assert (order["id"], "202", "1") == (accepted["order_id"], accepted["code"], accepted["attempt"])
    assert ["ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events("job7_v2.zip")
    assert order["id"] == spool.row("COMPLETED")["order_id"]
    spool.assert_sound()


def test_a_refusal_concerns_that_package_alone(sandbox: Sandbox, spool: Spool) -> None:
    """400, 409, 410, 413, 415 and 422 reject that one package, with the service's own words; the next one goes on."""
    spool.start()
    for code in REFUSALS:
        name = f"refused{code}.zip"
        sandbox.set_faults(status(code, message=f"Track {code} has no sound."))
        spool.drop(name, seed=code)
        spool.wait_for("rejected", name)
        assert ["ATTEMPTED", "REFUSED"] == spool.events(name), code
        row = spool.row("REFUSED", name)
        assert (str(code), "rejected", "rejected") == (row["code"], row["to_stage"], row["status"])
        assert f"Track {code} has no sound." in row["detail"]
        assert f"Track {code} has no sound." in spool.reason(name)
    assert [] == sandbox.orders()
    spool.drop("good.zip", seed=1)
    spool.wait_for("delivered", "good.zip")
    assert "DISABLED" not in spool.events()
    assert "ROLLBACK" not in spool.events()
    spool.assert_sound()


def test_a_service_that_serves_nobody_pauses_everything(sandbox: Sandbox, spool: Spool) -> None:
    """3xx, 401, 402, 403, 404, 405 and other 4xx pause the integration: nothing is rejected, and it is documented."""
    spool.start()
    for number, code in enumerate(PAUSES, start=1):
        name = f"paused{code}.zip"
        sandbox.set_faults(status(code, message=f"No service, reason {code}."))
        spool.drop(name, seed=code)
        spool.wait_for_event("DISABLED", count=number)
        wait_until(lambda number=number: spool.document().count("## Pause") == number, f"a document for {code}")
        assert {name} == spool.names("outbox"), spool.picture()
        assert ["ATTEMPTED", "DEFERRED"] == spool.events(name)
        assert number - 1 == len(sandbox.orders())
        assert str(code) == spool.row("DEFERRED", name)["code"]
        assert f"No service, reason {code}." in spool.document()
        assert name in spool.document()
        spool.ask("enable", integration=Integration.GOTRANSCRIPT)
        spool.wait_for("delivered", name)
    assert set() == spool.names("rejected")
    assert len(PAUSES) == len(sandbox.orders())
    spool.assert_sound()


def test_a_passing_trouble_is_tried_again_within_the_attempt(sandbox: Sandbox, spool: Spool) -> None:
    """408, 425, 429 and 5xx are tried again at once, under the same key: one attempt, two tries, one order."""
    spool.start()
    for number, code in enumerate(PASSING, start=1):
        name = f"again{code}.zip"
        sandbox.set_faults(status(code))
        spool.drop(name, seed=code)
        spool.wait_for("delivered", name)
        assert ["ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events(name)
        assert "2" == spool.row("ACCEPTED", name)["attempt"]
        assert number == len(sandbox.orders())


def test_retry_after_is_obeyed(sandbox: Sandbox, spool: Spool) -> None:
    """A 429 with Retry-After keeps everybody waiting for that long, in the outbox; then all of it is delivered once."""
    sandbox.set_faults(status(429, times=2, retry_after=1))
    spool.start()
    spool.drop("first.zip", seed=1)
    spool.wait_for_event("DEFERRED", "first.zip")
    spool.drop("second.zip", seed=2)
    spool.wait_for("delivered", "first.zip", "second.zip")
    # Whose turn it is after the wait is nobody's promise: the second 429 may be the first package's as well.
    row = next(row for row in spool.rows("first.zip") if row["event"] == "DEFERRED")
    assert ("429", "1", "outbox", "waiting") == (row["code"], row["attempt"], row["to_stage"], row["status"])
    moments = [entry["monotonic"] for entry in posts(sandbox)]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert all(gap >= 0.95 for gap in gaps[:2]), gaps
    assert {"first.zip", "second.zip"} == {order["filename"] for order in sandbox.orders()}
    assert 2 == len(sandbox.orders())


def test_a_long_retry_after_ends_the_attempt(sandbox: Sandbox, spool: Spool) -> None:
    """Asked to wait for ten minutes, it waits in the outbox instead of in a lane, and asks nobody meanwhile."""
    sandbox.set_faults(status(503, times=None, retry_after=600))
    spool.start()
    spool.drop("later.zip")
    spool.wait_for_event("DEFERRED", "later.zip")
    wait_until(lambda: spool.state()["integrations"]["gotranscript"]["state"] == "waiting", "the state says so")
    spool.drop("other.zip", seed=2)
    wait_until(lambda: spool.state()["stages"]["outbox"] == 2, "both wait in the outbox")
    assert 1 == len(posts(sandbox))
    assert [] == sandbox.orders()


def test_a_deferred_package_is_delivered_later(sandbox: Sandbox, spool: Spool) -> None:
    """When every try of an attempt failed, the package waits in the outbox, and the next attempt delivers it once."""
    sandbox.set_faults(status(503, times=2))
    spool.start()
    spool.drop("patient.zip")
    spool.wait_for_event("DEFERRED", "patient.zip")
    spool.wait_for("outbox", "patient.zip")
    spool.wait_for("delivered", "patient.zip")
    assert ["ATTEMPTED", "DEFERRED", "ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events("patient.zip")
    assert ["1", "2"] == [row["attempt"] for row in spool.rows("patient.zip") if row["event"] == "ATTEMPTED"]
    (order,) = sandbox.orders()
    assert f'"{order["sha256"]}"' == order["idempotency_key"]
    spool.assert_sound()


def test_a_final_word_at_once_is_settled_at_once(sandbox: Sandbox, spool: Spool) -> None:
    """A 2xx that says `completed` or `rejected` right away is ACCEPTED, and then settled, without asking again."""
    spool.start()
    for code in (200, 201, 202):
        sandbox.set_settings(portal={"verdict": VerdictWhen.IMMEDIATE, "accepted_status": code})
        good, bad = f"quick{code}.zip", f"reject{code}.zip"
        spool.drop(good, seed=code)
        spool.drop(bad, seed=10 * code)
        spool.wait_for("delivered", good)
        spool.wait_for("rejected", bad)
        assert ["ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events(good)
        assert ["ATTEMPTED", "ACCEPTED", "REFUSED"] == spool.events(bad)
        assert "The audio could not be used." in spool.reason(bad)
    assert 6 == len(sandbox.orders())
    assert {"POST": 6} == sandbox.requests()["by_method"]


def test_a_verdict_may_refuse_later(sandbox: Sandbox, spool: Spool) -> None:
    """An accepted order that is refused afterwards brings its package to rejected/, with the service's words."""
    sandbox.set_settings(portal={"verdict": VerdictWhen.NEVER})
    spool.start()
    spool.drop("late.zip")
    spool.wait_for("submitted", "late.zip")
    (order,) = sandbox.orders()
    sandbox.give_verdict(str(order["id"]), "failed", "The speakers can't be understood.")
    spool.wait_for("rejected", "late.zip")
    row = spool.row("REFUSED", "late.zip")
    assert ("submitted", "rejected", order["id"]) == (row["from_stage"], row["to_stage"], row["order_id"])
    assert "The speakers can't be understood." in spool.reason("late.zip")
    assert str(order["id"]) in spool.reason("late.zip")


def test_what_was_refused_may_be_sent_again_under_a_new_key(sandbox: Sandbox, spool: Spool) -> None:
    """`mv rejected outbox` after a refusal is a new try under the next idempotency key."""
    sandbox.set_settings(portal={"verdict": VerdictWhen.NEVER})
    spool.start()
    spool.drop("again.zip")
    spool.wait_for("submitted", "again.zip")
    sandbox.give_verdict(str(sandbox.orders()[0]["id"]), "rejected")
    spool.wait_for("rejected", "again.zip")
    (spool.root / "rejected" / "again.zip").rename(spool.root / "outbox" / "again.zip")
    spool.wait_for("submitted", "again.zip")
    first, second = sandbox.orders()
    sha256 = first["sha256"]
    assert [f'"{sha256}"', f'"{sha256}-2"'] == [first["idempotency_key"], second["idempotency_key"]]
    assert "operator" == spool.row("REQUEUED")["actor"]
    wait_until(lambda: not list((spool.root / "rejected").iterdir()), "the reason file goes with its ZIP")


def test_a_404_while_polling_is_no_verdict(sandbox: Sandbox, spool: Spool) -> None:
    """An order that the portal doesn't find for a while stays submitted, and is asked about until it does."""
    sandbox.set_faults(status(404, times=2, target=Target.STATUS), status(500, times=1, target=Target.STATUS))
    spool.start()
    spool.drop("patience.zip")
    spool.wait_for("delivered", "patience.zip")
    assert ["ATTEMPTED", "ACCEPTED", "COMPLETED"] == spool.events("patience.zip")


def test_an_unknown_word_is_pending(sandbox: Sandbox, spool: Spool) -> None:
    """A status word the contract doesn't know keeps the package in submitted/, with one warning."""
    sandbox.set_settings(portal={"verdict": VerdictWhen.NEVER, "accepted_word": "pondering"})
    spool.start()
    spool.drop("strange.zip")
    spool.wait_for("submitted", "strange.zip")
    wait_until(lambda: sandbox.requests()["by_method"].get("GET", 0) >= 3, "it is asked about again and again")
    assert ["ATTEMPTED", "ACCEPTED"] == spool.events("strange.zip")
    assert 1 == spool.output.read_text().count("'pondering'")
    sandbox.give_verdict(str(sandbox.orders()[0]["id"]), "Transcribed")
    spool.wait_for("delivered", "strange.zip")


def test_many_at_once_are_one_order_each(sandbox: Sandbox, spool: Spool) -> None:
    """Thirty packages through a portal that fails every third request in some way are thirty orders."""
    sandbox.set_faults(
        status(503, times=None, probability=0.15),  # type: ignore[arg-type]
        Fault(kind=FaultKind.RESET, probability=0.1),
        Fault(kind=FaultKind.GARBAGE, probability=0.1),
    )
    spool.configure(integrations={"gotranscript": {"retry": {"attempts": 8}}})
    spool.start()
    names = {f"many{number}.zip" for number in range(30)}
    for number, name in enumerate(sorted(names)):
        spool.drop(name, seed=number)
    spool.wait_for("delivered", *names)
    assert sorted(names) == sorted(str(order["filename"]) for order in sandbox.orders())
    spool.assert_sound()


def posts(sandbox: Sandbox) -> list[dict[str, object]]:
    """The submissions the portal saw, oldest first."""
    return [entry for entry in sandbox.requests()["requests"] if entry["method"] == "POST"]  # type: ignore[attr-defined]
