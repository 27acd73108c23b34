"""`tfwatch check-config`: what holds, where it came from, and whether the spool is there. Touches nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr

from tfwatch.config import Config
from tfwatch.look import Settings
from tfwatch.settings_problems import Problem, dotted, leaves
from tfwatch.settings_sources import SECRETS
from tfwatch.spool.names import printable

Document = dict[str, Any]


def assemble(settings: Settings) -> Document:
    """Valid settings as plain values: those that are not at their default with their source; secrets never shown."""
    values = {dotted(path): _value(settings.config, path) for path, _ in leaves()}
    secrets = {secret.key for secret in SECRETS}
    return {
        "config": printable(settings.path),
        "problems": [],
        "warnings": list(settings.warnings),
        "settings": {
            key: {"value": _shown(values[key], is_secret=key in secrets), "source": source}
            for key, source in settings.sources.items()
            if source != "default"
        },
        "secrets": {key: "set" if values[key] else "not set" for key in sorted(secrets)},
        "spool": list(_spool_problems(settings.config.spool.root)),
    }


def refusal(path: str, problems: tuple[Problem, ...]) -> Document:
    """The same document for settings that can't be used."""
    listed = [{"file": p.file, "line": p.line, "key": p.key, "message": p.message, "hint": p.hint} for p in problems]
    return {"config": printable(path), "problems": listed}


def render(document: Document) -> Iterator[tuple[str, str]]:
    """The document as lines for people, each with its style (see `report.Styled`)."""
    width = max((len(key) for key in document["settings"]), default=0)
    for key, found in document["settings"].items():
        yield f"  {key:<{width}}  {_plain(found['value'])}  ({found['source']})", ""
    for key, stands in document["secrets"].items():
        if key not in document["settings"]:
            yield f"  {key:<{width}}  {stands}", "dim"
    yield "  everything else is at its default", "dim"
    for warning in (*document["warnings"], *document["spool"]):
        yield f"warning: {warning}", "bad"
    yield f"{document['config']}: fine", "good"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(config: Config, path: tuple[str, ...]) -> object:
    found: object = config
    for name in path:
        found = getattr(found, name)
    return found


def _shown(value: object, *, is_secret: bool) -> object:
    if is_secret or isinstance(value, SecretStr):
        return "set" if value else "not set"
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _spool_problems(root: str) -> Iterator[str]:
    if not os.path.isdir(root):
        what = "is not a folder" if os.path.lexists(root) else "does not exist yet"
        yield f"{root}: the spool {what}; make it: sudo install -d -o tfwatch -g tfwatch -m 2770 {root}"
    elif not os.access(root, os.W_OK | os.X_OK, effective_ids=True):
        yield f"{root}: user {os.geteuid()} may not write there; the daemon's user must: look at its owner and mode"
