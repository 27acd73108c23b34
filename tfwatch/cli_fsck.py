"""`tfwatch fsck`: the command line of the comparison."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Annotated

import typer

from tfwatch import terminal
from tfwatch.cli_view import ConfigFile, Json, opened


def fsck(
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is safe; the rest is said.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Also hash every ZIP and make the index anew.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Ask neither S3 nor the sheet.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Compare folders, log.csv, its chain, the index, S3 and the sheet.

    Every difference is named with what mends it. Exit code 1 when something differs.
    Repairing never edits the log, deletes a ZIP or sends anything.

    \b
    tfwatch fsck
    tfwatch fsck --deep
    tfwatch fsck --repair     with the daemon stopped
    """
    from tfwatch import ask
    from tfwatch.cli_progress import shown
    from tfwatch.fsck import document
    from tfwatch.fsck.repair import repair as mend
    from tfwatch.fsck.survey import Scope, Survey

    with opened(config) as view:
        with shown() as progress:
            with closing(Survey(view, Scope(deep=deep, local=local), progress)) as survey:
                findings = survey.find()
            outcomes = [(found, False, "") for found in findings.differences]
            if repair:
                outcomes = mend(view, findings.differences, progress, user=ask.user_name(os.environ))
        result = document.assemble(view, findings, outcomes)
    if as_json:
        terminal.say_json(result)
    else:
        terminal.say_all(document.render(result))
    if not result["fine"]:
        raise typer.Exit(terminal.PROBLEM)
