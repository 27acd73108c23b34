"""Reading what strangers wrote: JSON objects, ids and words that may hold anything. Pure; nothing here raises."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from tfwatch.model import OrderId

LONGEST_LINE: Final = 500
"""Of a stranger's words so many characters are passed on."""

_LONGEST_ID: Final = 255
_DEEPEST_WORDS: Final = 4


def json_object(body: bytes) -> Mapping[str, Any] | None:
    """The JSON object some octets hold; None when they hold anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def find_id(answer: Mapping[str, Any], *keys: str) -> OrderId | None:
    """The first key that holds a usable id: a whole number, or one line of printable text."""
    for key in keys:
        value = answer.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str):
            text = value.strip()
            if text and text.isprintable() and len(text) <= _LONGEST_ID:
                return OrderId(text)
    return None


def words_in(value: object, depth: int = _DEEPEST_WORDS) -> str:
    """The words inside a JSON value. Services nest them: {"error": {"message": …}}, {"detail": [{"msg": …}]}."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not depth:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (words_in(item, depth - 1) for item in value[:10])))
    if isinstance(value, dict):
        for key in ("message", "detail", "msg", "description", "title", "code"):
            if said := words_in(value.get(key), depth - 1):
                return said
    return ""


def one_line(text: str) -> str:
    """Words as one line for people: bounded, with nothing that moves a cursor."""
    visible = "".join(" " if unicodedata.category(char).startswith("C") else char for char in text)
    return " ".join(visible.split())[:LONGEST_LINE]
