"""What several commands need: common options, the settings they name, the spool these name, ways to end with words."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from tfwatch import language, local_time, terminal

if TYPE_CHECKING:
    from datetime import tzinfo

    from tfwatch.look import View
    from tfwatch.settings_problems import Problem

CONFIG: Final = 78
"""The exit code for settings that can't be used."""

ConfigFile = Annotated[
    str | None,
    typer.Option("--config", "-c", metavar="FILE", help="Default: $TFWATCH_CONFIG, then /etc/tfwatch/config.yaml."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, with stable keys.")]


def settings_path(config: str | None) -> str:
    """The settings file a command line names, else the default one; from now on its language is spoken."""
    from tfwatch.settings_file import default_path, language_of

    path = default_path(os.environ) if config is None else config
    language.use(language_of(path))
    return path


@contextmanager
def opened(config: str | None, *, tolerant: bool = False) -> Iterator[View]:
    """Look at the spool the settings name; ends the command with words and its exit code when that can't be done.

    `tolerant`: settings with problems are good enough to find the spool.
    """
    from tfwatch import look
    from tfwatch.settings_problems import ConfigError

    read = look.settings_with_problems if tolerant else look.settings_to_look
    path = settings_path(config)
    try:
        known = read(path, os.environ)
    except ConfigError as error:
        refuse(error.problems)
    local_time.use(known.config.timezone)
    try:
        with closing(look.open_view(known)) as view:
            yield view
    except look.Unavailable as error:
        if known.problems:
            refuse(known.problems)
        terminal.fail(str(error))
    except PermissionError as error:
        terminal.fail(f"{error.filename}: user {os.geteuid()} may not read it; {look.HOW_TO_BE_LET_IN}")


def refuse(problems: Iterable[Problem]) -> NoReturn:
    """List what is wrong with the settings and end the command."""
    lines = [str(problem) for problem in problems]
    terminal.fail(
        *lines, f"{len(lines)} problem(s) in the settings; mend them, then: tfwatch check-config", code=CONFIG
    )


def zone_of(view: View) -> tzinfo | None:
    """The time zone for people's eyes; None: the machine's own."""
    from zoneinfo import ZoneInfo

    name = view.settings.config.timezone
    return None if name == "local" else ZoneInfo(name)
