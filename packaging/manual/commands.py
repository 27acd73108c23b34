"""The part of tfwatch(1) that is made from the command tree: what --help shows, as a manual page says it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import mdoc

from tfwatch.completion.tree import HELP, Command, Option, Tree


def synopsis(tree: Tree) -> Iterator[str]:
    """One line for each command with all that it takes."""
    for option in tree.options:
        yield ".Nm"
        yield f".Fl {_flag(option.names[0])}"
    for command in tree.commands:
        yield ".Nm"
        yield f".Cm {command.name}"
        for option in command.options:
            if option is not HELP:
                yield f".Op {_option(option, only=_shortest(option))}"
        for argument in command.arguments:
            yield f".Ar {_shown(argument.value.shown.removesuffix('...'))}{' ...' if argument.repeated else ''}"


def sections(tree: Tree) -> Iterator[str]:
    """A subsection for each command: what it does, its arguments and options, examples."""
    for command in tree.commands:
        yield f".Ss {mdoc.arguments(command.name)}"
        text, examples = told(command)
        yield from mdoc.converted(text)
        yield from mdoc.tagged([*_arguments(command), *_options(o for o in command.options if o is not HELP)])
        if examples:
            yield ".Pp"
            yield "Examples:"
            yield from mdoc.literal(examples)


def options(tree: Tree) -> Iterator[str]:
    """What stands before a command."""
    yield from mdoc.tagged(list(_options(tree.options)))


def told(command: Command) -> tuple[str, str]:
    """A command's help without and with only the block of examples, which a line with \\b begins."""
    text, _, examples = command.help.partition("\b\n")
    if "\n\n" in examples.strip():
        raise ValueError(f"tfwatch {command.name}: the examples must be the end of its help")
    return text, examples.strip("\n")


def _arguments(command: Command) -> Iterator[tuple[str, list[str]]]:
    for argument in command.arguments:
        yield f"Ar {_shown(argument.value.shown)}", list(mdoc.filled(mdoc.escaped(argument.help)))


def _options(given: Iterable[Option]) -> Iterator[tuple[str, list[str]]]:
    for option in given:
        text = f"{option.help} Default: {option.default}." if option.default else option.help
        yield _option(option), list(mdoc.filled(mdoc.escaped(text)))


def _option(option: Option, only: str | None = None) -> str:
    """Its macros: `Fl c , Fl -config Ar FILE`; `only`: under this one of its names."""
    names = sorted(option.names, key=_is_long) if only is None else [only]
    macros = " , ".join(f"Fl {_flag(name)}" for name in names)
    return f"{macros} Ar {_shown(option.value.shown)}" if option.value else macros


def _shortest(option: Option) -> str:
    """The name in the synopsis."""
    return min(option.names, key=_is_long)


def _is_long(name: str) -> bool:
    return name.startswith("--")


def _flag(name: str) -> str:
    """.Fl writes the first hyphen itself."""
    return mdoc.escaped(name[1:], as_typed=True)


def _shown(metavar: str) -> str:
    return mdoc.escaped(metavar, as_typed=True)
