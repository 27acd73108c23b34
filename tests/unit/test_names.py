"""Names that are derived from other names: never past what a file system holds, never ambiguous."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfwatch.spool.names import MAX_BYTES, counts, free_name, printable, reason_name

RAW_NAMES = (
    st.binary(min_size=1, max_size=251)
    .filter(lambda raw: b"/" not in raw and b"\0" not in raw)
    .map(lambda raw: os.fsdecode(raw + b".zip"))
)
"""Every name a package can have: any bytes but two."""

LONG_NAMES = st.text(st.characters(min_codepoint=0x80, codec="utf-8"), min_size=60, max_size=120).map(
    lambda text: text.encode()[:251].decode(errors="ignore") + ".zip"
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.zip", True),
        ("a.ZIP", True),
        ("a.Zip", True),
        ("-rf.zip", True),
        ("=1+1.zip", True),
        (" .zip", True),
        ("a.b.zip", True),
        (os.fsdecode(b"\xff.zip"), True),
        ("\n.zip", True),
        (".zip", False),
        (".a.zip", False),
        ("zip", False),
        ("azip", False),
        ("", False),
        ("a.zip.part", False),
        ("a.zip.filepart", False),
        ("a.zip.tmp", False),
        ("a.zip.crdownload", False),
        ("a.zip.reason.txt", False),
        ("a.zipx", False),
        ("a.z\u0131p", False),
    ],
)
def test_which_names_count(name: str, expected: bool) -> None:
    """`*.zip` in any case counts; hidden and unfinished files don't."""
    assert expected is counts(name)


def test_no_other_letter_passes_for_zip() -> None:
    """Only twelve letters in any case end a package's name: the extension is always four bytes long."""
    others = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).lower() in {"z", "i", "p"}]

    assert ["I", "P", "Z", "i", "p", "z"] == sorted(others)


def test_a_free_name_is_kept() -> None:
    """Nothing is renamed without need."""
    assert "a.zip" == free_name("a.zip", lambda name: False)


def test_the_next_free_name_is_numbered_from_two() -> None:
    """`~2`, then `~3`, before the extension as it was written."""
    taken = {"Call_v1.ZIP", "Call_v1~2.ZIP"}
    assert "Call_v1~3.ZIP" == free_name("Call_v1.ZIP", taken.__contains__)


def test_a_name_that_ends_in_a_number_is_a_name_like_any_other() -> None:
    """A package dropped as `a~2.zip` becomes `a~2~2.zip`: nobody's number is counted up."""
    assert "a~2~2.zip" == free_name("a~2.zip", {"a~2.zip"}.__contains__)


@given(name=RAW_NAMES | LONG_NAMES)
def test_derived_names_fit_and_count(name: str) -> None:
    """Whatever a package is called: its next name and its reason file fit into 255 bytes and mean what they should."""
    second = free_name(name, {name}.__contains__)
    reason = reason_name(name)

    assert len(os.fsencode(second)) <= MAX_BYTES
    assert len(os.fsencode(reason)) <= MAX_BYTES
    assert second.endswith(f"~2{name[-4:]}")
    assert counts(second) is counts(name)
    assert not counts(reason)


@given(name=RAW_NAMES | LONG_NAMES, count=st.integers(min_value=2, max_value=30))
def test_free_names_never_repeat(name: str, count: int) -> None:
    """Asked again and again, each name given is a new one."""
    taken: set[str] = set()
    for _ in range(count):
        taken.add(free_name(name, taken.__contains__))

    assert count == len(taken)


@given(name=LONG_NAMES)
def test_shortened_names_stay_utf8(name: str) -> None:
    """A name in UTF-8 is cut between characters: what is derived from it is UTF-8 again."""
    assert free_name(name, {name}.__contains__).encode()
    assert reason_name(name).encode()


@pytest.mark.parametrize("length", range(230, 252))
@pytest.mark.parametrize("letter", ["a", "\u00e7", "\u20ac", "\U0001f600"])
def test_names_of_every_length_can_be_made(tmp_path: Path, length: int, letter: str) -> None:
    """The file system takes what we derive: made for real, at every length around the limit."""
    stem = (letter * length).encode()[:length].decode(errors="ignore")
    for name in (f"{stem}.zip", free_name(f"{stem}.zip", lambda name: "~2" not in name), reason_name(f"{stem}.zip")):
        tmp_path.joinpath(name).touch()


def test_long_names_that_differ_at_their_end_stay_apart() -> None:
    """The mark is a hash of the whole name, so two names that are cut to the same stem don't meet."""
    first, second = ("a" * 250 + last + ".zip" for last in "xy")

    assert reason_name(first) != reason_name(second)
    assert free_name(first, {first}.__contains__) != free_name(second, {second}.__contains__)


def test_a_short_name_keeps_all_of_itself() -> None:
    """Up to 255 bytes nothing is cut."""
    exact = "a" * (MAX_BYTES - len(".zip.reason.txt")) + ".zip"
    assert f"{exact}.reason.txt" == reason_name(exact)
    assert reason_name(f"b{exact}").endswith(".reason.txt")
    assert f"b{exact}.reason.txt" != reason_name(f"b{exact}")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b.zip", "a b.zip"),
        ("Grava\u00e7\u00e3o.zip", "Grava\u00e7\u00e3o.zip"),
        (os.fsdecode(b"a\xff.zip"), "a\\xff.zip"),
        ("a\nb.zip", "a\\nb.zip"),
        ("a\x1b[31mb.zip", "a\\x1b[31mb.zip"),
        ("a\u202egpj.zip", "a\\u202egpj.zip"),
        ("a\ud800.zip", "a\\ud800.zip"),
    ],
)
def test_names_as_people_see_them(name: str, shown: str) -> None:
    """One line that no terminal obeys and nobody can write backwards."""
    assert shown == printable(name)


@given(name=st.text(st.characters(exclude_categories=())))
def test_every_name_can_be_shown(name: str) -> None:
    """Whatever it holds, what is shown is one printable line of UTF-8."""
    shown = printable(name)

    assert shown.isprintable()
    assert shown == shown.encode().decode()
