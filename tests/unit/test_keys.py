"""Where a package's backup lies."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from datetime import date
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfwatch.delivery.keys import backup_key
from tfwatch.model import Package, Sha256, TraceId

DAY = date(2025, 3, 7)
SHA = Sha256("0123456789abcdef" * 4)

names = st.binary(min_size=1, max_size=251).filter(lambda raw: b"/" not in raw and b"\0" not in raw)


def package(name: str) -> Package:
    return Package(name=name, sha256=SHA, bytes=22, trace_id=TraceId("t"))


def test_key_shows_day_digest_and_name() -> None:
    """A person finds a backup by the day, the digest and the name."""
    assert backup_key("tfwatch/", DAY, package("42_v1.zip")) == "tfwatch/2025/03/07/0123456789ab-42_v1.zip"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (os.fsdecode(b"a\xff.zip"), "a_xff.zip"),
        ("a\nb.zip", "a_x0ab.zip"),
        ("a\u2028b.zip", "a_u2028b.zip"),
        ("Grava\u00e7\u00e3o 1.ZIP", "Grava\u00e7\u00e3o 1.ZIP"),
    ],
)
def test_what_cannot_stand_in_a_key_is_spelled_out(name: str, shown: str) -> None:
    """Undecodable bytes and control characters are spelled, everything else is kept."""
    assert backup_key("", DAY, package(name)) == f"2025/03/07/0123456789ab-{shown}"


def test_a_long_name_is_cut_before_its_extension() -> None:
    """Digest and extension survive; no piece has more than 255 bytes."""
    key = backup_key("", DAY, package("\u00e7" * 125 + "a.zip"))

    piece = key.rpartition("/")[2]
    assert piece.startswith("0123456789ab-\u00e7")
    assert piece.endswith("\u00e7.zip")
    assert 254 <= len(piece.encode()) <= 255


@given(raw=names, prefix=st.text(max_size=128).filter(lambda text: "/" not in text))
def test_every_name_gives_a_key_s3_can_hold(raw: bytes, prefix: str) -> None:
    """Any file name of any bytes: at most 1024 bytes of UTF-8, one piece of at most 255, readable in a listing."""
    key = backup_key(prefix, DAY, package(os.fsdecode(raw + b".zip")))

    assert len(key.encode()) <= 1024
    assert len(key.rpartition("/")[2].encode()) <= 255
    assert key == ElementTree.fromstring(f"<Key>{escape(key)}</Key>").text
    assert key == backup_key(prefix, DAY, package(os.fsdecode(raw + b".zip")))
