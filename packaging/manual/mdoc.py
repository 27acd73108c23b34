"""Markdown to mdoc, the language of manual pages: as much of both as the pages and docs/OPERATIONS.md use.

Lines stay below 80 bytes and each sentence begins one, as mandoc -Tlint asks. Read by man-db and mandoc alike.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

_READER: Final = MarkdownIt("commonmark").enable("table")

_PLAIN: Final = {"\\": r"\e", "~": r"\(ti", "^": r"\(ha", '"': r"\(dq"}
_AS_TYPED: Final = _PLAIN | {"-": r"\-", "'": r"\(aq", "`": r"\(ga"}


def escaped(text: str, *, as_typed: bool = False) -> str:
    """Text that roff shows as it is. `as_typed`: hyphens and quotes can be copied into a terminal."""
    special = _AS_TYPED if as_typed else _PLAIN
    return "".join(special.get(c) or (c if c.isascii() else rf"\[u{ord(c):04X}]") for c in text)


def bold(text: str) -> str:
    """Text as it is typed; its words are not hyphenated."""
    words = re.sub(r"(?<![\w-])(?=\w{5})", "\0", text)
    return rf"\fB{escaped(words, as_typed=True)}\fR".replace("\0", r"\%")


def arguments(text: str) -> str:
    """Escaped text behind a macro: no word of it is taken for one itself."""
    return re.sub(r"(?<!\S)(?=(?:[A-Z][a-z]{1,2}|%[A-Z]|[.,:;()\[\]?!|])(?:\s|$))", r"\\&", text)


def filled(text: str) -> Iterator[str]:
    """Escaped text as lines: a sentence begins a new one."""
    for sentence in re.split(r"(?:(?<=[.!?])|(?<=[.!?]\\fR))\s+(?=[A-Z\\])", " ".join(text.split())):
        for line in textwrap.wrap(sentence, 78, break_long_words=False, break_on_hyphens=False):
            yield rf"\&{line}" if line[0] in ".'" else line


def literal(text: str) -> Iterator[str]:
    """Lines that stand as they are."""
    yield ".Bd -literal -offset indent"
    for line in text.splitlines():
        made = escaped(line, as_typed=True)
        yield rf"\&{made}" if made.startswith((".", r"\(aq")) else made
    yield ".Ed"


def tagged(entries: Sequence[tuple[str, Sequence[str]]]) -> Iterator[str]:
    """A list of terms, each with the lines that explain it; a term may be macros."""
    if entries:
        yield ".Bl -tag -width Ds"
        for term, lines in entries:
            yield f".It {term}"
            yield from lines
        yield ".El"


def section(document: str, heading: str, start: str = "", end: str = "") -> str:
    """What stands below a heading, up to the next one of its rank or above.

    `start`, `end`: only from the line that begins so, and up to the one that begins so.
    """
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", document, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"there is no section {heading!r}")
    text = f"\n{found[2]}\n"
    for bound in (start, end):
        if f"\n{bound}" not in text:
            raise ValueError(f"section {heading!r} has no line that begins with {bound!r}")
    text = text[text.index(f"\n{start}") :]
    return text[: text.index(f"\n{end}")] if end else text


def converted(markdown: str, above: str = ".Sh") -> list[str]:
    """The lines of a page for Markdown: headings, paragraphs, code, lists, tables; comments are left out.

    `above`: the line before it; behind a heading no paragraph begins anew.
    """
    return list(_blocks(_READER.parse(markdown), first=above.startswith((".Sh", ".Ss"))))


def _blocks(tokens: Sequence[Token], *, first: bool) -> Iterator[str]:
    """`first`: nothing stands above, so no paragraph ends here."""
    for token, inside in _nested(tokens):
        if token.type == "heading_open":
            title = _inline(inside[0])
            yield f".Sh {arguments(title.upper())}" if token.tag == "h2" else f".Ss {arguments(title)}"
        elif token.type == "paragraph_open":
            if not first:
                yield ".Pp"
            yield from filled(_inline(inside[0]))
        elif token.type == "fence":
            yield from literal(token.content)
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            yield f".Bl -{'bullet' if token.type == 'bullet_list_open' else 'enum'}"
            for _, item in _nested(inside):
                yield ".It"
                yield from _blocks(item, first=True)
            yield ".El"
        elif token.type == "table_open":
            yield from tagged(list(_rows(inside)))
        elif token.type != "html_block":
            raise ValueError(f"no rule for {token.type} in line {token.map}")
        first = token.type == "heading_open" or (first and token.type == "html_block")


def _nested(tokens: Sequence[Token]) -> Iterator[tuple[Token, Sequence[Token]]]:
    """Each token of the outermost level with the tokens between it and its end."""
    at = 0
    while at < len(tokens):
        end = at
        depth: int = tokens[at].nesting
        while depth:
            end += 1
            depth += tokens[end].nesting
        yield tokens[at], tokens[at + 1 : end]
        at = end + 1


def _rows(table: Sequence[Token]) -> Iterator[tuple[str, list[str]]]:
    """The first cell of each row is the term; a third one headed Do says what to do."""
    for token, rows in _nested(table):
        if token.type == "tbody_open":
            for _, cells in _nested(rows):
                term, means, *others = (_inline(inside[0]) for _, inside in _nested(cells))
                told = [means, *(f"what to do: {other}" for other in others if other)]
                yield arguments(term), list(filled("; ".join(filter(None, told))))


def _inline(token: Token) -> str:
    """One paragraph's text, escaped. Links are their text, in italics: a page of the manual leads nowhere."""
    made = {"softbreak": " ", "strong_open": r"\fB", "em_open": r"\fI", "link_open": r"\fI"}
    made |= dict.fromkeys(("strong_close", "em_close", "link_close"), r"\fR")
    parts = []
    for child in token.children or ():
        if child.type == "text":
            parts.append(escaped(child.content))
        elif child.type == "code_inline":
            parts.append(bold(child.content))
        else:
            parts.append(made.get(child.type, ""))
    return "".join(parts)
