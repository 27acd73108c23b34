"""What commands print: plain text in a pipe or with NO_COLOR, a little colour on a terminal, never a control character
that came from a name or a service's words."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

import typer

from tfwatch.spool.names import printable

PROBLEM: Final = 1

_STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "head": {"bold": True},
    "good": {"fg": "green"},
    "warn": {"fg": "yellow"},
    "bad": {"fg": "red"},
    "dim": {"dim": True},
    "": {},
}


def set_up() -> None:
    """Not every terminal takes every character; that must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def say(text: str, style: str = "", *, err: bool = False) -> None:
    """Print one line; styles are `head`, `good`, `warn`, `bad`, `dim` and none."""
    stream = sys.stderr if err else sys.stdout
    text = printable(text)
    if style and stream.isatty() and not os.environ.get("NO_COLOR"):
        text = typer.style(text, **_STYLES[style])
    print(text, file=stream)


def say_all(lines: Iterable[tuple[str, str]]) -> None:
    """Print lines with their styles."""
    for text, style in lines:
        say(text, style)


def say_json(document: object) -> None:
    """Print one JSON document; undecodable bytes are escaped by JSON itself."""
    print(json.dumps(document, indent=1))


def fail(*lines: str, code: int = PROBLEM) -> NoReturn:
    """Say on stderr what is wrong and end the command."""
    for line in lines:
        say(line, "bad", err=True)
    raise typer.Exit(code)
