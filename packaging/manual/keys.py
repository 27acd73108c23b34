"""The part of tfwatch.yaml(5) that is made from config.yaml.example and the types in tfwatch.config."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

import mdoc
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from tfwatch.config import Config

_LINE: Final = re.compile(r"(?P<indent> *)(?P<name>\w+):(?: +(?P<value>[^\s#].*?))?(?: +# (?P<comment>.*))?$")
_WORDS: Final = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    SecretStr: "a secret text",
}
_MORE: Final = re.compile(r" +# (.*)$")


@dataclass(slots=True)
class Key:
    """One line of the example. `value` None: a section. `comment`: what stands beside it and below."""

    name: str
    value: str | None
    comment: list[str] = field(default_factory=list)


def read(example: str) -> list[Key]:
    """Every key and section of the example, with its dotted name, in order. ValueError: a line of another shape."""
    keys: list[Key] = []
    above: list[tuple[int, str]] = []
    for number, line in enumerate(example.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if more := _MORE.match(line):
            keys[-1].comment.append(more[1])
            continue
        found = _LINE.match(line)
        if found is None:
            raise ValueError(f"config.yaml.example:{number}: neither a key nor a comment")
        indent = len(found["indent"])
        above = [*((i, n) for i, n in above if i < indent), (indent, found["name"])]
        keys.append(
            Key(".".join(name for _, name in above), found["value"], [found["comment"]] if found["comment"] else [])
        )
    return keys


def sections(example: str) -> Iterator[str]:
    """A subsection for each section of the example, with its keys; those without a section come last."""
    keys = read(example)
    groups: dict[str, list[Key]] = {key.name: [] for key in keys if key.value is None}
    explained = {key.name: " ".join(key.comment) for key in keys}
    for key in keys:
        if key.value is not None:
            groups.setdefault(key.name.rpartition(".")[0], []).append(key)
    for name, members in groups.items():
        if members:
            yield f".Ss {mdoc.arguments(name) or 'Without a section'}"
            if told := explained.get(name):
                yield from mdoc.filled(mdoc.escaped(told))
            yield from mdoc.tagged([(mdoc.bold(key.name), list(_told(key))) for key in members])


def _told(key: Key) -> Iterator[str]:
    described = _field(key.name)
    has_default = described.default is not None or key.value in ("null", "[]")
    word = "default" if has_default else "for example"
    yield from mdoc.filled(f"{mdoc.escaped(type_of(described))}; {word}: {mdoc.bold(str(key.value))}")
    if key.comment:
        yield ".Pp"
        yield from mdoc.filled(mdoc.escaped(" ".join(key.comment)))


def _field(name: str) -> FieldInfo:
    *sections, last = name.split(".")
    model: type[BaseModel] = Config
    for part in sections:
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return model.model_fields[last]


def type_of(described: FieldInfo) -> str:
    """The type of a key's value in words."""
    if any(getattr(getattr(mark, "func", None), "__name__", "") == "size" for mark in described.metadata):
        return "a size"
    return _in_words(described.annotation)


def _in_words(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join([*(_in_words(a) for a in get_args(annotation) if a is not NoneType), "null"])
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (list, tuple):
        return f"a list, each {_in_words(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(str(member.value) for member in annotation)
    if hasattr(annotation, "__metadata__"):
        return _in_words(annotation.__origin__)
    return _WORDS[annotation]
