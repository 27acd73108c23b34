"""The transcription adapter over real HTTP: what it sends, and what it makes of GoTranscript's replies."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from python_multipart import parse_form

from tests.support.gotranscript import (
    ACCEPTED,
    API_KEY,
    LOST,
    SOURCE_URL,
    Make,
    Sleeper,
    clients,
    everything_said_by,
    wait_until,
)
from tests.support.http import ScriptedServer, Seen, Step, reply
from tests.support.submissions import TRACE, submission_of
from tfwatch import __version__
from tfwatch.adapters.gotranscript import GotranscriptSettings
from tfwatch.errors import (
    ServiceError,
    ServiceFailure,
    TransientError,
)
from tfwatch.model import Destination, OrderId, Profile, Receipt, Verdict

MOCKS = Path(__file__).parent / "mocks" / "gotranscript"


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
def client(sleeper: Sleeper) -> Iterator[Make]:
    with clients(sleeper) as make:
        yield make


# --- replies, one file each -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mock", sorted(MOCKS.glob("*.json")), ids=lambda path: path.stem)
def test_reply(mock: Path, client: Make) -> None:
    """Every reply on file becomes what the file expects, without a secret in it."""
    case = json.loads(mock.read_text(encoding="utf-8"))
    said = case["reply"]
    body = said["body"].encode() if isinstance(said["body"], str) else json.dumps(said["body"]).encode()
    answer = Step(send=reply(said["status"], body, **said["headers"]))
    script = [LOST, answer] if case["request"] == "lookup" else [answer]
    if case["expect"]["outcome"] == "None":
        script.append(ACCEPTED)
    with ScriptedServer(*script) as server:
        outcome = _outcome_of(case, client, server.url)
    _assert_expected(case["expect"], outcome)
    assert "CANARY" not in everything_said_by(outcome)


def _outcome_of(case: Mapping[str, Any], client: Make, url: str) -> object:
    profile = Profile(case["profile"])
    attempts = 2 if case["request"] == "lookup" else 1
    port = client(url, profile=profile, attempts=attempts, on_unknown="lookup", language="pt")
    try:
        if case["request"] == "status":
            return port.fetch_status(OrderId("o-1"), Destination(profile=profile, base_url=url))
        return port.submit_package(submission_of(known=("known-1",), source_url=SOURCE_URL))
    except ServiceFailure as failure:
        return failure


def _assert_expected(expected: Mapping[str, Any], outcome: object) -> None:
    if expected["outcome"] == "None":
        assert isinstance(outcome, Receipt)
        assert "gt-1" == outcome.order_id, "the lookup found nothing, so the package was sent again"
        return
    assert expected["outcome"] == type(outcome).__name__
    for name, value in expected.items():
        if name == "hint":
            assert value in outcome.hint  # type: ignore[attr-defined]
        elif name != "outcome":
            assert value == getattr(outcome, name), name


# --- the request ------------------------------------------------------------------------------------------------------


def _parts(seen: Seen) -> tuple[dict[str, bytes], dict[str, Any]]:
    fields: dict[str, bytes] = {}
    files: dict[str, Any] = {}

    def on_field(field: Any) -> None:
        fields[field.field_name.decode()] = field.value

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        files[file.field_name.decode()] = (file.file_name, file.file_object.read())

    headers = {"Content-Type": seen.headers["content-type"].encode(), "Content-Length": str(seen.length).encode()}
    parse_form(headers, io.BytesIO(bytes(seen.body)), on_field, on_file)
    return fields, files


def test_submission_as_the_contract_has_it(client: Make) -> None:
    """Fields, file and headers of a submission are those of the contract, and its length is announced."""
    with ScriptedServer(ACCEPTED) as server:
        submission = submission_of(b"PK\x03\x04 \r\n--x--", name="job-7_v2~3.zip", key="abc-2")
        client(server.url).submit_package(submission)
    (seen,) = server.seen
    fields, files = _parts(seen)
    sha256 = submission.package.sha256.encode()
    assert ("POST", "/deliveries") == (seen.method, seen.target)
    assert {
        "job_id": b"job-7",
        "version": b"2",
        "sha256": sha256,
        "client_reference": sha256,
        "meta[trace_id]": TRACE.encode(),
    } == fields
    assert {"package": (b"job-7_v2~3.zip", b"PK\x03\x04 \r\n--x--")} == files
    assert b"Content-Type: application/zip\r\n" in seen.body
    assert f"Bearer {API_KEY}" == seen.headers["authorization"]
    assert '"abc-2"' == seen.headers["idempotency-key"]
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", seen.headers["traceparent"])
    assert f"tfwatch/{__version__}" == seen.headers["user-agent"]
    assert "transfer-encoding" not in seen.headers
    assert str(seen.length) == seen.headers["content-length"]


@pytest.mark.parametrize(
    "name",
    [
        'a"; filename="evil.exe.zip',
        "two\r\nX-Injected: 1\r\n\r\nlines.zip",
        "r\udce9sum\udce9.zip",
        "日本 ção.zip",
        "nul\x00 del\x7f esc\x1b.zip",
        ".zip",
    ],
)
def test_hostile_names_stay_inside_their_header(client: Make, name: str) -> None:
    """Quotes, line breaks and undecodable bytes in a name change neither the form nor the file."""
    with ScriptedServer(ACCEPTED) as server:
        client(server.url).submit_package(submission_of(b"content", name=name))
    fields, files = _parts(server.seen[0])
    assert {"job_id", "version", "sha256", "client_reference", "meta[trace_id]"} == set(fields)
    assert ["package"] == list(files)
    assert b"content" == files["package"][1]
    assert b"\r" not in files["package"][0]


@pytest.mark.parametrize(
    ("order_id", "target"),
    [
        ("gt-1", "/api/deliveries/gt-1"),
        ("a/b?c=d#e%41", "/api/deliveries/a%2Fb%3Fc%3Dd%23e%2541"),
        ("..", "/api/deliveries/%2E%2E"),
        ("é ü", "/api/deliveries/%C3%A9%20%C3%BC"),
    ],
)
def test_order_id_is_one_path_segment(client: Make, order_id: str, target: str) -> None:
    """Whatever characters an order id holds, it is asked about as one segment, at the address that accepted it."""
    with ScriptedServer(Step(send=reply(200, {"status": "done"}))) as server:
        elsewhere = Destination(profile=Profile.DELIVERIES, base_url=f"{server.url}/api")
        report = client("http://127.0.0.1:1").fetch_status(OrderId(order_id), elsewhere)
    assert Verdict.COMPLETED == report.verdict
    assert [target] == [seen.target for seen in server.seen]


def test_v4_sends_a_form(client: Make) -> None:
    """Profile gotranscript-v4 sends the documented form; its callback carries the SHA-256 beside its own query."""
    with ScriptedServer(Step(send=reply(200, {"order_id": 9}))) as server:
        port = client(
            f"{server.url}/",
            profile=Profile.GOTRANSCRIPT_V4,
            mode="live",
            language="pt",
            callback_url="https://h.example.org/w/TOKEN?a=b%20c",
        )
        submission = submission_of(source_url=SOURCE_URL)
        receipt = port.submit_package(submission)
    (seen,) = server.seen
    fields = dict(parse_qsl(seen.body.decode(), strict_parsing=True))
    assert "/api/v4/transcriptions" == seen.target
    assert {
        "api_token": API_KEY,
        "mode": "live",
        "url": SOURCE_URL,
        "language": "pt",
        "callback_url": f"https://h.example.org/w/TOKEN?a=b%20c&client_reference={submission.package.sha256}",
    } == fields
    assert "9" == receipt.order_id
    assert port.needs_source_url
    assert Verdict.PENDING == port.fetch_status(receipt.order_id, port.destination).verdict
    assert 1 == len(server.seen), "there is no status to ask for"


# --- secrets and surroundings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("api_key", ["key CANARY", "key-CANARY\r\nX: y", "kéy-CANARY", ""])
def test_unusable_keys_are_named_not_shown(client: Make, api_key: str) -> None:
    """A key that can't stand in a header pauses the service; its characters appear nowhere, nor does a request."""
    with ScriptedServer(ACCEPTED) as server, pytest.raises(ServiceError) as raised:
        client(server.url, api_key=api_key).submit_package(submission_of())
    assert [] == server.seen
    assert "CANARY" not in everything_said_by(raised.value)


