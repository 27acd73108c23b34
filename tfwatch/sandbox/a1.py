"""A1 notation: `'my sheet'!A1:C9`, `A:C`, `2:9`, `A2:R`, a sheet's title alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_CELLS = re.compile(
    r"(?P<col1>[A-Za-z]{1,3})?(?P<row1>[1-9][0-9]{0,7})?(?P<colon>:(?P<col2>[A-Za-z]{1,3})?(?P<row2>[1-9][0-9]{0,7})?)?\Z"
)
_PLAIN_TITLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Span:
    """A rectangle of cells, 0-based and half-open. `bottom`, `right`: None reaches to the end of the grid."""

    top: int
    left: int
    bottom: int | None
    right: int | None

    def within(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """Top, left, bottom, right, cut to a grid of this size."""
        bottom = rows if self.bottom is None else min(self.bottom, rows)
        right = columns if self.right is None else min(self.right, columns)
        return self.top, self.left, bottom, right

    def fits(self, rows: int, columns: int) -> bool:
        """Whether every cell named lies in a grid of this size."""
        return self.top < rows and self.left < columns and (self.bottom or 0) <= rows and (self.right or 0) <= columns


def parse(text: str, titles: Sequence[str]) -> tuple[str, Span]:
    """Split a range into sheet title and span; without a title it is the first sheet's.

    Raises ValueError for what is neither a range nor a title in `titles`.
    """
    whole = _unquoted(text)
    if whole in titles:
        return whole, Span(0, 0, None, None)
    title, bang, cells = text.rpartition("!")
    sheet = _unquoted(title) if bang else titles[0]
    if sheet not in titles:
        raise ValueError(f"Unable to parse range: {text}")
    return sheet, _span(cells, text)


def column_number(letters: str) -> int:
    """`A` → 0, `Z` → 25, `AA` → 26."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def column_letters(number: int) -> str:
    """0 → `A`, 25 → `Z`, 26 → `AA`."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def write(title: str, top: int, left: int, bottom: int, right: int) -> str:
    """A range as Google writes it back: the title quoted unless it is a plain word."""
    name = title if _PLAIN_TITLE.match(title) else "'" + title.replace("'", "''") + "'"
    first = f"{column_letters(left)}{top + 1}"
    last = f"{column_letters(right - 1)}{bottom}"
    return f"{name}!{first}" if first == last else f"{name}!{first}:{last}"


def _unquoted(title: str) -> str:
    if len(title) >= 2 and title[0] == title[-1] == "'":
        return title[1:-1].replace("''", "'")
    return title


def _span(cells: str, text: str) -> Span:
    found = _CELLS.match(cells)
    if found is None:
        raise ValueError(f"Unable to parse range: {text}")
    col1, row1, col2, row2 = found["col1"], found["row1"], found["col2"], found["row2"]
    if not found["colon"]:
        if not (col1 and row1):
            raise ValueError(f"Unable to parse range: {text}")
        col2, row2 = col1, row1
    elif not (col1 or row1) or not (col2 or row2):
        raise ValueError(f"Unable to parse range: {text}")
    top, bottom = _ordered(int(row1) - 1 if row1 else 0, int(row2) if row2 else None)
    left, right = _ordered(column_number(col1) if col1 else 0, column_number(col2) + 1 if col2 else None)
    return Span(top, left, bottom, right)


def _ordered(first: int, end: int | None) -> tuple[int, int | None]:
    return (end - 1, first + 1) if end is not None and end <= first else (first, end)
