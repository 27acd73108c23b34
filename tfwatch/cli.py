"""The command line: commands and exit codes; no policy. What a command doesn't need is not imported: most end soon.

Exit codes: 0 fine, 1 a problem was found, 2 wrong usage, 75 another daemon holds the spool, 78 configuration error.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from tfwatch import __version__, terminal
from tfwatch.cli_ask import cancel, disable, enable, requeue
from tfwatch.cli_completion import completion
from tfwatch.cli_doctor import doctor
from tfwatch.cli_fsck import fsck
from tfwatch.cli_restore import restore
from tfwatch.cli_sandbox import sandbox
from tfwatch.cli_secret import rotate_secret
from tfwatch.cli_view import CONFIG, ConfigFile, Json, opened, refuse, settings_path, zone_of
from tfwatch.local_time import to_the_second

app = typer.Typer(
    help="Deliver ZIPs: drop one into outbox/, and it is sent once, tracked, backed up and logged.",
    epilog="Exit codes: 0 fine, 1 a problem was found, 2 wrong usage, 75 another daemon holds this spool, "
    "78 configuration error.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help starts in half the time and reads well in a pipe; a traceback must not show variables: secrets.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point."""
    terminal.set_up()
    app()


def _show_version(wanted: bool) -> None:  # noqa: FBT001  typer calls it so
    if wanted:
        from tfwatch.built import build

        python = "Python " + ".".join(map(str, sys.version_info[:3]))
        made_of = build()
        typer.echo(f"tfwatch {__version__} ({f'build {made_of}, ' if made_of else ''}{python})")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


# --- the daemon -----------------------------------------------------------------------------------------------------


@app.command()
def run(*, config: ConfigFile = None) -> None:
    """Run the daemon in the foreground until SIGTERM.

    \b
    tfwatch run -c /etc/tfwatch/config.yaml
    """
    from tfwatch import app as composition

    raise typer.Exit(composition.run(settings_path(config), os.environ))


@app.command("check-config")
def check_config(*, config: ConfigFile = None, as_json: Json = False) -> None:
    """Check config.yaml: every problem with its line.

    If there is none: where each value comes from. Changes nothing.

    \b
    tfwatch check-config -c config.yaml
    """
    from tfwatch import check, look
    from tfwatch.settings_problems import ConfigError

    path = settings_path(config)
    try:
        settings = look.settings(path, os.environ)
    except ConfigError as error:
        if as_json:
            terminal.say_json(check.refusal(path, error.problems))
            raise typer.Exit(CONFIG) from None
        refuse(error.problems)
    document = check.assemble(settings)
    if as_json:
        terminal.say_json(document)
    else:
        terminal.say_all(check.render(document))


# --- looking --------------------------------------------------------------------------------------------------------


@app.command()
def status(*, config: ConfigFile = None, as_json: Json = False) -> None:
    """Show what the daemon does and what waits.

    The exit code is 1 when something needs a person.

    \b
    tfwatch status
    tfwatch status --json | jq .stages.outbox.count
    """
    from datetime import UTC, datetime

    from tfwatch import report

    with opened(config, tolerant=True) as view:
        document = report.assemble(view, datetime.now(UTC), to_the_second)
        if as_json:
            terminal.say_json(document)
        else:
            terminal.say_all(report.render(document, to_the_second))
    if document["config_problems"]:
        raise typer.Exit(CONFIG)
    if document["needs_a_person"]:
        raise typer.Exit(terminal.PROBLEM)


@app.command()
def why(
    word: Annotated[str, typer.Argument(metavar="NAME|SHA|TRACE|ORDER", help="A name, or 8 digits of the SHA-256.")],
    *,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Tell the whole story of a package.

    What happened to it, where it is now, and what to do next.

    \b
    tfwatch why interview_v2.zip
    tfwatch why outbox/interview_v2.zip
    tfwatch why 9f86d081
    """
    from tfwatch import ask
    from tfwatch import why as told

    with opened(config) as view:
        document = told.assemble(view, word, to_the_second)
        if as_json:
            terminal.say_json(document)
        elif told.is_known(document):
            terminal.say_all(told.render(document, to_the_second))
        else:
            terminal.fail(ask.unknown(view, word))
    if not told.is_known(document):
        raise typer.Exit(terminal.PROBLEM)


@app.command("log")
def show_log(
    *,
    config: ConfigFile = None,
    excel: Annotated[bool, typer.Option("--excel", help="For Brazilian Excel: ';', BOM, local time.")] = False,
    last: Annotated[int | None, typer.Option("-n", min=0, metavar="N", help="Only the last N rows.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new rows until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print log.csv.

    \b
    tfwatch log -n 20
    tfwatch log --excel > log.csv
    tfwatch log --json --follow
    """
    from tfwatch import printlog

    if excel and as_json:
        raise typer.BadParameter("--excel and --json exclude each other")
    with opened(config) as view:
        shape = printlog.Shape.EXCEL if excel else printlog.Shape.JSON if as_json else printlog.Shape.CSV
        try:
            for row in printlog.shaped(view.folders.log, shape, zone_of(view), last=last, follow=follow):
                sys.stdout.buffer.write(row)
                if follow:
                    sys.stdout.buffer.flush()
        except printlog.Unprintable as error:
            sys.stdout.buffer.flush()
            terminal.fail(str(error))
        except FileNotFoundError:
            terminal.fail(f"{view.folders.log}: there is no log yet; it begins with the first package")
        except KeyboardInterrupt:
            raise typer.Exit from None


app.command()(fsck)
app.command()(doctor)
app.command()(restore)


# --- asking the daemon ------------------------------------------------------------------------------------------------

app.command()(requeue)
app.command()(cancel)
app.command()(enable)
app.command()(disable)
app.command("rotate-secret")(rotate_secret)
app.command()(sandbox)
# Not in the list of commands: it is for one day, and the manual has it.
app.command(hidden=True)(completion)


@app.command()
def demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running until Ctrl-C, and the folders.")] = False,
    as_json: Json = False,
) -> None:
    """Show the main job end to end on this machine; no account is needed.

    Starts a portal, a Sheets service, a real S3 server and the daemon on a temporary spool, drops a few packages and
    shows where each went. Exit code 0 only if each ended where it should.

    \b
    tfwatch demo
    tfwatch demo --keep     leaves it running to play with
    """
    from tfwatch.demo.run import run as run_demo

    raise typer.Exit(run_demo(keep=keep, as_json=as_json))
