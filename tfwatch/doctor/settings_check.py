"""config.yaml and the files with secrets: are they valid, and does nobody read them who shouldn't?"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Iterator

from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, ok, skipped, warning
from tfwatch.look import Settings
from tfwatch.settings_problems import Problem
from tfwatch.settings_sources import SECRETS, public_warning

_OTHERS = stat.S_IROTH | stat.S_IWOTH
_STRANGERS_MAY_WRITE = stat.S_IWOTH


def settings(known: Settings) -> Iterator[Finding]:
    """Every problem and warning of the settings, each in its own words."""
    yield from broken(known.problems)
    secret_warnings = {public_warning(path) for path in (*known.files, known.path)}
    for said in known.warnings:
        if said not in secret_warnings:  # `secrets` has it
            what, _, hint = said.partition("; ")
            yield warning("settings", what, hint or "see config.yaml.example")
    if not known.problems and not known.warnings:
        yield ok("settings", f"{known.path} is valid")


def broken(problems: Iterable[Problem]) -> Iterator[Finding]:
    """What keeps settings from being used."""
    for problem in problems:
        hint = problem.hint or "mend the line, then: tfwatch check-config"
        yield failure("settings", str(problem).removesuffix(f"; {problem.hint}"), hint)


def secrets(known: Settings) -> Iterator[Finding]:
    """Modes of every file that holds a secret. Call while this process may still look at root's files."""
    holding = [path for path in _files_with_secrets(known) if os.path.exists(path)]
    wrong = False
    for path in holding:
        try:
            mode = os.stat(path).st_mode
        except PermissionError:
            yield skipped("secrets", f"{path}: user {os.geteuid()} may not look at it", "sudo tfwatch doctor")
            wrong = True
            continue
        if mode & _OTHERS:
            what = "changed" if mode & _STRANGERS_MAY_WRITE else "read"
            seen = f"{path} holds secrets and may be {what} by every user (mode {stat.S_IMODE(mode):04o})"
            yield failure("secrets", seen, f"chmod o-rwx {shlex.quote(path)}; then change what was in it")
            wrong = True
    if not wrong:
        yield ok("secrets", f"{len(holding)} file(s) with secrets, none open to every user")


def _files_with_secrets(known: Settings) -> list[str]:
    """config.yaml and `.env` only if a secret stands in them; every other file was read for its secret alone."""
    sources = {known.sources.get(secret.key, "") for secret in SECRETS}
    in_config = any(source.startswith(f"{known.path}:") for source in sources)
    in_dotenv = any(source.startswith(".env:") for source in sources)
    config, dotenv = known.files[:2] if len(known.files) > 1 else (known.path, "")
    named = [path for path in known.files if path not in (config, dotenv)]
    return [*([config] if in_config else ()), *([dotenv] if in_dotenv else ()), *named]


def readable(case: Case) -> Iterator[Finding]:
    """Whether the daemon's user may read the settings; credentials are read for it by systemd."""
    for path in case.settings.files:
        if path.startswith("/run/credentials/") or os.access(path, os.R_OK, effective_ids=True):
            continue
        if os.path.lexists(path) or not os.access(os.path.dirname(path), os.X_OK, effective_ids=True):
            quoted = shlex.quote(path)
            do = f"sudo chgrp {case.user.group} {quoted} && sudo chmod g+r {quoted}; else: namei -l {quoted}"
            yield failure("settings", f"{path}: {case.user.name} may not read it", do)