def test_reprs_hide_secrets() -> None:
    """Neither settings nor submissions show a key, a callback token or a presigned URL."""
    settings = GotranscriptSettings(
        profile=Profile.GOTRANSCRIPT_V4, base_url="https://x", api_key=API_KEY, callback_url="https://x/CANARY"
    )
    assert "CANARY" not in repr(settings) + repr(submission_of(source_url=SOURCE_URL))


def test_proxy_of_the_environment(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment names a proxy, the service is reached through it; no_proxy is heeded."""
    with ScriptedServer(ACCEPTED) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "direct.invalid")
        client("http://service.invalid").submit_package(submission_of())
        with pytest.raises(TransientError):
            client("http://direct.invalid", attempts=1).submit_package(submission_of())
    assert ["http://service.invalid/deliveries"] == [seen.target for seen in proxy.seen]


def test_connections_are_kept(client: Make) -> None:
    """Several requests share one connection: a server that serves only one still serves them all."""
    with ScriptedServer(ACCEPTED) as server:
        port = client(server.url, max_connections=1, timeout_seconds=2)
        receipts = [port.submit_package(submission_of(f"{number}".encode())) for number in range(5)]
    assert [1] * 5 == [receipt.tries for receipt in receipts]


def test_dropped_idle_connection_is_replaced(client: Make) -> None:
    """A kept connection that the service closed meanwhile does not cost an unknown outcome."""
    once = Step(send=reply(201, {"id": "gt-1"}), then="close")
    with ScriptedServer(once) as server:
        port = client(server.url, attempts=1)
        for number in range(5):
            port.submit_package(submission_of(f"{number}".encode()))
            wait_until(lambda: server.closed > number)  # noqa: B023  called at once
    assert 5 == len(server.seen)
