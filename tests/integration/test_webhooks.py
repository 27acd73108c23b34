"""Webhooks of the real daemon: verdicts that the sandbox's portal sends, and callers who replay, mix up and lie."""

from __future__ import annotations

import itertools
import json
import os
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.callers import SECRET, body_of, call, legacy, standard
from tests.support.daemon import PATIENCE, Spool, wait_until
from tests.support.daemon import spool as make_spool
from tests.support.s3_servers import ACCESS_KEY, moto
from tests.support.s3_servers import SECRET_KEY as S3_SECRET
from tests.support.web import serve, wait_until_served
from tfwatch.model import read_detail
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

TOKEN = "token-CANARY-" + "t" * 20

DEAF_TO_VERDICTS = """
import os, signal
from tfwatch import cli
from tfwatch.delivery import told

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

told.ApplyTold.apply = die
cli.main()
"""
"""The daemon, killed as soon as it would apply what a webhook told: its row is on disk, and nothing has come of it."""


_SEEDS = itertools.count(100)


class Callee:
    """A spool whose daemon serves, and polls so seldom that only webhooks settle anything."""

    def __init__(self, spool: Spool, sandbox: Sandbox) -> None:
        self.spool = spool
        self.sandbox = sandbox
        self.url = serve(spool, requests_per_second=1000)
        self.secrets = spool.home / "webhook_integrations.json"
        self.write({"gotranscript": {"secret": SECRET, "path_token": TOKEN}, "upstream": SECRET})
        spool.configure(integrations={"gotranscript": {"poll_seconds": 3600}})
        sandbox.set_settings(portal={"verdict": "never"})

    def write(self, document: dict[str, Any], mode: int = 0o600) -> None:
        ready = self.secrets.with_suffix(".new")
        ready.write_text(json.dumps(document))
        ready.chmod(mode)
        ready.rename(self.secrets)

    def start(self, **how: Any) -> None:
        self.spool.start(**how)
        wait_until_served(self.url)

    def submit(self, name: str = "job_v1.zip") -> str:
        """Deliver a package up to submitted/, with a content of its own; gives its order id."""
        self.spool.drop(name, seed=next(_SEEDS))
        self.spool.wait_for("submitted", name)
        return self.spool.row("ACCEPTED", name)["order_id"]

    def taken(self, order_id: str) -> bool:
        """Whether the portal's callback about an order was answered as it wants."""
        return any(order["id"] == order_id and order["callback_taken"] for order in self.sandbox.orders())

    def call(self, document: dict[str, Any], **how: Any) -> httpx.Response:
        return call(self.url, document, **how)

    def says(self, document: dict[str, Any], **how: Any) -> str:
        """The status of the answer to a call that is taken."""
        answer = self.call(document, **how)
        assert 200 == answer.status_code, answer.text
        assert {"status", "trace_id", "latency_ms"} == answer.json().keys()
        return str(answer.json()["status"])

    def outcomes(self, order_id: str | None = None) -> list[str]:
        """The outcomes of all WEBHOOK rows, or of those about one order."""
        rows = [row for row in self.spool.rows() if row["event"] == "WEBHOOK"]
        about = [row for row in rows if order_id is None or row["order_id"] == order_id]
        return [read_detail(row["detail"])[0]["outcome"] for row in about]

    def callbacks(self, **portal: Any) -> None:
        """Let the portal send its verdicts."""
        self.sandbox.set_settings(
            portal={"callback_url": f"{self.url}/webhooks/gotranscript", "callback_secret": SECRET, **portal}
        )


@pytest.fixture
def callee(spool: Spool, sandbox: Sandbox) -> Callee:
    return Callee(spool, sandbox)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callee]:
    """One whose daemon runs, for all that take it as it is and leave it so."""
    with Sandbox() as sandbox, make_spool(tmp_path_factory.mktemp("callee"), sandbox.url, sandbox.api_key) as spool:
        made = Callee(spool, sandbox)
        made.start()
        yield made
        assert 0 == spool.stop()
        spool.assert_sound()


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["standard", "legacy"])
def test_the_portals_callbacks_settle_packages(running: Callee, scheme: str) -> None:
    """In both schemes: delivered or rejected without a poll, one row for each, the answer is taken."""
    running.callbacks(callback_scheme=scheme)
    names = f"{scheme}-good_v1.zip", f"{scheme}-bad_v1.zip"
    good, bad = (running.submit(name) for name in names)
    running.sandbox.give_verdict(good, "completed")
    running.sandbox.give_verdict(bad, "failed", "No audio inside.")
    running.spool.wait_for("delivered", names[0])
    running.spool.wait_for("rejected", names[1])
    assert "No audio inside." in running.spool.reason(names[1])
    for order in (good, bad):
        wait_until(lambda order=order: running.taken(order), "the answer was taken")
        assert ["settled"] == running.outcomes(order)


