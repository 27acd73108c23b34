"""Any bytes as a file's name: wherever it is written, it is that name and nothing else."""

from __future__ import annotations

import csv
import io
import os
import re
import xml.etree.ElementTree as ElementTree
from datetime import UTC, date, datetime
from email import message_from_bytes
from email.policy import HTTP
from xml.sax.saxutils import escape as xml

from hypothesis import strategies as st

from tests.fuzz.rounds import look_for_a_failure
from tests.support.extent import Extent
from tfwatch.adapters.gotranscript_http import _multipart_head
from tfwatch.delivery.keys import backup_key
from tfwatch.ledger.rows import GENESIS, decode, encode
from tfwatch.model import Event, Fact, Package, Sha256, Stage, Status, TraceId, read_detail, write_detail
from tfwatch.spool.names import counts, free_name, printable, reason_name

_PIECES = (
    *(
        b"=",
        b"+",
        b"-",
        b"@",
        b"'",
        b'"',
        b",",
        b";",
        b"\r",
        b"\n",
        b"\t",
        b"\x1b[31m",
        b"\\",
        b"%0d%0a",
        b"..",
        b"~2",
    ),
    *("\u202e\u2028\u0085\ufeff\ufffd".encode(), b"\xff", b"\xed\xa0\x80", "é".encode(), b".reason.txt", b"-rf", b"--"),
    *(b"filename=", b"Content-Type: ", b"PACKAGE=x", b"<script>", b"${x}", b"{0}", b"%s", b"[bold]", b"_v1"),
)
stems = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=30), min_size=1, max_size=12).map(
    lambda parts: b"".join(parts).replace(b"\0", b"").replace(b"/", b"")[:251]
)


def test_a_name_is_nothing_but_a_name(extent: Extent) -> None:
    """In the log, the sheet, a backup's key, a request's head, a reason's name, on a terminal; and back it is whole."""
    longest, names = 0, 0

    def check(stem: bytes) -> None:
        nonlocal longest, names
        name = os.fsdecode(stem + b".zip")
        if not counts(name):
            return
        longest, names = max(longest, len(stem) + 4), names + 1
        in_the_log(name)
        in_a_key(name)
        in_a_request(name)
        shown = printable(name)
        assert shown.isprintable() and len(shown.splitlines()) == 1 and shown.encode()  # noqa: PT018  one thought
        for derived in (reason_name(name), free_name(name, lambda candidate: candidate == name)):
            assert 255 >= len(os.fsencode(derived))
            assert not {"/", "\0"} & set(derived)
        assert counts(free_name(name, lambda candidate: candidate == name))

    checked = look_for_a_failure(extent, stems, check)
    assert names > checked / 2
    print(f"\n{names:,} names of up to {longest} bytes; seed {extent.seed}")


def in_the_log(name: str) -> None:
    fact = Fact(
        event=Event.ATTEMPTED, package=name, sha256="0" * 64, trace_id="t", bytes=1, from_stage=Stage.OUTBOX,
        to_stage=Stage.CLAIMED, status=Status.SENDING, detail=write_detail(f"as {name}", dropped=name, was=name),
    )  # fmt: skip
    _, line = encode(fact, seq=1, at=datetime(2025, 1, 1, tzinfo=UTC), exec_id="x", previous_chain=GENESIS)
    (row,) = csv.reader(io.StringIO(line.decode(), newline=""), strict=True)
    assert 18 == len(row)
    assert not any(re.match(r"[=+\-@\t\r]", cell) for cell in row), row
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", line.removesuffix(b"\r\n").decode())
    record = decode(line)
    assert name == record.package
    facts, message = read_detail(record.detail)
    assert (name, name, f"as {name}") == (facts["dropped"], facts["was"], message)


def in_a_key(name: str) -> None:
    package = Package(name=name, sha256=Sha256("0" * 64), bytes=1, trace_id=TraceId("t"))
    key = backup_key("tf/", date(2025, 1, 1), package)
    assert key.startswith("tf/2025/01/01/000000000000-")
    assert 1024 >= len(key.encode())
    assert 4 == key.count("/")
    assert ".." not in key.split("/")
    assert key == ElementTree.fromstring(f"<Key>{xml(key)}</Key>").text


def in_a_request(name: str) -> None:
    head = _multipart_head("boundary", {"job_id": "1"}, name)
    plain = _multipart_head("boundary", {"job_id": "1"}, "a.zip")
    assert plain.count(b"\n") == head.count(b"\n")
    assert plain.count(b"\r") == head.count(b"\r")
    headers = head.split(b"--boundary\r\n")[2]
    part = message_from_bytes(headers, policy=HTTP)
    assert ["Content-Disposition", "Content-Type"] == part.keys()
    assert 4 == headers.count(b'"')
