"""A1 notation, field masks and cell values of the sandbox's Sheets service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfwatch.sandbox import a1, cells, fieldmask
from tfwatch.sandbox.a1 import Span

TITLES = st.text(min_size=1, max_size=20)


@given(title=TITLES, top=st.integers(0, 9_999_998), left=st.integers(0, 18_000), rows=st.integers(1, 9))
def test_a_written_range_reads_back(title: str, top: int, left: int, rows: int) -> None:
    """Whatever the sheet is called, a range survives writing and reading."""
    text = a1.write(title, top, left, top + rows, left + 3)
    assert (title, Span(top, left, top + rows, left + 3)) == a1.parse(text, ["first", title])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log", ("log", Span(0, 0, None, None))),
        ("'log'", ("log", Span(0, 0, None, None))),
        ("log!A1", ("log", Span(0, 0, 1, 1))),
        ("B2:C9", ("log", Span(1, 1, 9, 3))),
        ("C9:B2", ("log", Span(1, 1, 9, 3))),
        ("A:C", ("log", Span(0, 0, None, 3))),
        ("2:9", ("log", Span(1, 0, 9, None))),
        ("A2:R", ("log", Span(1, 0, None, 18))),
        ("'it''s! mine'!AA10", ("it's! mine", Span(9, 26, 10, 27))),
    ],
)
def test_ranges_are_understood(text: str, expected: tuple[str, Span]) -> None:
    """Every documented form of A1 notation is read as Google reads it."""
    assert expected == a1.parse(text, ["log", "it's! mine"])


@pytest.mark.parametrize("text", ["", "nosheet", "nosheet!A1", "A1:", ":A1", "A0", "A1:B2:C3", "log!", "A", "1", "ÄÖ1"])
def test_nonsense_ranges_are_refused(text: str) -> None:
    """What is no range is said to be none."""
    with pytest.raises(ValueError, match="Unable to parse range"):
        a1.parse(text, ["log"])


@given(text=st.text())
def test_parsing_never_fails_otherwise(text: str) -> None:
    """Any text is either a range or a ValueError."""
    try:
        title, _ = a1.parse(text, ["log"])
    except ValueError:
        return
    assert "log" == title


def test_mask_selects_the_named_parts() -> None:
    """Dots, slashes and brackets name the same parts, lists are looked through."""
    value = {"a": [{"b": {"c": 1, "d": 2}, "e": 3}, {"e": 4}], "f": 5}
    expected = {"a": [{"b": {"c": 1}, "e": 3}, {"e": 4}]}
    for text in ("a(b(c),e)", "a(b.c, e)", "a.b.c,a.e", "a/b/c,a/e"):
        assert expected == fieldmask.select(value, fieldmask.parse(text))
    assert value == fieldmask.select(value, fieldmask.parse("*"))
    for nonsense in ("a(", "a)", ",", "a..b", "a;b", ""):
        with pytest.raises(ValueError, match="Invalid field selection"):
            fieldmask.parse(nonsense)


@given(value=st.text() | st.integers() | st.booleans())
def test_raw_values_are_never_changed(value: str | int | bool) -> None:
    """RAW takes every value as it is; only an entered one can become a formula."""
    assert value == cells.raw(value)
    assert not isinstance(cells.raw(value), dict)
    assert isinstance(cells.typed(f"={value}"), dict) or value == ""
