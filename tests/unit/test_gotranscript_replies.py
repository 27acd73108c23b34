"""Reading replies, whatever they hold: pure functions, many inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfwatch.adapters.gotranscript_deliveries import traceparent
from tfwatch.adapters.gotranscript_replies import (
    Reply,
    read_lookup,
    read_receipt,
    read_status,
    refusal,
    retry_after,
    words,
    words_of,
)
from tfwatch.adapters.gotranscript_v4 import read_order, with_reference
from tfwatch.errors import OutcomeUnknown, PermanentError, ServiceError, ServiceFailure, TransientError
from tfwatch.foreign import find_id
from tfwatch.model import VERDICTS, Receipt, StatusReport, Verdict, verdict_of

NOW = datetime(2025, 11, 13, 10, 35, 33, tzinfo=UTC)
SECRET = "key-CANARY-1234"

anything_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(f"see {SECRET}!"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "status", "message", "detail", "error", "items", "reference", "title"]), inner
        )
    ),
    max_leaves=12,
)
anything = st.binary(max_size=200) | anything_json.map(lambda value: json.dumps(value).encode())
headers = st.fixed_dictionaries({}, optional={"retry-after": st.text(max_size=40), "location": st.text(max_size=40)})


def reply_of(code: int, body: object = b"", **headers: str) -> Reply:
    """A reply at `NOW`; anything but bytes becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(code=code, headers=named, body=content, at=NOW, secrets=(SECRET,))


@given(st.integers(100, 999), headers, anything)
def test_any_reply_is_a_receipt_or_a_known_error(code: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever a service answers becomes a value or one of our errors, fit for a log and without our secrets."""
    reply = Reply(code=code, headers=headers, body=body, at=NOW, secrets=(SECRET,))
    for read in (read_receipt, read_order, read_status):
        for text in _said_by(read, reply):
            assert text.isprintable()
            assert SECRET not in text
            assert len(text) <= 600
            text.encode()


def _said_by(read: Callable[[Reply], Receipt | StatusReport], reply: Reply) -> list[str]:
    try:
        outcome = read(reply)
    except ServiceFailure as failure:
        return [failure.message, failure.hint]
    return [outcome.word, outcome.message]


@given(anything)
def test_any_lookup_is_an_order_or_none_or_later(body: bytes) -> None:
    """A lookup's answer is an order, none, or something to try again; never a known order."""
    reply = reply_of(200, body)
    try:
        found = read_lookup(reply, client_reference="f" * 64, known_order=lambda order_id: order_id.isdigit())
    except TransientError:
        return
    assert found is None or not found.order_id.isdigit()


@pytest.mark.parametrize("code", range(100, 600))
def test_every_status_has_its_class(code: int) -> None:
    """The contract's table of statuses, whole."""
    expected: type[ServiceFailure] = TransientError
    if code in (400, 409, 410, 413, 415, 422):
        expected = PermanentError
    elif code < 500 and code not in (408, 425, 429):
        expected = ServiceError
    if 200 <= code < 300:
        expected = OutcomeUnknown
    with pytest.raises(ServiceFailure) as raised:
        read_receipt(reply_of(code))
    assert expected is type(raised.value)
    if expected is ServiceError:
        assert raised.value.hint


@pytest.mark.parametrize("code", range(100, 600))
def test_every_status_of_a_question(code: int) -> None:
    """Asked about an order, no status is a verdict: it is later, or nobody now."""
    with pytest.raises((TransientError, ServiceError)) as raised:
        read_status(reply_of(code))
    if code in (401, 402, 403):
        assert isinstance(raised.value, ServiceError)
    if code == 404:
        assert isinstance(raised.value, TransientError)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"retry_after": "1"}, {}),
        ({}, {"detail": "Idempotency-Key in use"}),
        ({}, {"code": "idempotent_replay_pending"}),
    ],
)
def test_conflicts_that_pass(headers: dict[str, str], body: object) -> None:
    """A 409 that names idempotency or carries Retry-After is tried again."""
    assert isinstance(refusal(reply_of(409, body, **headers)), TransientError)


