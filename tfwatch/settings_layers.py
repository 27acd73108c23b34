"""One source over the other: config.yaml, over it what the environment, `.env`, credentials and secret files say.

For every key the first place that has it wins: environment, `.env`, for secrets the systemd credential and the
`_file` key, then config.yaml. Nothing is judged here but whether a named file can be read.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any, Final

from tfwatch.language import tr
from tfwatch.settings_problems import Path, Problem
from tfwatch.settings_sources import (
    SECRETS,
    VARIABLES,
    Forbidden,
    Missing,
    Origin,
    SecretKey,
    Text,
    Unreadable,
    credential_paths,
    public_warning,
    read_text,
    read_variables,
)
from tfwatch.settings_yaml import Tree, parse

_BOOLEANS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class Layers:
    """The settings of every source as one tree of raw values, and how it came about.

    `data`: nested, unjudged values. `origins`: dotted keys that another source than config.yaml has set. `files`:
    absolute paths that were read or looked for. `sound`: False when config.yaml itself could not be read.
    """

    def __init__(self, path: str, environ: Mapping[str, str], *, bystander: bool = False) -> None:
        """`bystander`: whoever looks isn't the daemon, so a secret that they may not read is no problem of its own."""
        self.path = path
        self.folder = os.path.dirname(os.path.abspath(path))
        dotenv = os.path.join(self.folder, ".env")
        self.files = [os.path.abspath(path), dotenv]
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.origins: dict[str, Origin] = {}
        self._is_public = False
        self._bystander = bystander
        tree = self._read_file()
        self.data, self.sound, self._lines = tree.data, tree.sound, tree.lines
        self.problems += tree.problems
        self._environ = environ
        variables = read_variables(environ, dotenv, bystander=bystander)
        self.problems += variables.problems
        self.warnings += variables.warnings
        self._variables = variables.found
        for name, key in VARIABLES.items():
            self._take_variable(name, key)
        for secret in SECRETS:
            self._take_secret(secret)
        if self._is_public and any(self.get(secret.key) and secret.key not in self.origins for secret in SECRETS):
            self.warnings.append(public_warning(path))

    @property
    def withheld(self) -> set[str]:
        """Secrets that whoever looks can't see, though the daemon may have them: keys, all that have no value here."""
        return {secret.key for secret in SECRETS if self._bystander and not self.get(secret.key)}

    # --- looking up

    def get(self, key: str, default: object = None) -> object:
        """The value of a dotted key, `default` when there is none."""
        return _get(self.data, tuple(key.split(".")), default)

    def origin(self, key: str) -> Origin:
        """Where a key was set; for one that was not, the nearest section around it in config.yaml."""
        return self.origins.get(key) or self.place(key)

    def place(self, key: str) -> Origin:
        """The line of a key in config.yaml, else of the nearest section around it, else the file."""
        path = tuple(key.split("."))
        for length in range(len(path), 0, -1):
            if (line := self._lines.get(path[:length])) is not None:
                return Origin(file=self.path, line=line, label=f"{self.path}:{line}")
        return Origin(file=self.path, label=self.path)

    def source(self, key: str) -> str:
        """Where the value of a key came from, in words; `default` when nobody set it."""
        if key in self.origins:
            return self.origins[key].label
        line = self._lines.get(tuple(key.split(".")))
        return "default" if line is None else f"{self.path}:{line}"

    def remove(self, path: Path) -> None:
        """Take a value out, so that its default stands; of a list the whole."""
        while path and isinstance(path[-1], int):
            path = path[:-1]
        section = _get(self.data, path[:-1], None)
        if isinstance(section, dict):
            section.pop(path[-1], None)

    # --- laying one over the other

    def _read_file(self) -> Tree:
        try:
            text = read_text(self.path)
        except Missing as error:
            hint = tr("make one: cp config.yaml.example {path}", path=shlex.quote(self.path))
            problem = Problem(file=self.path, message=error.message, hint=hint)
        except Unreadable as error:
            problem = Problem(file=self.path, line=error.line, message=error.message, hint=error.hint)
        else:
            self._is_public = text.is_public
            return parse(text.text, self.path)
        return Tree(data={}, lines={}, problems=(problem,), sound=False)

    def _set(self, key: str, value: object, origin: Origin) -> None:
        """Put a value over config.yaml's; a parent there that is no section stays as it is, to be reported."""
        *parents, name = key.split(".")
        section = self.data
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                return
        section[name] = value
        self.origins[key] = origin

    def _take_variable(self, name: str, key: str) -> None:
        if name in self._variables:
            text, origin = self._variables[name]
            is_switch = key.endswith(".enabled")
            self._set(key, _BOOLEANS.get(text.strip().lower(), text) if is_switch else text, origin)

    def _take_secret(self, secret: SecretKey) -> None:
        """The first place that has the secret wins; the later ones are not even looked at."""
        if secret.variable and secret.variable in self._variables:
            text, origin = self._variables[secret.variable]
            if not self._took_path(secret, text, secret.key, origin):
                self._set(secret.key, text, origin)
        elif not self._took_credential(secret) and not self._took_key_file(secret):
            self._took_path(secret, self.get(secret.key), secret.key, self.place(secret.key))

    def _took_credential(self, secret: SecretKey) -> bool:
        for path in credential_paths(self._environ, secret.credential):
            origin = Origin(file=path, label=f"credential {os.path.basename(path)}")
            self.files.append(path)
            try:
                text = read_text(path)
            except Missing:
                continue
            except Unreadable as error:
                if self._bystander and isinstance(error, Forbidden):
                    return True
                self._refuse(secret.key, origin, error.message, error.hint)
            else:
                self._set_content(secret, text, origin)
            return True
        return False

    def _took_key_file(self, secret: SecretKey) -> bool:
        key = f"{secret.key}_file"
        name = self.get(key)
        if not isinstance(name, str) or not name:
            return False
        place = self.place(key)
        if self.get(secret.key):
            text = tr(
                "{place}: {key} wins over {other}; remove one of them", place=place.label, key=key, other=secret.key
            )
            self.warnings.append(text)
        self._take_file(secret, name, key, place)
        return True

    def _took_path(self, secret: SecretKey, value: object, key: str, named: Origin) -> bool:
        """Some secrets may be given as the path of their file: then the file is read."""
        if not (secret.may_be_path and isinstance(value, str)) or not value.strip() or value.lstrip().startswith("{"):
            return False
        self._take_file(secret, value, key, named)
        return True

    def _take_file(self, secret: SecretKey, name: str, key: str, named: Origin) -> None:
        """Read a secret from the file that `key` names; a relative name counts from config.yaml's folder."""
        path = os.path.join(self.folder, name)
        try:
            text = read_text(path)
        except Unreadable as error:
            self.remove(tuple(secret.key.split(".")))
            if self._bystander and isinstance(error, Forbidden):
                pass
            elif os.path.isabs(name):
                self._refuse(key, named, f"{path}: {error.message}", error.hint)
            else:
                # the name is not shown: it may be the secret itself, put in the wrong place
                said = tr("the file it names, looked for in {folder}: {error}", folder=self.folder, error=error.message)
                self._refuse(key, named, said, tr("give the file's absolute path"))
        else:
            self._set_content(secret, text, Origin(file=path, label=f"{path}, named at {named.label}"))
            if text.is_public:
                self.warnings.append(public_warning(path))
        self.files.append(path)

    def _set_content(self, secret: SecretKey, text: Text, origin: Origin) -> None:
        content = text.text.rstrip("\r\n")
        if not content.strip():
            self._refuse(secret.key, origin, tr("the file is empty"), tr("put the secret in, or stop naming the file"))
        elif secret.is_list:
            lines = (line.strip() for line in content.splitlines())
            self._set(secret.key, [line for line in lines if line and not line.startswith("#")], origin)
        else:
            self._set(secret.key, content, origin)

    def _refuse(self, key: str, origin: Origin, message: str, hint: str) -> None:
        said = f"{origin.variable}: {message}" if origin.variable else message
        self.problems.append(Problem(file=origin.file, line=origin.line, key=key, message=said, hint=hint))


def _get(data: Any, path: Path, default: object) -> Any:
    for part in path:
        if not isinstance(data, dict) or part not in data:
            return default
        data = data[part]
    return data
