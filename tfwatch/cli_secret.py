"""`tfwatch rotate-secret`: the command line of making secrets for webhooks."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from tfwatch import language, local_time, terminal
from tfwatch.cli_view import ConfigFile, Json, refuse, settings_path

if TYPE_CHECKING:
    from tfwatch.webhook_rotation import Rotation

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST = timedelta(days=90)


def rotate_secret(
    integration: Annotated[str, typer.Argument(metavar="INTEGRATION", help="Who calls, as gotranscript.")],
    *,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="How long the old one stays valid: 30m, 24h, 7d, 0.")
    ] = "24h",
    path_token: Annotated[
        bool, typer.Option("--path-token", help="A token for the address, for callers that can't sign.")
    ] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a new secret for webhooks; shown this once.

    The old one stays valid for a while. A running daemon takes it with the next call.

    \b
    tfwatch rotate-secret gotranscript
    tfwatch rotate-secret gotranscript --overlap 7d
    tfwatch rotate-secret gotranscript --path-token
    """
    from tfwatch import look
    from tfwatch.settings_problems import ConfigError
    from tfwatch.webhook_rotation import rotate
    from tfwatch.webhook_secrets import INTEGRATION, SecretsUnusable

    if not INTEGRATION.fullmatch(integration):
        raise typer.BadParameter("an integration's name has up to 64 letters, digits, dots, hyphens, underscores")
    lasting = _seconds(overlap)
    path = settings_path(config)
    try:
        settings = look.settings(path, os.environ).config
    except ConfigError as error:
        refuse(error.problems)
    language.use(settings.language)
    local_time.use(settings.timezone)
    try:
        done = rotate(
            settings.webhooks.secrets_file, integration, kind="path_token" if path_token else "secret",
            overlap=lasting, now=datetime.now(UTC), like=path,
        )  # fmt: skip
    except SecretsUnusable as error:
        terminal.fail(str(error), "nothing was changed")
    except OSError as error:
        name = error.filename or settings.webhooks.secrets_file
        terminal.fail(f"{name}: {error.strerror}; nothing was changed: run the command with sudo, or look at the disk")
    if as_json:
        terminal.say_json(_document(done))
        return
    for line in _lines(done):
        terminal.say(line)


def _seconds(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,9})\s*([smhd]?)", text.strip().lower(), re.ASCII)
    if found is None or (not found[2] and int(found[1])):
        raise typer.BadParameter("--overlap must be a number with its unit: 30m, 24h, 7d; or 0")
    lasting = timedelta(seconds=int(found[1]) * _UNITS[found[2] or "s"])
    if lasting > _LONGEST:
        raise typer.BadParameter("--overlap must be at most 90d: a secret that stays valid for ever is never rotated")
    return lasting


def _document(done: Rotation) -> dict[str, object]:
    from tfwatch.model import rfc3339

    previous = done.previous
    return {
        "integration": done.integration,
        "kind": done.kind,
        "secret": done.value,
        "fingerprint": done.fingerprint,
        "created_at": rfc3339(done.created_at),
        "previous_fingerprint": previous.fingerprint if previous else None,
        "previous_valid_until": rfc3339(previous.valid_until) if previous and previous.valid_until else None,
        "file": done.path,
    }


def _lines(done: Rotation) -> list[str]:
    from tfwatch.local_time import to_the_second

    what, where = "secret", "as the signing secret of its webhooks"
    if done.kind == "path_token":
        what, where = "path token", f"as the end of the address it calls: /webhooks/{done.integration}/TOKEN"
    lines = [f"{done.integration}: new {what}, valid from now on (fingerprint {done.fingerprint}):", "", done.value, ""]
    lines.append(f"It is shown this once. What to do: enter it at {done.integration}, {where}.")
    if done.previous is not None and done.previous.valid_until is not None:
        until = to_the_second(done.previous.valid_until)
        lines.append(f"Until {until} the old one (fingerprint {done.previous.fingerprint}) is valid too.")
    else:
        lines.append("No other one is valid any more.")
    if done.dropped:
        lines.append(f"The one before that (fingerprint {done.dropped}) is not valid any more: only two are at once.")
    return lines
