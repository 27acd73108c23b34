"""`tfwatch requeue`, `cancel`, `enable` and `disable`: the command line of asking the daemon for something."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from tfwatch import terminal
from tfwatch.cli_view import ConfigFile, Json, opened
from tfwatch.model import Integration
from tfwatch.spool.names import printable

if TYPE_CHECKING:
    from tfwatch.look import Stand
    from tfwatch.requests import Command

IntegrationName = Annotated[Integration, typer.Argument(metavar="INTEGRATION", help="gotranscript, s3 or sheets.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the log.")]


def requeue(
    words: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names, or SHA-256 digits.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Ask for a second order of what was accepted.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Put packages back into outbox/ to be sent again.

    All of them, or none if one can't be.

    \b
    tfwatch requeue interview_v2.zip
    tfwatch requeue --force interview_v2.zip     a second order of it
    """
    from tfwatch import ask

    with opened(config) as view:
        states, refused = [], []
        for word in words:
            try:
                state = ask.choose(view, word)
                ask.check_requeue(view, state, forced=force)
            except ask.NotPossible as error:
                refused.append(str(error))
            else:
                states.append(state)
        if refused:
            terminal.fail(*refused, "nothing was put back")
        request = ask.requeue_request(states, user=ask.user_name(os.environ), forced=force)
        taken = ask.leave(view, request)
        packages = [
            {"package": printable(s.name), "sha256": s.sha256, "now_in": [p.value for p in view.places(s.name)]}
            for s in states
        ]
    if as_json:
        terminal.say_json({"taken": taken is True, "packages": packages})
    else:
        for package in packages:
            place = " and ".join(f"{p}/" for p in package["now_in"]) or "no folder"
            terminal.say(
                f"{package['package']}: now in {place}"
                if taken
                else f"{package['package']}: {_taken_later(taken=taken)}"
            )
    if taken is False:
        raise typer.Exit(terminal.PROBLEM)


def cancel(
    words: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names, or SHA-256 digits of known ones.")],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also what was accepted: its order goes on, and is not followed any more.")
    ] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Keep packages that wait in outbox/ from being sent: they go to rejected/.

    All of them, or none if one can't be. It is for what others have dropped, too, which mv can't take out of outbox/.

    \b
    tfwatch cancel interview_v2.zip
    tfwatch cancel --force interview_v2.zip     stop following an order
    """
    from tfwatch import ask
    from tfwatch.requests import Request

    with opened(config) as view:
        names, refused = [], []
        for word in words:
            try:
                names.append(ask.choose_to_cancel(view, word, accepted_too=force))
            except ask.NotPossible as error:
                refused.append(str(error))
        if refused:
            terminal.fail(*refused, "nothing was cancelled")
        request = Request(command="cancel", user=ask.user_name(os.environ), names=tuple(names), forced=force)
        taken = ask.leave(view, request)
        packages = [{"package": printable(name), "now_in": [p.value for p in view.places(name)]} for name in names]
    missed = [package["package"] for package in packages if taken and "rejected" not in package["now_in"]]
    if as_json:
        terminal.say_json({"taken": taken is True, "packages": packages})
    else:
        for package in packages:
            name, place = package["package"], " and ".join(f"{p}/" for p in package["now_in"]) or "no folder"
            if not taken:
                terminal.say(f"{name}: {_taken_later(taken=taken)}")
            elif name in missed:
                terminal.say(
                    f"{name}: not cancelled, now in {place}; the journal says why: journalctl -u tfwatch -n 20"
                )
            else:
                terminal.say(f"{name}: cancelled, now in {place}")
    if taken is False or missed:
        raise typer.Exit(terminal.PROBLEM)


def enable(
    integration: IntegrationName, *, reason: Reason = "", config: ConfigFile = None, as_json: Json = False
) -> None:
    """Take an integration back into use.

    After a rollback, a pause or `disable`; what a rollback rejected is requeued.

    \b
    tfwatch enable gotranscript
    """
    _switch("enable", integration, reason, config, as_json=as_json)


def disable(
    integration: IntegrationName, *, reason: Reason = "", config: ConfigFile = None, as_json: Json = False
) -> None:
    """Stop using an integration until `enable`.

    Whatever the settings say; packages wait.

    \b
    tfwatch disable gotranscript --reason "the portal moves tonight"
    """
    _switch("disable", integration, reason, config, as_json=as_json)


def _switch(command: Command, integration: Integration, reason: str, config: str | None, *, as_json: bool) -> None:
    from tfwatch import ask
    from tfwatch.look import open_view
    from tfwatch.requests import Request

    with opened(config) as view:
        request = Request(command=command, user=ask.user_name(os.environ), integration=integration, reason=reason)
        taken = ask.leave(view, request)
        with closing(open_view(view.settings)) as after:
            stand = after.stand(integration)
    if as_json:
        terminal.say_json({
            "integration": integration.value, "taken": taken is True, "enabled": stand.enabled, "state": stand.state,
            "source": stand.source, "reason": printable(stand.reason), "what_to_do": stand.what_to_do,
        })  # fmt: skip
    elif taken:
        terminal.say(_standing(integration, command, stand))
    else:
        terminal.say(f"{integration}: {_taken_later(taken=taken)}")
    if taken is False or (taken and command == "enable" and not stand.enabled):
        raise typer.Exit(terminal.PROBLEM)


def _standing(integration: Integration, command: Command, stand: Stand) -> str:
    if command == "enable" and stand.state == "off":
        return f"{integration}: enabled, but {stand.source} has it off: {stand.what_to_do}"
    if command == "enable" and stand.state == "held":
        return f"{integration}: enabled, but nothing can be sent yet: {stand.reason}"
    why = f": {stand.reason}" if stand.reason and stand.state != "enabled" else ""
    return f"{integration}: {stand.state} ({stand.source}){why}"


def _taken_later(*, taken: bool | None) -> str:
    if taken is None:
        return "noted; no daemon is running, so it is done at the next start (systemctl start tfwatch)"
    return "noted, but the daemon has not taken it up yet; look again in a moment: tfwatch status"
