"""The ZIP reader, from outside: what is a whole ZIP, and what its central directory must be."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.zips import (
    SAMPLE,
    STORED,
    Member,
    contents,
    flaw,
    handmade,
    opened,
    peak_bytes,
    python_zip,
    structure,
    why_unfinished,
    with_zip64_end,
)
from tfwatch.spool.zipflaws import Unfinished, Unsound, show
from tfwatch.spool.zipformat import Directory, Entry, check_structure, walk

# --- whole ZIPs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("comment", [b"", b"x", b"PK\5\6", b"x" * 0xFFFF, b"PK\5\6" * 16000])
def test_comments_reach_the_end_of_the_file(comment: bytes) -> None:
    """An archive comment of any length is fine, even if it holds the signature of an end record."""
    assert len(SAMPLE) == structure(python_zip(comment=comment)).entries


def test_a_fake_end_record_in_the_comment_is_not_believed() -> None:
    """A comment that ends like an end record, or like a whole ZIP, does not hide the real one."""
    fake = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 46, 0, 0)

    assert len(SAMPLE) == structure(python_zip(comment=b"see " + fake)).entries
    assert len(SAMPLE) == structure(python_zip(comment=python_zip(STORED))).entries


def test_an_archive_without_entries_is_whole() -> None:
    """No entries is a finished structure: whether it may be delivered is another question."""
    assert [Directory(offset=0, size=0, entries=0)] * 2 == [
        structure(handmade()),
        structure(with_zip64_end(handmade())),
    ]


def test_exactly_65535_entries_need_no_zip64() -> None:
    """A count that looks like “see ZIP64” is taken as it is when there is no ZIP64 record, as zipfile writes it."""
    many = [Member(name=b"%d" % n, data=b"") for n in range(0xFFFF)]

    assert 0xFFFF == len(contents(handmade(*many)))


def test_zip64_end_record() -> None:
    """A ZIP64 end record is followed, also with an extensible sector after it."""
    plain = handmade(Member())

    assert structure(plain) == structure(with_zip64_end(plain)) == structure(with_zip64_end(plain, b"x" * 99))


# --- not whole (yet) --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(python_zip(), id="deflated"),
        pytest.param(python_zip(STORED, comment=b"with a comment"), id="comment"),
        pytest.param(python_zip(zip64=True, stream=True), id="descriptors"),
        pytest.param(with_zip64_end(handmade(Member(), Member(name=b"b"))), id="zip64"),
        pytest.param(handmade(Member(name=b"inner.zip", data=python_zip(STORED)), Member(name=b"b")), id="inner ZIP"),
        pytest.param(handmade(), id="no entries"),
    ],
)
def test_every_cut_is_unfinished(data: bytes) -> None:
    """However many bytes are missing at the end, the file is not taken for a whole ZIP."""
    with opened(data) as fd:
        for size in reversed(range(len(data))):
            os.ftruncate(fd, size)
            with pytest.raises(Unfinished):
                check_structure(fd, size)


def test_a_half_written_zip_that_ends_in_a_stored_inner_zip() -> None:
    """zipfile takes this for a ZIP, since a whole one stands at its end; it is unfinished."""
    outer = handmade(Member(name=b"a"), Member(name=b"inner.zip", data=python_zip()), Member(name=b"c"))
    cut = outer[: outer.index(python_zip()) + len(python_zip())]

    assert zipfile.is_zipfile(io.BytesIO(cut))
    assert "put in front" in why_unfinished(cut)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", "empty", id="0 bytes"),
        pytest.param(b"\0" * 5000, "begin", id="zeros after a power cut"),
        pytest.param(b"not a zip at all, but long enough to be one", "begin", id="text"),
        pytest.param(b"junk" + python_zip(), "begin", id="junk in front"),
        pytest.param(b"#!/bin/sh\nexit\n" + python_zip(), "begin", id="self-extracting"),
        pytest.param(handmade(Member()) + handmade(Member()), "put in front", id="two in a row"),
        pytest.param(python_zip() + b"\0", "no end record", id="a byte behind"),
        pytest.param(python_zip() + b"junk" * 30000, "no end record", id="junk behind"),
        pytest.param(python_zip()[:-22] + b"\0" + python_zip()[-22:], "in between", id="a byte in between"),
    ],
)
def test_what_is_not_a_whole_zip(data: bytes, why: str) -> None:
    """Anything before the first entry, between directory and end record, or after the comment is not a whole ZIP."""
    assert why in why_unfinished(data)


def test_a_directory_of_zeros_is_unfinished() -> None:
    """A file laid out in full whose middle was not written yet is unfinished."""
    data = python_zip()
    found = structure(data)

    assert "no central directory" in why_unfinished(data[: found.offset] + bytes(found.size) + data[found.end :])


@pytest.mark.parametrize(
    ("lies", "why"),
    [
        ({"record_off": 1}, "locator"),
        ({"record_off": 1 << 40}, "beyond itself"),
        ({"length": 45}, "locator"),
        ({"length": 43}, "locator"),
        ({"size": 1}, "doesn't fit"),
        ({"offset": 1 << 63}, "doesn't fit"),
        ({"total": 2}, "split"),
        ({"disk": 1}, "split"),
        ({"disks": 2}, "split"),
        ({"old_size": 7}, "contradict"),
        ({"old_offset": 7}, "contradict"),
    ],
    ids=str,
)
def test_zip64_end_records_that_lie(lies: dict[str, int], why: str) -> None:
    """Each field of the ZIP64 end record and its locator must fit."""
    assert why in why_unfinished(with_zip64_end(handmade(Member()), **lies))


def test_parts_of_a_split_zip_are_not_whole() -> None:
    """The last part of a split ZIP can't be delivered, and is told apart from a cut one."""
    data = bytearray(handmade(Member()))
    data[-18] = 1

    assert "split" in why_unfinished(bytes(data))


