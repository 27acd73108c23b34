"""The texts for people: those that the code holds, and those that the catalogue translates.

`python -m tests.support.catalogue` brings the catalogue up to the code: new texts are added without a translation,
texts that are gone are removed, the others keep theirs.
"""

from __future__ import annotations

import ast
import io
import os
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from string import Formatter

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

import tfwatch

SOURCE = Path(tfwatch.__file__).parent
PORTUGUESE = SOURCE / "locale" / "pt_BR" / "LC_MESSAGES" / "tfwatch.po"

_METHODS = (("**.py", "python"), ("**.html", "jinja2"))
_KEYWORDS = {"tr": None, "ntr": (1, 2)}
_HEADER = """\
# What operators read, in Brazilian Portuguese. docs/ARCHITECTURE.md ("Texts for people") says how to add a text.
#"""


_NOBODY_READS = (
    b'"Project-Id', b'"Report-Msgid', b'"POT-', b'"PO-', b'"Last-', b'"Language-Team', b'"Generated-By',
)  # fmt: skip
"""Header lines that say nothing, or would change with each run."""


@cache
def extracted() -> Catalog:
    """Every text in the code, found as Babel finds it, with the files it stands in."""
    found = Catalog(project="tfwatch", locale="pt_BR", header_comment=_HEADER, fuzzy=False)
    for file, _, message, comments, _ in extract_from_dir(
        SOURCE, _METHODS, keywords=_KEYWORDS, comment_tags=("For translators:",)
    ):
        found.add(message, locations=[(f"tfwatch/{file}", 0)], auto_comments=comments)
    return found


def translated() -> Catalog:
    """The catalogue as it stands in the source."""
    with open(PORTUGUESE, "rb") as file:
        return read_po(file, locale="pt_BR")


def placeholders(text: str) -> set[str]:
    """The `{names}` in a text."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def forms(text: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """A text, or its forms for one and for many."""
    return (text,) if isinstance(text, str) else tuple(text)


def brought_up() -> bytes:
    """The catalogue with exactly the texts of the code, as a file."""
    catalogue = deepcopy(extracted())
    known = translated() if PORTUGUESE.exists() else Catalog(locale="pt_BR")
    for message in catalogue:
        before = known.get(message.id) if message.id else None
        if before is not None:
            message.string = before.string
    out = io.BytesIO()
    write_po(out, catalogue, width=120, sort_by_file=True, include_lineno=False)
    return b"".join(line for line in out.getvalue().splitlines(True) if not line.startswith(_NOBODY_READS))


def calls() -> Iterator[tuple[str, tuple[str, ...] | None]]:
    """Every call that makes a text: `file:line`, and its literals; None where one is no literal."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            count = {"tr": 1, "ntr": 2}.get(name, 0)
            if not count:
                continue
            values = [arg.value for arg in node.args[:count] if isinstance(arg, ast.Constant)]
            texts = tuple(value for value in values if isinstance(value, str))
            yield f"{os.path.relpath(path, SOURCE.parent)}:{node.lineno}", texts if len(texts) == count else None


if __name__ == "__main__":
    PORTUGUESE.parent.mkdir(parents=True, exist_ok=True)
    PORTUGUESE.write_bytes(brought_up())
