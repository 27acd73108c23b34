"""The words of the house: packages, detail cells, moments."""

from __future__ import annotations

import io
import os
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfwatch.ledger.rows import escape, unescape
from tfwatch.model import (
    FACT_FIELDS,
    VERDICTS,
    DeliveryRecord,
    Event,
    Fact,
    Package,
    Sha256,
    Stage,
    Submission,
    TraceId,
    Verdict,
    parse_rfc3339,
    read_detail,
    rfc3339,
    write_detail,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Any text a str can hold, lone surrogates too: they stand for the undecodable bytes of file names."""

KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
HOSTILE = (
    st.sampled_from(['"', "\\", "=", ";", "; ", " ", "\n", 'a="b" ', "a=b", "; c=d", "\udcff", "\ud83d", "'", "key=1;"])
    | ANY_TEXT
)
MESSAGES = st.lists(HOSTILE, max_size=6).map("".join)


def package(name: str) -> Package:
    return Package(name=name, sha256=Sha256("0" * 64), bytes=1, trace_id=TraceId("t"))


# --- a package's job and version --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "job_id", "version"),
    [
        ("call_v2.zip", "call", "2"),
        ("call_v2.zip".upper(), "CALL_V2", "1"),
        ("call_v2.ZIP", "call", "2"),
        ("call_v2~3.zip", "call", "2"),
        ("call_v1.10.zip", "call", "1.10"),
        ("call.zip", "call", "1"),
        ("call~2.zip", "call", "1"),
        ("call_v.zip", "call_v", "1"),
        ("_v2.zip", "_v2", "1"),
        ("call_v2_v3.zip", "call_v2", "3"),
        ("call_v2 .zip", "call_v2 ", "1"),
        ("two\nlines_v7.zip", "two\nlines", "7"),
        ("call_v\u0663.zip", "call_v\u0663", "1"),
        ("call~\u0663.zip", "call~\u0663", "1"),
        ("~2.zip", "~2", "1"),
        ("a~2~3.zip", "a~2", "1"),
        ("a~b.zip", "a~b", "1"),
        (os.fsdecode(b"\xff\xfe_v4.zip"), os.fsdecode(b"\xff\xfe"), "4"),
    ],
)
def test_job_and_version(name: str, job_id: str, version: str) -> None:
    """`{job}_v{version}.zip` names both; anything else is a job's first version; a trailing `~N` is not part of it."""
    assert (job_id, version) == (package(name).job_id, package(name).version)


@given(raw=st.binary(min_size=1, max_size=251))
def test_every_name_has_a_job(raw: bytes) -> None:
    """No name of any bytes is without a job id and a version."""
    found = package(os.fsdecode(raw) + ".zip")

    assert found.job_id
    assert found.version


@given(job=st.text(min_size=1), version=st.integers(min_value=0), twin=st.none() | st.integers(min_value=2))
def test_job_and_version_are_what_was_written(job: str, version: int, twin: int | None) -> None:
    """Whatever a job is called, its name gives back job and version, also for a twin's name."""
    found = package(f"{job}_v{version}{f'~{twin}' if twin else ''}.zip")

    assert (job, str(version)) == (found.job_id, found.version)


# --- detail cells -----------------------------------------------------------------------------------------------------


@given(message=MESSAGES, facts=st.dictionaries(KEYS, HOSTILE | st.integers() | st.none(), max_size=4))
@example(message="a=b c", facts={})
@example(message="; a=b", facts={})
@example(message="", facts={})
@example(message='x="\\', facts={"was": 'a"b\\'})
@example(message="", facts={"was": ""})
def test_a_detail_is_read_back_exactly(message: str, facts: dict[str, str | int | None]) -> None:
    """Facts and message come back as they went in, whatever they hold."""
    expected = {key: str(value) for key, value in facts.items() if value is not None}

    assert (expected, message) == read_detail(write_detail(message, **facts))


@given(message=MESSAGES, facts=st.dictionaries(KEYS, HOSTILE, max_size=4))
def test_a_detail_survives_the_log(message: str, facts: dict[str, str]) -> None:
    """Written into log.csv and read back, a detail still gives its facts and its message."""
    assert (facts, message) == read_detail(unescape(escape(write_detail(message, **facts))))


@given(message=MESSAGES)
def test_a_service_can_not_forge_facts(message: str) -> None:
    """A message that looks like facts is still a message: nobody outside can say `by=service` for us."""
    assert ({}, message) == read_detail(write_detail(message))


@given(cell=MESSAGES)
def test_any_cell_can_be_read(cell: str) -> None:
    """A hand-written cell never raises; what isn't facts is a message, whole."""
    facts, message = read_detail(cell)

    assert facts or message in (cell, cell.removeprefix("; "))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (write_detail(), ""),
        (write_detail("mended"), "mended"),
        (write_detail("mended", by="service", code=None), "by=service; mended"),
        (write_detail(was="two words.zip"), 'was="two words.zip"'),
        (write_detail("b=c", a=1), "a=1; b=c"),
    ],
)
def test_a_detail_is_plain_to_read(written: str, expected: str) -> None:
    """People read this cell too: bare words stay bare, and the message comes last."""
    assert expected == written


