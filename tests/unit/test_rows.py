"""One fact as one line of log.csv, and back."""

from __future__ import annotations

import csv
import hashlib
import os
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfwatch.ledger.rows import (
    COLUMNS,
    GENESIS,
    HEADER,
    MAX_ROW_BYTES,
    BadRow,
    body,
    cells,
    chained,
    chained_part,
    decode,
    encode,
    escape,
    unescape,
)
from tfwatch.model import Actor, DeliveryRecord, Event, Fact, Stage, Status

AT = datetime(2025, 11, 13, 10, 35, 33, 120_000, UTC)
EXEC_ID = "20251113T103533Z_MSJTU6"
FACT = Fact(
    event=Event.ACCEPTED,
    package="a.zip",
    sha256="ab" * 32,
    trace_id="t",
    bytes=20,
    from_stage=Stage.CLAIMED,
    to_stage=Stage.SUBMITTED,
    attempt=1,
    order_id="o-1",
    status=Status.SUBMITTED,
    code=201,
    duration_ms=12,
    detail="profile=deliveries",
)

file_names = st.binary(min_size=1, max_size=255).map(os.fsdecode)
texts = st.text(st.characters() | st.sampled_from("'=+-@\\\t\r\n\x7f\x85\u2028x\"\udcff\ud800"), max_size=40)
names = file_names | texts
counts = st.none() | st.integers(0, 2**63)
facts = st.builds(
    Fact,
    event=st.sampled_from(Event),
    package=names,
    sha256=names,
    trace_id=names,
    bytes=counts,
    from_stage=st.none() | st.sampled_from(Stage),
    to_stage=st.none() | st.sampled_from(Stage),
    attempt=counts,
    order_id=names,
    status=st.none() | st.sampled_from(Status),
    code=counts,
    duration_ms=counts,
    actor=st.sampled_from(Actor),
    detail=names,
)
moments = st.datetimes(datetime(1970, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def written(fact: Fact, *, at: datetime = AT, exec_id: str = EXEC_ID) -> tuple[DeliveryRecord, bytes]:
    return encode(fact, seq=1, at=at, exec_id=exec_id, previous_chain=GENESIS)


@given(names)
@example("'=1+1")
@example("''=1+1")
@example("'quoted'")
@example("\\x41")
@example("\udcc2\udc85")  # surrogates that look like the two bytes of U+0085, but are not that character
@example("\ud83d\ude00")
def test_every_text_comes_back(text: str) -> None:
    """Escaping loses nothing, whatever a name holds; so no two texts share a cell."""
    assert text == unescape(escape(text))


@given(names)
def test_an_escaped_text_is_one_harmless_line(text: str) -> None:
    """A cell is one line of valid UTF-8 without control characters, and no spreadsheet takes it for a formula."""
    cell = escape(text)

    assert [cell] == (cell.splitlines() or [""])
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in cell)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    cell.encode()


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("João 電.zip", "João 電.zip"),
        ("a\r\nb", r"a\x0d\x0ab"),
        ("a\\b", r"a\\b"),
        ("\x85\u2028", r"\xc2\x85\xe2\x80\xa8"),
        (os.fsdecode(b"caf\xe9.zip"), r"caf\xe9.zip"),
        ("\ud800", r"\ud800"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@a", "'@a"),
        ("\t=1", r"\x09=1"),
        ("'=1", "''=1"),
        ("'a", "'a"),
    ],
)
def test_cells_look_as_promised(text: str, cell: str) -> None:
    """Bytes that can't stand in a line become \\xNN, a backslash doubles, a formula gets a leading mark."""
    assert cell == escape(text)


@pytest.mark.parametrize("cell", ["\\", "a\\q", "\\x4", "\\xZZ", "\\u0041"])
def test_foreign_escapes_are_refused(cell: str) -> None:
    """A backslash that `escape` never writes is an error, not a guess."""
    with pytest.raises(ValueError, match="backslash"):
        unescape(cell)


@given(facts, moments, names)
def test_every_fact_comes_back(fact: Fact, at: datetime, exec_id: str) -> None:
    """A line read back is the record that was written, milliseconds and all."""
    record, line = written(fact, at=at, exec_id=exec_id)

    assert record == decode(line)
    assert at - record.at < timedelta(milliseconds=1)


@given(facts)
def test_a_line_is_one_csv_row_of_its_cells(fact: Fact) -> None:
    """Python's csv module reads one row from a line: the very cells the sheet gets."""
    record, line = written(fact)

    assert [list(cells(record))] == list(csv.reader([line.decode()], strict=True))
    assert (1, True) == (line.count(b"\n"), line.endswith(b"\r\n"))


