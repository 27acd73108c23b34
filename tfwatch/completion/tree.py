"""The command tree as plain values, for those who write about it: completions and the manual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tfwatch.model import Integration

_PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "requeue": ("rejected",),
    "cancel": ("outbox", "submitted"),
    "why": ("outbox", "submitted", "delivered", "rejected"),
}
"""Command → the folders whose packages are worth offering for its NAME."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What one option or argument takes. At most one of the others is set; none: nothing can be offered.

    `shown`: as help writes it, for example FILE. `folders`: the names of packages in these folders of the spool.
    """

    shown: str
    words: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    is_file: bool = False
    is_folder: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option. `names`: as typed, --config and -c. `value` None: a flag. `default`: as people read it."""

    names: tuple[str, ...]
    help: str
    value: Value | None = None
    default: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument; `repeated`: one or more."""

    value: Value
    help: str
    repeated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command. `help`: its docstring; a block after a line with \\b stands as it is. `hidden`: not in --help."""

    name: str
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    hidden: bool

    @property
    def summary(self) -> str:
        """The first line of its help, without the full stop."""
        return self.help.partition("\n")[0].removesuffix(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """All of the command line: what stands before a command, and the commands in the order of --help."""

    help: str
    options: tuple[Option, ...]
    commands: tuple[Command, ...]


HELP: Final = Option(names=("--help", "-h"), help="Show this message and exit.")


def read(group: Any) -> Tree:
    """The tree of what `typer.main.get_group` gives. Of typer's objects only what every version has is looked at."""
    return Tree(
        help=group.help,
        options=(*_options("", group), HELP),
        commands=tuple(
            Command(
                name=name,
                help=command.help,
                options=(*_options(name, command), HELP),
                arguments=tuple(
                    Argument(value=_value(name, p.metavar), help=p.help or "", repeated=p.nargs == -1)
                    for p in command.params
                    if p.param_type_name == "argument"
                ),
                hidden=bool(command.hidden),
            )
            for name, command in group.commands.items()
        ),
    )


def _options(command: str, of: Any) -> tuple[Option, ...]:
    return tuple(
        Option(
            names=tuple(sorted((*p.opts, *p.secondary_opts), key=lambda name: not name.startswith("--"))),
            help=p.help or "",
            value=None if p.is_flag else _value(command, p.metavar),
            default="" if p.is_flag or p.default in (None, "") else str(p.default),
        )
        for p in of.params
        if p.param_type_name == "option"
    )


def _value(command: str, metavar: str | None) -> Value:
    """A metavar says what can be offered: FILE, FOLDER, INTEGRATION, NAME, or the words themselves: a|b|c."""
    if metavar is None:
        raise ValueError(f"tfwatch {command}: an option or argument has no metavar=; it says what completion offers")
    if metavar == "INTEGRATION":
        # Only one of them calls in with webhooks.
        words = (Integration.GOTRANSCRIPT,) if command == "rotate-secret" else tuple(Integration)
        return Value(shown=metavar, words=tuple(map(str, words)))
    if metavar.startswith("NAME"):
        return Value(shown=metavar, folders=_PACKAGES.get(command, ()))
    if metavar.islower():
        return Value(shown=metavar, words=tuple(metavar.split("|")))
    return Value(shown=metavar, is_file=metavar == "FILE", is_folder=metavar == "FOLDER")