# --- moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2025, 11, 13, 10, 35, 33, 120_999, tzinfo=UTC), "2025-11-13T10:35:33.120Z"),
        (datetime(2025, 11, 13, 7, 35, 33, tzinfo=timezone(timedelta(hours=-3))), "2025-11-13T10:35:33.000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_moment_is_written_in_utc_with_milliseconds(moment: datetime, text: str) -> None:
    """RFC 3339, UTC, three digits, cut and not rounded: a row is never from the future."""
    assert text == rfc3339(moment)


@given(moment=st.datetimes(timezones=st.just(UTC)))
def test_a_moment_is_read_back(moment: datetime) -> None:
    """What was written is read back to the millisecond, and stays the same when written again."""
    back = parse_rfc3339(rfc3339(moment))

    assert moment.replace(microsecond=moment.microsecond // 1000 * 1000) == back
    assert rfc3339(moment) == rfc3339(back)


def test_what_is_no_moment_raises() -> None:
    """A broken moment is an error, not a guess."""
    with pytest.raises(ValueError, match="yesterday"):
        parse_rfc3339("yesterday")


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_a_record_is_its_fact_and_four_more() -> None:
    """Numbering a fact changes nothing in it."""
    fact = Fact(event=Event.MOVED, package="a.zip", from_stage=Stage.OUTBOX, detail="x")
    record = DeliveryRecord.of(fact, seq=7, at=datetime(2025, 1, 1, tzinfo=UTC), exec_id="e", chain="c")

    assert {field.name for field in fields(DeliveryRecord)} == {*FACT_FIELDS, "seq", "at", "exec_id", "chain"}
    assert all(getattr(fact, name) == getattr(record, name) for name in FACT_FIELDS)
    with pytest.raises(FrozenInstanceError):
        record.seq = 8  # type: ignore[misc]


def test_status_words_are_those_of_the_contract() -> None:
    """Every status word has one meaning, and all are written small."""
    expected = {
        Verdict.PENDING: "queued received submitted accepted processing in_progress",
        Verdict.COMPLETED: "delivered completed complete done transcribed",
        Verdict.REFUSED: "rejected refused failed cancelled canceled",
    }
    assert {word: meaning for meaning, words in expected.items() for word in words.split()} == VERDICTS


def test_a_presigned_url_is_not_shown() -> None:
    """Whoever prints a submission doesn't give its URL away."""
    submission = Submission(
        package=package("a.zip"), open_zip=io.BytesIO, idempotency_key="k", maybe_sent=False,
        known_order=lambda order_id: False, stopping=lambda: False, progress=lambda done: None,
        source_url="https://bucket/a?X-Amz-Signature=secret",
    )  # fmt: skip

    assert "secret" not in repr(submission)