@given(facts)
def test_chain_follows_the_contract(fact: Fact) -> None:
    """The chain is the SHA-256 of the previous chain, a newline, and the line up to the comma before the chain."""
    record, line = written(fact)
    row, _, chain = line.removesuffix(b"\r\n").rpartition(b",")

    assert hashlib.sha256(GENESIS.encode() + b"\n" + row).hexdigest() == chain.decode() == record.chain
    assert record.chain == chained(GENESIS, chained_part(line))


def test_header_and_genesis() -> None:
    """The header is the contract's, and the first row chains onto its hash without the line end."""
    header = (
        "seq,at,exec_id,trace_id,event,package,sha256,bytes,from_stage,to_stage,attempt,order_id,status,code,"
        "duration_ms,actor,detail,chain"
    )

    assert header.encode() + b"\r\n" == HEADER
    assert hashlib.sha256(header.encode()).hexdigest() == GENESIS
    assert tuple(header.split(",")) == COLUMNS


def test_quotes_only_where_needed() -> None:
    """A plain row has no quotes at all; a comma or a quote brings RFC 4180's."""
    assert b'"' not in written(FACT)[1]
    assert b',"a, ""b"".zip",' in written(Fact(event=Event.MOVED, package='a, "b".zip'))[1]


def test_moments_are_written_in_utc_milliseconds() -> None:
    """Whatever its zone, a moment stands in UTC, cut (not rounded) to milliseconds."""
    at = datetime(2025, 11, 13, 7, 35, 33, 120_999, timezone(timedelta(hours=-3)))

    record, line = written(FACT, at=at)

    assert AT == record.at
    assert line.startswith(b"1,2025-11-13T10:35:33.120Z," + EXEC_ID.encode())


def test_negative_numbers_are_refused_before_they_are_written() -> None:
    """A number that no reader would take back never reaches the log."""
    with pytest.raises(ValueError, match="-1"):
        body(Fact(event=Event.ACCEPTED, duration_ms=-1))


def test_a_row_too_long_is_refused_before_it_is_written() -> None:
    """Every line stays within the bound that readers rely on, escapes included."""
    _, longest = written(Fact(event=Event.REFUSED, detail="a" * (MAX_ROW_BYTES - 1200)))

    assert len(longest) <= MAX_ROW_BYTES
    with pytest.raises(ValueError, match="too long"):
        body(Fact(event=Event.REFUSED, detail="\n" * (MAX_ROW_BYTES // 3)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"\r\n", b"\n", "line end"),
        (b"\r\n", b"", "line end"),
        (b"a.zip", b"a,zip", "19 columns"),
        (b"a.zip,", b"", "17 columns"),
        (b"a.zip", b'"a.zip', "quoting"),
        (b"a.zip", b'"a".zip', "quoting"),
        (b"a.zip", b"\xe9.zip", "UTF-8"),
        (b"a.zip", b"\\q.zip", "backslash"),
        (b"ACCEPTED", b"Accepted", "'Accepted' is no word"),
        (b",claimed,", b",outbux,", "'outbux' is no word"),
        (b",tfwatch,", b",,", "'' is no word"),
        (b"1,2025", b"01,2025", "'01' is no whole number"),
        (b"1,2025", b",2025", "'' is no whole number"),
        (b",20,", b",+20,", r"'\+20' is no whole number"),
        (b",20,", ",٢,".encode(), "no whole number"),
        (b"33.120Z", b"33.12Z", "no moment"),
        (b"33.120Z", b"33.120+00:00", "no moment"),
        (b"-11-13", b"-02-30", "day is out of range"),
        (b"profile=deliveries,", b"profile=deliveries,x", "19 columns|64 hex"),
    ],
)
def test_lines_of_others_are_refused(old: bytes, new: bytes, message: str) -> None:
    """A line the log can't have written is named bad, and the message says why."""
    _, line = written(FACT)
    assert old in line

    with pytest.raises(BadRow, match=message):
        decode(line.replace(old, new, 1))


@given(st.binary(max_size=300))
def test_garbage_is_a_bad_row(garbage: bytes) -> None:
    """Whatever bytes come, decoding them raises `BadRow` and nothing else."""
    for line in (garbage, garbage + b"\r\n"):
        with pytest.raises(BadRow):
            decode(line)
