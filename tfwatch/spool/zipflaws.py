"""What can be wrong with a ZIP, and how that is said."""

from __future__ import annotations

from typing import Final, Literal

from tfwatch.language import tr

_SHOWN: Final = 120

Flaw = Literal[
    "ambiguous",
    "bomb",
    "corrupt",
    "empty",
    "encrypted",
    "overlapping",
    "too_big",
    "too_many_entries",
    "unsafe_name",
    "unsupported",
]
"""Why a ZIP is refused, in one machine-readable word."""


class Unfinished(Exception):
    """The file is not a whole ZIP (yet): it may still be growing. `why`: plain words that go on from its name."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Unsound(Exception):
    """The ZIP is whole, but must not be delivered.

    `code`: the flaw in one word. `message`: a plain sentence, safe to print. `entry`: the name of the entry it is
    about, escaped and quoted; empty when it is about the whole archive.
    """

    def __init__(self, code: Flaw, message: str, *, entry: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.entry = entry


def show(name: bytes) -> str:
    """An entry's name for people: quoted, with everything that doesn't print escaped, and not too long."""
    text = name.decode(errors="backslashreplace")
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return f'"{safe[:_SHOWN]}…"' if len(safe) > _SHOWN else f'"{safe}"'


def damaged(name: bytes, what: str) -> Unsound:
    """The refusal of an archive in which one entry is damaged; `what` goes on from `The entry "…"`."""
    message = tr("The entry {entry} {what}: the archive is damaged.", entry=show(name), what=what)
    return Unsound("corrupt", message, entry=show(name))


def unchecked(name: bytes, what: str) -> Unsound:
    """The refusal of an archive in which one entry can't be checked; `what`: why not."""
    message = tr("The entry {entry} can't be checked: {what}.", entry=show(name), what=what)
    return Unsound("unsupported", message, entry=show(name))
