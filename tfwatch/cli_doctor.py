"""`tfwatch doctor`: the command line of the checks."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from tfwatch import terminal
from tfwatch.cli_view import ConfigFile, Json, settings_path


def doctor(
    *,
    config: ConfigFile = None,
    send_test_alert: Annotated[
        bool, typer.Option("--send-test-alert", help="Also send a message to each address of alerts.urls.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Try out everything that deliveries need, on this machine and outside.

    Each line: what was tried, the result, and what to do. The exit code is 1 when something failed; warnings don't
    count. Works with the daemon running or stopped, as the user it runs as: use sudo. Nothing is sent, ordered or
    stored; a few hidden files come and go in the spool. Takes 30 s at most when services don't answer.

    \b
    sudo tfwatch doctor
    sudo tfwatch doctor --send-test-alert
    tfwatch doctor -c config.yaml
    sudo tfwatch doctor --json | jq '.checks[] | select(.result == "failure")'
    """
    from tfwatch import look
    from tfwatch.doctor import document
    from tfwatch.doctor.examine import examine, without_spool
    from tfwatch.settings_problems import ConfigError

    try:
        known = look.settings_with_problems(settings_path(config), os.environ)
    except ConfigError as error:
        result = document.assemble("", settings_path(config), "", without_spool(error.problems))
    else:
        found = examine(known, send_test_alert=send_test_alert)
        result = document.assemble(known.config.spool.root, known.path, found.user, found.findings)
    if as_json:
        terminal.say_json(result)
    else:
        terminal.say_all(document.render(result))
    if not result["fine"]:
        raise typer.Exit(terminal.PROBLEM)