# --- the central directory --------------------------------------------------------------------------------------------


def test_names_are_shown_safely() -> None:
    """A name can't play tricks on the terminal it is shown on."""
    assert show(b"a\x1b[2J\n" + b"\xff" + "\u202e\u00e9".encode()) == '"a\\x1b[2J\\n\\xff\\u202e\u00e9"'
    assert len(show(b"x" * 60000)) < 200


@pytest.mark.parametrize("count", [1, 3, 0xFFFF])
def test_a_wrong_count_is_corrupt(count: int) -> None:
    """The directory must hold exactly as many entries as the end record says."""
    assert "corrupt" == flaw(handmade(Member(), Member(name=b"b"), count=count)).code


def test_bytes_after_the_last_header_are_corrupt() -> None:
    """The central directory is used up to its last byte."""
    assert "corrupt" == flaw(handmade(Member(), after_directory=b"\0" * 46)).code


def test_entries_are_values() -> None:
    """Two readings of one archive give equal entries."""
    data = handmade(Member())
    with opened(data) as fd:
        directory = check_structure(fd, len(data))
        expected = Entry(
            name=b"a.txt", flags=0, method=0, crc=zlib.crc32(b"hello"), compressed=5, uncompressed=5, offset=0
        )

        assert [expected] == list(walk(fd, directory)) == list(walk(fd, directory))


def test_walking_takes_memory_for_one_buffer() -> None:
    """However many entries there are, the walk keeps none; it ends as soon as there are more than declared."""
    entries = 70_000
    header = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[20] * 2, *[0] * 4, 0, 0, 0, 5, *[0] * 4, 0, 0)
    directory = b"".join(header + b"%05x" % n for n in range(entries))
    with opened(directory) as fd:
        whole = Directory(offset=0, size=len(directory), entries=entries)

        assert 2 << 20 > peak_bytes(lambda: sum(1 for _ in walk(fd, whole)))
        with pytest.raises(Unsound, match="more than the 100 entries"):
            list(walk(fd, Directory(offset=0, size=len(directory), entries=100)))


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=300))
def test_noise_behind_a_local_header_is_unfinished(noise: bytes) -> None:
    """Bytes that merely begin like a ZIP are never taken for one."""
    with pytest.raises(Unfinished):
        structure(b"PK\3\4" + noise)
