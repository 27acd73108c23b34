"""What one cell holds, how typed text becomes it, and how it is shown."""

from __future__ import annotations

import re
from typing import TypeAlias

Cell: TypeAlias = "str | int | float | bool | dict[str, str]"
"""A value; the empty string is an empty cell; `{"formula": "=…"}` is text that was taken as a formula."""

MAX_CHARACTERS = 50_000
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?\Z")


class BadValue(ValueError):
    """A value no cell can hold."""


def raw(value: object) -> Cell:
    """A value taken as it is (RAW). Raises `BadValue`."""
    if not isinstance(value, str | int | float | bool):
        raise BadValue(f"{type(value).__name__} is not a cell's value")
    if isinstance(value, str) and len(value) > MAX_CHARACTERS:
        raise BadValue(f"Your input contains more than the maximum of {MAX_CHARACTERS} characters in a single cell.")
    return value


def typed(value: object) -> Cell:
    """A value as if a person had typed it (USER_ENTERED): numbers, TRUE, formulas. Raises `BadValue`."""
    value = raw(value)
    if not isinstance(value, str):
        return value
    if value.startswith("'"):
        return value[1:]
    if value.upper() in ("TRUE", "FALSE"):
        return value.upper() == "TRUE"
    if _NUMBER.match(value):
        return float(value) if "." in value else int(value)
    return {"formula": value} if value.startswith(("=", "+")) and len(value) > 1 else value


def shown(cell: Cell, render: str) -> str | int | float | bool:
    """The cell under a `valueRenderOption`. The sandbox never computes: a formula shows as `#FORMULA: =…`."""
    if isinstance(cell, dict):
        return cell["formula"] if render == "FORMULA" else f"#FORMULA: {cell['formula']}"
    if render != "FORMATTED_VALUE" or isinstance(cell, str):
        return cell
    return str(cell).upper() if isinstance(cell, bool) else str(cell)


def sort_key(cell: Cell) -> tuple[int, float, str]:
    """Numbers before text before booleans, as Sheets sorts upwards; text without regard to case."""
    if isinstance(cell, bool):
        return (2, float(cell), "")
    if isinstance(cell, int | float):
        return (0, float(cell), "")
    return (1, 0.0, str(shown(cell, "FORMULA")).casefold())
