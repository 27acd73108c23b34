"""What is wrong with the settings, in words for an operator: where, which key, what, and what to do next.

No value is ever quoted: a secret may stand in the wrong place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from tfwatch.config import Config
from tfwatch.language import number, tr


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing to mend. `file`: as the operator named it, or `environment`; `key`: dotted, may be empty."""

    file: str
    line: int | None = None
    key: str = ""
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """`config.yaml:12: integrations.s3.bucket: needed while s3 is enabled; set it or enabled: false`."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        said = ": ".join(part for part in (place, self.key, self.message) if part)
        text = f"{said}; {self.hint}" if self.hint else said
        return text.encode(errors="backslashreplace").decode()


class ConfigError(Exception):
    """The settings can't be used. `problems`: all of them; `files`: what to watch for them to be mended."""

    def __init__(self, problems: Iterable[Problem], files: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        self.files = tuple(files)
        super().__init__("\n".join(str(problem) for problem in self.problems))


Path = tuple[str | int, ...]


def dotted(path: Path) -> str:
    """`("alerts", "urls", 0)` → `alerts.urls[0]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def leaves(model: type[BaseModel] = Config, under: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key of the settings in the file's order, with its default."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, (*under, name))
        else:
            yield (*under, name), field.default


KEYS: Final = frozenset(dotted(path) for path, _ in leaves())


def _words() -> Mapping[str, str]:
    return {
        "bool_type": tr("must be true or false"),
        "int_type": tr("must be a whole number, without quotes"),
        "float_type": tr("must be a number, without quotes"),
        "finite_number": tr("must be a number, not inf or nan"),
        "string_type": tr("must be text; put it in quotes"),
        "string_unicode": tr("must be valid UTF-8 text"),
        "tuple_type": tr("must be a list"),
        "model_type": tr("must be a section of key: value lines, indented below it"),
        "greater_than": tr("must be more than {gt}"),
        "greater_than_equal": tr("must be {ge} or more"),
        "less_than_equal": tr("must be {le} or less"),
        "string_too_long": tr("must have {max_length} characters or fewer"),
        "literal_error": tr("must be {expected}"),
        "enum": tr("must be {expected}"),
    }


def explain(kind: str, path: Path, context: Mapping[str, Any], *, is_null: bool) -> tuple[str, str]:
    """Message and hint for one of pydantic's errors; its own text is not used, for it may quote the input."""
    if kind == "extra_forbidden":
        return tr("unknown key"), _meant(path)
    if is_null:
        return tr("has no value"), tr("give it one, or remove the line to have the default")
    if kind == "value_error":
        return str(context["error"]), ""
    known = {name: _written(value) for name, value in context.items()}
    known["expected"] = known.get("expected", "").replace(" or ", tr(" or ")).replace("'", "")
    return (_words().get(kind) or tr("is not valid")).format(**known), ""


def _written(value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return number(value) if value == int(value) else str(value)


def _meant(path: Path) -> str:
    """The key an operator probably meant: a like name in this section, else the same name elsewhere."""
    *section, name = dotted(path).split(".")
    siblings = {key.split(".")[len(section)] for key in KEYS if key.split(".")[: len(section)] == section}
    if near := difflib.get_close_matches(name, sorted(siblings), n=1):
        return tr("did you mean {key}?", key=near[0])
    elsewhere = sorted(key for key in KEYS if key.split(".")[-1] == name)
    if len(elsewhere) == 1:
        return tr("did you mean {key}?", key=elsewhere[0])
    return tr("known here: {keys}", keys=", ".join(sorted(siblings)))


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,29}")


def shown(name: str) -> str:
    """A key as an operator may see it; what is too long or odd for a key could be a secret, and is not shown."""
    return name if _NAME.fullmatch(name) else "…"
