"""`tfwatch restore`: the command line of bringing a package back."""

from __future__ import annotations

from typing import Annotated

import typer

from tfwatch import terminal
from tfwatch.cli_view import ConfigFile, Json, opened


def restore(
    word: Annotated[str, typer.Argument(metavar="NAME|SHA", help="A name, or 8 digits of the SHA-256.")],
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FOLDER", help="Put it there; else into delivered/, where it was.")
    ] = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Bring a package back from its backup in S3.

    Every byte is verified on its way; a file that lies in its way stays. Back in delivered/, retention counts its days
    anew.

    \b
    tfwatch restore interview_v2.zip
    tfwatch restore 9f86d081 --to /tmp
    """
    from tfwatch.ask import NotPossible
    from tfwatch.cli_progress import shown
    from tfwatch.restore import bring_back, choose, target_of

    with opened(config) as view:
        try:
            state = choose(view, word)
            target = target_of(view, state, to)
            with shown() as progress:
                document = bring_back(view, state, target, progress)
        except NotPossible as error:
            terminal.fail(*map(str, error.args))
    if as_json:
        terminal.say_json(document)
        return
    terminal.say(f"{document['package']}: is back, whole: {document['path']}", "good")
    if document["stage"]:
        when = "in a moment" if document["daemon_running"] else "at its next start (systemctl start tfwatch)"
        terminal.say(f"the daemon logs that {when}; retention counts its days from then on")