def test_replays_and_contradictions_change_nothing(callee: Callee) -> None:
    """Replayed, late, contradicted: 200 each, told apart in the log; the package stays delivered, also restarted."""
    callee.start()
    order = callee.submit()
    assert "settled" == callee.says({"id": order, "status": "completed"}, message_id="m1")
    callee.spool.wait_for("delivered", "job_v1.zip")
    rows = len(callee.spool.rows())
    assert "replayed" == callee.says({"id": order, "status": "completed"}, message_id="m1")
    assert rows == len(callee.spool.rows())
    assert "late" == callee.says({"id": order, "status": "completed"}, message_id="m2")
    assert "contradicted" == callee.says({"id": order, "status": "failed"}, message_id="m3")
    assert "pending" == callee.says({"id": order, "status": "processing"}, message_id="m4")
    assert 0 == callee.spool.stop()
    (callee.spool.root / ".tfwatch" / "index.sqlite").unlink()
    callee.start()
    for message_id in ("m1", "m2", "m3", "m4"):
        assert "replayed" == callee.says({"id": order, "status": "failed"}, message_id=message_id)
    assert {"job_v1.zip"} == callee.spool.names("delivered")
    assert ["settled", "late", "contradicted", "pending"] == callee.outcomes()
    assert 1 == callee.spool.events().count("COMPLETED")
    assert [1, 1, 1, 1] == counted(callee)


def counted(callee: Callee) -> list[int]:
    """How many calls the figures have of each outcome, as the endpoint says; the file says the same a moment later."""
    names = ("settled", "late", "contradicted", "pending")
    shown = httpx.get(f"{callee.url}/metrics/webhooks").json()["webhooks"]
    file = callee.spool.root / "logs" / "observability.json"
    wait_until(lambda: json.loads(file.read_text())["webhooks"] == shown, "the file says the same")
    return [shown["gotranscript"][name] for name in names]


def test_a_body_is_taken_once_whatever_time_it_bears(running: Callee) -> None:
    """The older headers don't sign the time: the body's hash tells the replay."""
    order = running.submit("body_v1.zip")
    body = body_of({"id": order, "status": "completed"})
    answers = [
        httpx.post(f"{running.url}/webhooks/gotranscript", content=body, headers=legacy(body) | {
            "x-signature-timestamp": str(int(legacy(body)["x-signature-timestamp"]) - off)
        }).json()["status"]
        for off in (0, 60)
    ]  # fmt: skip
    assert ["settled", "replayed"] == answers


def test_a_verdict_before_its_order_is_known_is_kept(callee: Callee) -> None:
    """The portal calls back before its receipt is out: kept on disk over a kill, and applied at ACCEPTED."""
    callee.sandbox.set_faults(Fault(kind=FaultKind.HANG, accept=True))
    callee.start()
    callee.spool.drop("job_v1.zip")
    (order,) = wait_until(callee.sandbox.orders, "the portal has the order")
    assert "kept" == callee.says({"id": order["id"], "status": "completed"})
    callee.spool.kill()
    callee.sandbox.set_faults()
    callee.start()
    callee.spool.wait_for("delivered", "job_v1.zip")
    events = callee.spool.events()
    assert events.index("WEBHOOK") < events.index("ACCEPTED") < events.index("COMPLETED")
    assert 1 == len(callee.sandbox.orders())
    callee.spool.assert_sound()


def test_called_but_not_settled(callee: Callee) -> None:
    """Killed between the WEBHOOK row and the settling: the next start settles it, without the portal's help."""
    callee.start(program=("-c", DEAF_TO_VERDICTS))
    order = callee.submit()
    try:
        callee.call({"id": order, "status": "completed"})
    except httpx.TransportError:
        pass  # it died before it could answer
    assert callee.spool.process is not None
    assert -signal.SIGKILL == callee.spool.process.wait(PATIENCE)
    assert "WEBHOOK" == callee.spool.events()[-1]
    assert {"job_v1.zip"} == callee.spool.names("submitted")
    callee.start()
    callee.spool.wait_for("delivered", "job_v1.zip")
    assert ["settled"] == callee.outcomes()
    callee.spool.assert_sound()


