"""From config.yaml, the environment, `.env` and credentials to one `Config`, or to every problem at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from tfwatch.config import Config
from tfwatch.language import Language, tr
from tfwatch.settings_conflicts import conflicts
from tfwatch.settings_layers import Layers
from tfwatch.settings_problems import ConfigError, Problem, dotted, explain, leaves
from tfwatch.settings_values import is_loopback

_LANGUAGE: Final = re.compile(r"""^language: +(["']?)pt-BR\1 *(#.*)?$""", re.MULTILINE)
_MOST_READ: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Valid settings and where each came from.

    `sources`: every dotted key → `config.yaml:12`, `environment S3_BUCKET`, `.env:3 S3_BUCKET`, `credential NAME`,
    `PATH, named at config.yaml:7`, or `default`. `path`: absolute. `files`: absolute paths whose change may change
    the settings, `.env` among them even while there is none. `warnings`: sentences; the settings hold nevertheless.
    """

    config: Config
    sources: Mapping[str, str]
    path: str
    files: tuple[str, ...]
    warnings: tuple[str, ...]


def default_path(environ: Mapping[str, str]) -> str:
    """The settings file when none is named: `$TFWATCH_CONFIG`, then /etc/tfwatch/config.yaml."""
    return environ.get("TFWATCH_CONFIG") or "/etc/tfwatch/config.yaml"


def language_of(path: str) -> Language:
    """The language a settings file asks for, read by itself: what is wrong with the file is to be said in it, too."""
    try:
        if not os.path.isfile(path):  # a FIFO would keep us waiting
            return "en"
        with open(path, encoding="utf-8", errors="replace") as file:
            found = _LANGUAGE.search(file.read(_MOST_READ))
    except (OSError, ValueError):
        return "en"
    return "pt-BR" if found else "en"


def load(path: str, *, environ: Mapping[str, str], bystander: bool = False) -> Loaded:
    """Read and check everything. Reads files, changes nothing.

    `bystander`: whoever looks is not the daemon: that it has no secret of which they know nothing is not concluded.

    For every key the first of these that has it wins: the environment, `.env` beside the file, for secrets
    `$CREDENTIALS_DIRECTORY` and the `_file` key, the file itself, the default. Relative names of files in the
    settings count from the settings file's folder. Raises `ConfigError` with all problems, and nothing else.
    """
    layers = Layers(path, environ, bystander=bystander)
    problems = list(layers.problems)
    config, wrong = _validated(layers)
    problems += wrong
    if layers.sound:
        problems += _contradictions(config, layers, broken={problem.key for problem in problems} | layers.withheld)
    files = tuple(dict.fromkeys(layers.files))
    if problems:
        raise ConfigError(sorted(problems, key=lambda at: (at.file != path, at.file, at.line or 0)), files)
    return Loaded(
        config=_with_absolute_paths(config, layers.folder),
        sources=MappingProxyType({dotted(key): layers.source(dotted(key)) for key, _ in leaves()}),
        path=files[0],
        files=files,
        warnings=(*layers.warnings, *_warnings(config)),
    )


def _validated(layers: Layers) -> tuple[Config, list[Problem]]:
    """The settings and what is wrong with them; a wrong value stands at its default, so the rest can be judged."""
    try:
        return Config.model_validate(layers.data), []
    except ValidationError as error:
        # without the input: it may hold secrets
        found = error.errors(include_url=False, include_input=False)
    problems = [_problem(each, layers) for each in found]
    for each in found:
        layers.remove(each["loc"])
    return Config.model_validate(layers.data), problems


def _problem(error: Any, layers: Layers) -> Problem:
    key = dotted(error["loc"])
    whole = key.partition("[")[0]
    origin = layers.origin(whole)
    is_null = whole == key and layers.get(key, default=...) is None
    message, hint = explain(error["type"], error["loc"], error.get("ctx", {}), is_null=is_null)
    said = f"{origin.variable} {message}" if origin.variable else message
    return Problem(file=origin.file, line=origin.line, key=key, message=said, hint=hint)


def _contradictions(config: Config, layers: Layers, *, broken: set[str]) -> Iterator[Problem]:
    """What can't stand together, but nothing that only follows from a key already reported."""
    for found in conflicts(config):
        if not any(_within(key, broken) for key in found.about):
            line = layers.place(found.key).line
            yield Problem(file=layers.path, line=line, key=found.key, message=found.message, hint=found.hint)


def _within(key: str, broken: Iterable[str]) -> bool:
    return any(key == other or (other and key.startswith(f"{other}.")) for other in broken)


def _with_absolute_paths(config: Config, folder: str) -> Config:
    secrets_file = os.path.join(folder, config.webhooks.secrets_file)
    return config.model_copy(update={"webhooks": config.webhooks.model_copy(update={"secrets_file": secrets_file})})


def _warnings(config: Config) -> Iterator[str]:
    gotranscript = config.integrations.gotranscript
    if gotranscript.enabled and gotranscript.base_url and _is_exposed(gotranscript.base_url):
        yield tr(
            "integrations.gotranscript.base_url: the API key and the packages cross the network unencrypted; use https://"
        )
    if config.retention.delivered_days is not None and not config.integrations.s3.enabled:
        yield tr(
            "retention.delivered_days: nothing is removed, since a delivered package goes only after its backup, and "
            "s3 is off; set up integrations.s3, or remove the line"
        )
    if config.web.enabled and not is_loopback(config.web.host):
        yield tr(
            "web.host: the page and its token cross the network unencrypted; put a proxy with TLS in front of it, and "
            "listen on 127.0.0.1"
        )


def _is_exposed(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")
