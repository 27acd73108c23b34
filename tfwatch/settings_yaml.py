"""YAML as config.yaml needs it: plain words, numbers, lists and sections, each with its line. No I/O.

Stricter than YAML: a key may stand once, and there are no anchors, aliases or tags. So nothing can be built out of
references, and a secret that begins with `*`, `&` or `!` is never taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from tfwatch.language import tr
from tfwatch.settings_problems import Path, Problem, dotted, shown

MAX_DEPTH: Final = 20
MAX_NODES: Final = 10_000
"""Keys and values together; reading this many takes half a second, and a reload must not hold up the loop."""

_INT = re.compile(r"[-+]?[0-9]{1,20}")
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})(?:[eE][-+]?[0-9]{1,4})?")
_WORDS: Final[Mapping[str, bool | None]] = {
    "": None,
    "~": None,
    "null": None,
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}
# what PyYAML found in the text is quoted in its messages, and may be a piece of a secret: only its own words stay
_QUOTED = re.compile(r"'(?!<)[^']{2,}'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A file's values, the line of each key, and what was wrong. `sound`: False when it could not be read at all."""

    data: dict[str, Any]
    lines: Mapping[Path, int]
    problems: tuple[Problem, ...]
    sound: bool = True


class _Refused(Exception):
    """YAML that we don't take. `line` counts from 1."""

    def __init__(self, line: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.hint = hint


class _Composer(yaml.SafeLoader):
    """Gives nodes without types: every untagged scalar is text, and `_plain` says what it means."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own type
    depth = 0
    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        is_alias = isinstance(event, yaml.AliasEvent)
        if is_alias or getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
            raise _Refused(
                line, tr("aliases (*), anchors (&) and tags (!) are not used here"), tr("put the value in quotes")
            )
        if self.depth >= MAX_DEPTH:
            raise _Refused(line, tr("too many levels within each other"), tr("compare with config.yaml.example"))
        if self.nodes >= MAX_NODES:
            raise _Refused(line, tr("too many keys and values"), tr("compare with config.yaml.example"))
        self.nodes += 1
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse(text: str, file: str) -> Tree:
    """Read the text of a settings file; never raises, whatever is in it. `file` is named in the problems."""
    try:
        node = _compose(text)
    except _Refused as refused:
        problem = Problem(file=file, line=refused.line, message=refused.message, hint=refused.hint)
        return Tree(data={}, lines={}, problems=(problem,), sound=False)
    if node is None or (isinstance(node, yaml.ScalarNode) and _plain(node) is None):
        return Tree(data={}, lines={}, problems=())
    if not isinstance(node, yaml.MappingNode):
        message = tr("must be sections of key: value lines")
        problem = Problem(file=file, line=_line(node), message=message, hint=tr("compare with config.yaml.example"))
        return Tree(data={}, lines={}, problems=(problem,), sound=False)
    builder = _Builder(file)
    data = builder.mapping(node, ())
    return Tree(data=data, lines=builder.lines, problems=tuple(builder.problems))


def _compose(text: str) -> yaml.Node | None:
    try:
        loader = _Composer(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Refused(line, tr("holds a control character"), tr("retype the line")) from None
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Refused(mark.line + 1 if mark else 1, _said(error), tr("check indentation, quotes and colons")) from None
    # \U escapes beyond Unicode and absurd %YAML versions escape PyYAML as these
    except (ValueError, OverflowError):
        raise _Refused(
            loader.line + 1, tr("holds a number or escape that can't be read"), tr("check the line")
        ) from None
    finally:
        loader.dispose()


def _said(error: yaml.MarkedYAMLError) -> str:
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return tr("not valid YAML: {why}", why=_QUOTED.sub("…", said))


class _Builder:
    """Turns nodes into values, noting lines and problems on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            if shown(key) != key or not key:
                self._problem(
                    key_node, path, tr("a key here is not a plain word"), tr("compare with config.yaml.example")
                )
            elif key in values:
                first = self.lines[(*path, key)]
                self._problem(
                    key_node, (*path, key), tr("stands twice; first in line {line}", line=first), tr("keep one of them")
                )
            else:
                self.lines[(*path, key)] = _line(key_node)
                values[key] = self._value(value_node, (*path, key))
        return values

    def _value(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                self.lines[(*path, index)] = _line(child)
            return [self._value(child, (*path, index)) for index, child in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return _plain(node)

    def _problem(self, node: yaml.Node, path: Path, message: str, hint: str) -> None:
        problem = Problem(file=self.file, line=_line(node), key=dotted(path), message=message, hint=hint)
        self.problems.append(problem)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _plain(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if node.style is not None:
        return text
    if (word := text.lower()) in _WORDS:
        return _WORDS[word]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