@pytest.mark.parametrize(
    ("meaning", "said"),
    [
        (Verdict.PENDING, "queued received submitted accepted processing in_progress"),
        (Verdict.COMPLETED, "delivered completed complete done transcribed"),
        (Verdict.REFUSED, "rejected refused failed cancelled canceled"),
    ],
)
def test_status_words(meaning: Verdict, said: str) -> None:
    """The contract's status words, whole, in any case."""
    assert set(said.split()) == {word for word, verdict in VERDICTS.items() if verdict is meaning}
    assert {meaning} == {verdict_of(word.upper()) for word in said.split()}


@pytest.mark.parametrize("value", [None, True, [], {}, 1.5, "", " ", "a\nb", "a\x00", "\ud800", "x" * 256])
def test_what_is_no_id(value: object) -> None:
    """An id is a whole number or one printable line; anything else is passed over for the next key."""
    assert find_id({"id": value, "reference": "r"}, "id", "delivery_id", "reference") == "r"


@given(st.text(max_size=60))
def test_any_retry_after_is_bounded(value: str) -> None:
    """Whatever stands in Retry-After, the wait is none or lies between nothing and a day."""
    seconds = retry_after(reply_of(503, retry_after=value))
    assert seconds is None or 0 <= seconds <= 86_400


@given(st.integers(-100_000, 80_000))
def test_retry_after_dates(seconds: int) -> None:
    """A date is as many seconds as it lies ahead of the reply; none when it has passed."""
    moment = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert max(seconds, 0) == retry_after(reply_of(503, retry_after=moment))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "d", "message": "m", "title": "t"}, "d"),
        ({"title": "t", "message": "m"}, "m"),
        ({"title": "t", "error": {"message": "m"}}, "m"),
        ({"error": {"code": "c1"}, "title": "t"}, "c1"),
        ({"detail": ["a", {"msg": "b"}, 3]}, "a; b; 3"),
        ({"detail": None, "error": "e"}, "e"),
        ({}, "HTTP 422 Unprocessable Entity"),
    ],
)
def test_the_services_own_words(body: object, said: str) -> None:
    """The most telling words come first, wherever a service puts them."""
    assert said == words(reply_of(422, body))


def test_urls_lose_their_queries() -> None:
    """A URL in a message keeps its address and loses its query, where signatures stand."""
    said = words_of("see https://h/p?X-Amz-Signature=abc&y, or (HTTP://h/q?t=1)", reply_of(200))
    assert "see https://h/p?*** or (HTTP://h/q?***" == said


@given(st.text(max_size=50))
def test_any_trace_id_makes_a_traceparent(trace_id: str) -> None:
    """Every trace id, UUID or not, gives a valid W3C traceparent, the same trace each time and a new span."""
    first, second = traceparent(trace_id), traceparent(trace_id)
    assert re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-01", first)
    assert first[:35] == second[:35]
    assert first != second


@pytest.mark.parametrize(
    ("trace_id", "trace"),
    [
        ("0AF76519-16CD-43DD-8448-EB211C80319C", "0af7651916cd43dd8448eb211c80319c"),
        ("job 7", "0c4e2ae1b9f4c4d4c0f2a2b9b6c3c9ee"),
    ],
)
def test_hex_trace_ids_are_kept(trace_id: str, trace: str) -> None:
    """A trace id of 32 hex digits is carried as it is, dashes or not; any other by its hash."""
    kept = traceparent(trace_id)[3:35] == trace
    assert kept == (len(trace_id.replace("-", "")) == 32)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/w", "https://h/w?client_reference=f00"),
        ("https://h/w?", "https://h/w?client_reference=f00"),
        ("https://h:8/w/T?a=%20b&a=+#x", "https://h:8/w/T?a=%20b&a=+&client_reference=f00"),
    ],
)
def test_callback_url_keeps_its_query(url: str, expected: str) -> None:
    """The SHA-256 is added behind the query a callback URL has, which stays as it was."""
    assert expected == with_reference(url, "f00")
