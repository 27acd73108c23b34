"""What a body says: the ids, words and traces that callers write, and whatever else may come."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfwatch.delivery.callback import Callback, read_callback
from tfwatch.model import VERDICTS, Verdict

SHA256 = "ab" * 32


def read(**fields: object) -> Callback:
    found = read_callback(json.dumps(fields).encode())
    assert found is not None
    return found


@pytest.mark.parametrize("key", ["id", "delivery_id", "order_id", "reference"])
@pytest.mark.parametrize(("value", "meant"), [("gt-1", "gt-1"), (4711, "4711"), (" 5 ", "5")])
def test_the_order_is_found_under_any_of_its_names(key: str, value: object, meant: str) -> None:
    """Text or number, under any of the four keys."""
    assert (meant,) == read(**{key: value}, status="done").order_ids


def test_several_ids_come_in_the_contracts_order() -> None:
    """`id` is the likeliest; the others are kept, since an `id` may be the message's own."""
    assert ("a", "b", "c") == read(reference="c", order_id="b", id="a", delivery_id="a").order_ids


def test_a_content_is_named_by_its_sha256_alone() -> None:
    """Any other client reference names nothing."""
    assert SHA256 == read(client_reference=SHA256.upper()).client_reference
    assert "" == read(client_reference="mine").client_reference == read(client_reference=5).client_reference


@pytest.mark.parametrize("word", VERDICTS)
def test_each_word_means_what_the_contract_says(word: str) -> None:
    """In any case; unknown words are pending, and without one there is no verdict."""
    assert VERDICTS[word] is read(id=1, status=word.upper()).verdict
    assert Verdict.PENDING is read(id=1, status="thinking").verdict
    assert None is read(id=1).verdict


def test_the_public_apis_callback_is_a_completion() -> None:
    """It has no status: it comes once an order is done, as JSON or as a form, and its address names the content."""
    fields = {"mode": "live", "order_id": 77, "transcription_url": "https://x/y?order_id=77", "language": "pt"}
    form = b"mode=live&order_id=77&transcription_url=https%3A%2F%2Fx%2Fy&language=pt"
    for body in (json.dumps(fields).encode(), form):
        found = read_callback(body, client_reference=SHA256)
        assert found is not None
        assert (("77",), SHA256, Verdict.COMPLETED, True) == (
            found.order_ids, found.client_reference, found.verdict, found.is_public_api,
        )  # fmt: skip


def test_traces_and_jobs() -> None:
    """A trace is one word of plain characters; anything else is no trace."""
    assert ("t-1", "job 7") == (read(trace_id="t-1").trace_id, read(job_id="job 7").job_id)
    for bad in ("", "two words", "é", "x" * 129, 5, None, "a\nb"):
        assert None is read(trace_id=bad).trace_id
    for bad in ("", "a\nb", None, [], "x" * 300):
        assert "" == read(job_id=bad).job_id


def test_the_callers_words_are_one_bounded_line() -> None:
    """Whatever they hold, they fit a row and move no cursor."""
    assert "No audio inside." == read(message="No audio\n\x1b inside.").message
    assert 500 == len(read(detail=["x" * 900]).message)


@given(st.binary(max_size=300))
def test_no_octets_crash_it(body: bytes) -> None:
    """Any body is read, or is none."""
    read_callback(body, client_reference=body.decode("latin-1"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    ["id", "order_id", "status", "client_reference", "trace_id", "job_id", "message", "transcription_url"]
)


@given(st.dictionaries(_KEYS, _JSON))
def test_no_value_crashes_it(fields: dict[str, object]) -> None:
    """Whatever stands under the keys it knows: what is passed on is printable and bounded."""
    found = read_callback(json.dumps(fields).encode())
    assert found is not None
    for text in (*found.order_ids, found.word, found.message, found.trace_id or "", found.job_id):
        assert text.isprintable()
        assert len(text) <= 500


def test_what_is_neither_json_object_nor_form_is_nothing() -> None:
    """An empty body, a list, a bare word, brackets without end, invalid UTF-8."""
    for body in (b"", b"[]", b"null", b"word", b"[" * 100_000, b"\xff\xfe", b'{"a": 1', b"&", b"a&b"):
        assert None is read_callback(body)
