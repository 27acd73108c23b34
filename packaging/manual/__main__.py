"""The manual's pages, from the sources of --help, config.yaml.example and docs/OPERATIONS.md: none is kept in git.

    SOURCE_DATE_EPOCH=… python packaging/manual build/man

Each page is a text in Markdown beside this file; a comment in it, on a line of its own, stands for what is made:
synopsis, options, commands, keys, or a section of the operators' guide: `docs/OPERATIONS.md: Folders`, of
it what lies `, from: ` a line that begins so `, up to: ` another one.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import commands
import keys
import mdoc
import typer

from tfwatch import __version__
from tfwatch.cli import app
from tfwatch.completion.tree import read

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
GUIDE: Final = "docs/OPERATIONS.md"
PAGES: Final = ("tfwatch.1", "tfwatch.yaml.5", "tfwatch.8")
_MARK: Final = re.compile(r"^<!-- (.+) -->\n", re.MULTILINE)


def main() -> None:
    """Write every page into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    date = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    for name in PAGES:
        page = "\n".join([*_page(name, (HERE / f"{name}.md").read_text(encoding="utf-8"), date), ""])
        (folder / name).write_text(page, encoding="ascii")


def _page(file: str, text: str, date: datetime) -> list[str]:
    """The title, `# NAME: what it is`, then the text with what is made in its places."""
    name, _, number = file.rpartition(".")
    title, _, text = text.partition("\n")
    lines = [
        f'.\\" Made by make man for tfwatch {__version__}; change {HERE.name}/{file}.md and its sources instead.',
        f".Dd {date:%B} {date.day}, {date.year}",
        f".Dt {name.upper()} {number}",
        ".Os",
        ".Sh NAME",
        f".Nm {name}",
        f".Nd {title.partition(': ')[2]}",
    ]
    parts = _MARK.split(text)
    for plain, mark in zip(parts[::2], [*parts[1::2], None], strict=True):
        lines += mdoc.converted(plain, lines[-1])
        if mark:
            lines += _made(mark, lines[-1])
    return lines


def _made(mark: str, above: str) -> list[str]:
    tree = read(typer.main.get_group(app))
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "synopsis": lambda: commands.synopsis(tree),
        "options": lambda: commands.options(tree),
        "commands": lambda: commands.sections(tree),
        "keys": lambda: keys.sections((ROOT / "config.yaml.example").read_text(encoding="utf-8")),
    }
    if mark in makers:
        return list(makers[mark]())
    source, _, heading = mark.partition(": ")
    if source != GUIDE:
        raise ValueError(f"nothing is known to be made for {mark!r}")
    heading, *bounds = re.split(r", (?=from: |up to: )", heading)
    between = dict(bound.split(": ", 1) for bound in bounds)
    text = mdoc.section(
        (ROOT / GUIDE).read_text(encoding="utf-8"), heading, between.get("from", ""), between.get("up to", "")
    )
    return mdoc.converted(text, above)


main()
