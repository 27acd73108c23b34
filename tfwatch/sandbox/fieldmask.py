"""Google's partial responses: `fields=sheets(properties(title,gridProperties),conditionalFormats)`. Pure."""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(r"[A-Za-z0-9_*]+|[(),./]")

Mask = dict[str, "Mask"]
"""Names to keep; an empty mask below a name keeps all of it."""


def parse(text: str) -> Mask:
    """Read a `fields` parameter; raises ValueError."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text.replace(" ", ""):
        raise ValueError(f"Invalid field selection {text}")
    mask = _list(tokens)
    if tokens:
        raise ValueError(f"Invalid field selection {text}")
    return mask


def _list(tokens: list[str]) -> Mask:
    mask: Mask = {}
    while True:
        _path(tokens, mask)
        if not tokens or tokens[0] != ",":
            return mask
        tokens.pop(0)


def _path(tokens: list[str], mask: Mask) -> None:
    if not tokens or not re.match(r"\w|\*", tokens[0]):
        raise ValueError("Invalid field selection")
    below = mask.setdefault(tokens.pop(0), {})
    if tokens and tokens[0] in "./":
        tokens.pop(0)
        _path(tokens, below)
    elif tokens and tokens[0] == "(":
        tokens.pop(0)
        below.update(_list(tokens))
        if not tokens or tokens.pop(0) != ")":
            raise ValueError("Invalid field selection")


def select(value: Any, mask: Mask) -> Any:
    """The parts of a JSON value that the mask names."""
    if not mask or "*" in mask:
        return value
    if isinstance(value, list):
        return [select(item, mask) for item in value]
    if isinstance(value, dict):
        return {name: select(value[name], below) for name, below in mask.items() if name in value}
    return value