def test_while_the_service_is_switched_off_verdicts_are_taken(running: Callee) -> None:
    """What was said is a fact, whether or not anything is to be sent."""
    order = running.submit("off_v1.zip")
    assert 0 == running.spool.cli("disable", "gotranscript").returncode
    try:
        assert "settled" == running.says({"id": order, "status": "completed"})
        running.spool.wait_for("delivered", "off_v1.zip")
    finally:
        assert 0 == running.spool.cli("enable", "gotranscript").returncode


# --- the public API ---------------------------------------------------------------------------------------------------


@pytest.fixture
def public(callee: Callee) -> Iterator[Callee]:
    """The same with profile `gotranscript-v4`, whose callbacks prove themselves by a token."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    moto("http").client().create_bucket(Bucket=bucket)
    s3 = {"enabled": True, "endpoint_url": moto("http").url, "bucket": bucket}
    v4 = {
        "profile": "gotranscript-v4",
        "language": "pt",
        "callback_url": f"{callee.url}/webhooks/gotranscript/{TOKEN}",
    }
    callee.spool.configure(
        integrations={"s3": {**s3, "access_key": ACCESS_KEY, "secret_key": S3_SECRET}, "gotranscript": v4}
    )
    yield callee
    said = callee.spool.picture() + "".join(
        path.read_text(errors="replace") for path in callee.spool.root.rglob("*") if path.is_file()
    )
    assert TOKEN not in said


def test_the_public_apis_callback_is_answered_ok(public: Callee) -> None:
    """Unsigned, by its token: settled at once; `ok` is the whole answer, so that it is not repeated."""
    public.sandbox.set_settings(portal={"verdict": "delayed", "verdict_delay": 0.2})
    public.start()
    public.spool.drop("job_v1.zip")
    public.spool.wait_for("delivered", "job_v1.zip")
    (order,) = public.sandbox.orders()
    wait_until(lambda: public.sandbox.orders()[0]["callback_taken"], "it was answered `ok`")
    assert order["id"] == public.spool.row("WEBHOOK")["order_id"]
    assert "via=token" in public.spool.row("WEBHOOK")["detail"]


def test_the_public_apis_callback_settles_an_unknown_outcome(public: Callee) -> None:
    """The receipt was lost and the package parked: its callback names the content, so it was accepted after all."""
    public.sandbox.set_settings(portal={"verdict": "delayed", "verdict_delay": 3600})
    public.sandbox.set_faults(Fault(kind=FaultKind.RESET, times=1))
    public.start()
    public.spool.drop("job_v1.zip")
    public.spool.wait_for("rejected", "job_v1.zip")
    (order,) = public.sandbox.orders()
    public.sandbox.give_verdict(str(order["id"]), "completed")
    public.spool.wait_for("delivered", "job_v1.zip")
    assert ["UNKNOWN", "ACCEPTED", "COMPLETED"] == [
        event for event in public.spool.events("job_v1.zip") if event in ("UNKNOWN", "ACCEPTED", "COMPLETED")
    ]
    assert order["id"] == public.spool.row("ACCEPTED")["order_id"]
    assert not (public.spool.root / "rejected" / "job_v1.zip.reason.txt").exists()
    public.spool.wait_for_event("BACKED_UP", "job_v1.zip")
    assert 0 == public.spool.stop()
    public.spool.assert_sound()


# --- who may call -----------------------------------------------------------------------------------------------------


def test_who_is_not_known_learns_nothing(running: Callee) -> None:
    """A bad signature, no signature, an unknown integration, a wrong token: the same 401 to the last octet."""
    order = running.submit("secret_v1.zip")
    body = body_of({"id": order, "status": "completed"})
    wrong = "whsec_" + "A" * 43 + "="
    places = ["gotranscript", "nobody", "%2e%2e%5cetc", "gotranscript/wrong", "nobody/wrong", f"upstream/{TOKEN}"]
    answers = [
        httpx.post(f"{running.url}/webhooks/{place}", content=body, headers=headers)
        for place in places
        for headers in ({}, standard(body, secret=wrong), legacy(body, secret=wrong))
    ]
    assert {401} == {answer.status_code for answer in answers}
    assert 1 == len({answer.content for answer in answers})
    assert 1 == len({tuple(sorted(answer.headers.keys())) for answer in answers})
    assert [] == running.outcomes(order)
    assert "secret_v1.zip" in running.spool.names("submitted")


def test_what_is_too_long_or_makes_no_sense_is_refused(running: Callee) -> None:
    """413 before anything else; a signed body that is no JSON is 400, one row, and stays so."""
    large = b'{"id": "' + b"x" * 65_536 + b'"}'
    assert 413 == call(running.url, large).status_code
    assert 413 == httpx.post(f"{running.url}/webhooks/nobody", content=iter([large, large])).status_code
    assert [400, 400] == [call(running.url, b"no json", message_id="m").status_code for _ in range(2)]
    assert 1 == running.outcomes().count("unreadable")


def test_a_rotation_while_it_runs(running: Callee) -> None:
    """The new secret counts with the next call, the old one until its end; no restart, no call is lost."""
    ran = running.spool.cli("rotate-secret", "upstream", "--json", "--overlap", "1h")
    new = json.loads(ran.stdout)["secret"]
    for secret in (SECRET, new):
        assert "noted" == running.says({"n": secret == new}, integration="upstream", secret=secret)
    ran = running.spool.cli("rotate-secret", "upstream", "--json", "--overlap", "0")
    newest = json.loads(ran.stdout)["secret"]
    answers = [running.call({}, integration="upstream", secret=secret).status_code for secret in (SECRET, new, newest)]
    assert [401, 401, 200] == answers
    # The other integration's secret came through the upgrade of the file.
    assert "noted" == running.says({})


def test_a_file_that_others_can_read_turns_webhooks_off(running: Callee) -> None:
    """An alert and a line in `status`; deliveries go on, and so do webhooks once it is mended."""
    running.secrets.chmod(0o644)
    order = running.submit("open_v1.zip")
    said = {"id": order, "status": "completed"}
    assert 503 == running.call(said).status_code
    wait_until(lambda: any("webhooks are off" in text for text in running.spool.state()["problems"]), "status says so")
    wait_until(lambda: 1 == running.spool.output.read_text().count("so all webhooks are off"), "the journal says so")
    running.secrets.chmod(0o600)
    assert "settled" == running.says(said)
    running.spool.wait_for("delivered", "open_v1.zip")
    wait_until(lambda: "webhooks are on" in running.spool.output.read_text(), "the journal says that it is over")


def test_an_old_secret_is_told_of(callee: Callee) -> None:
    """Older than `webhooks.max_secret_age_days`: it still counts, and `status` names the command."""
    os.utime(callee.secrets, (0, 0))
    callee.start()
    wait_until(
        lambda: any("tfwatch rotate-secret gotranscript" in text for text in callee.spool.state()["problems"]),
        "status says so",
    )
    assert "noted" == callee.says({})


# --- traces -----------------------------------------------------------------------------------------------------------


def test_a_trace_goes_to_the_jobs_next_package(callee: Callee) -> None:
    """Told by a program upstream, kept over a kill: the package, its order and its rows bear it; the next doesn't."""
    callee.start()
    answer = callee.call({"job_id": "job", "trace_id": "trace-from-upstream"}, integration="upstream").json()
    assert ("noted", "trace-from-upstream") == (answer["status"], answer["trace_id"])
    callee.spool.kill()
    callee.start()
    callee.submit("other_v1.zip")
    order = callee.submit("job_v1.zip")
    callee.submit("job_v2.zip")
    traces = {row["package"]: row["trace_id"] for row in callee.spool.rows() if row["event"] == "ACCEPTED"}
    assert "trace-from-upstream" == traces.pop("job_v1.zip")
    assert "trace-from-upstream" not in traces.values()
    (sent,) = [each for each in callee.sandbox.orders() if each["id"] == order]
    assert "trace-from-upstream" == sent["trace_id"]
    assert "trace-from-upstream" == callee.call({"id": order, "status": "completed"}).json()["trace_id"]
    callee.spool.wait_for("delivered", "job_v1.zip")
    told = callee.spool.cli("why", "trace-from-upstream").stdout
    assert "job_v1.zip" in told
    assert "gotranscript called: it settles its package" in told
