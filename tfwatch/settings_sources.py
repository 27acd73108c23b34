"""Where a setting may come from besides config.yaml: the environment, `.env`, credentials and secret files.

Only here are files read. Every read is bounded and opens regular files only, so no pipe can hold up a start.
"""

from __future__ import annotations

import io
import os
import shlex
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dotenv.parser import parse_stream

from tfwatch.language import tr
from tfwatch.settings_problems import Problem

MAX_BYTES: Final = 1024**2

VARIABLES: Final[Mapping[str, str]] = {
    "GOTRANSCRIPT_ENABLED": "integrations.gotranscript.enabled",
    "GOTRANSCRIPT_BASE_URL": "integrations.gotranscript.base_url",
    "S3_ENDPOINT": "integrations.s3.endpoint_url",
    "S3_REGION": "integrations.s3.region",
    "S3_BUCKET": "integrations.s3.bucket",
    "TFWATCH_SPOOL_ROOT": "spool.root",
}
"""Environment variable → the key it sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretKey:
    """A key whose value may come in five ways; its `_file` key is `{key}_file`. `variable` None: there is none.

    `is_list`: the secret is a list, one entry a line. `may_be_path`: the value may name a file instead.
    """

    key: str
    credential: str
    variable: str | None = None
    is_list: bool = False
    may_be_path: bool = False


SECRETS: Final = (
    SecretKey(
        key="integrations.gotranscript.api_key", credential="gotranscript_api_key", variable="GOTRANSCRIPT_API_KEY"
    ),
    SecretKey(key="integrations.gotranscript.callback_url", credential="gotranscript_callback_url"),
    SecretKey(key="integrations.s3.access_key", credential="s3_access_key", variable="S3_ACCESS_KEY"),
    SecretKey(key="integrations.s3.secret_key", credential="s3_secret_key", variable="S3_SECRET_KEY"),
    SecretKey(
        key="integrations.sheets.service_account_json",
        credential="google_service_account_json",
        variable="GOOGLE_SERVICE_ACCOUNT_JSON",
        may_be_path=True,
    ),
    SecretKey(key="web.token", credential="web_token"),
    SecretKey(key="alerts.urls", credential="alert_urls", is_list=True),
)

_ALL_VARIABLES: Final = frozenset((*VARIABLES, *(secret.variable for secret in SECRETS if secret.variable)))
_OUR_PREFIXES: Final = ("GOTRANSCRIPT_", "S3_", "GOOGLE_SERVICE_", "TFWATCH_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a value was found. `label`: as `status` names it; `variable`: the environment variable, if it was one."""

    file: str
    line: int | None = None
    label: str
    variable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A file's whole text, and whether every user of the machine may read it."""

    text: str
    is_public: bool


class Unreadable(Exception):
    """A file that can't be read. `line` counts from 1, if one line is to blame."""

    def __init__(self, message: str, hint: str, *, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.line = line


class Forbidden(Unreadable):
    """This user may not read it; another one may."""


class Missing(Unreadable):
    """No file of that name."""


def read_text(path: str) -> Text:
    """Read a small UTF-8 file; raises `Unreadable` (and `Missing`), whose words don't name the path."""
    quoted = shlex.quote(path)
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable(tr("is not a regular file"), tr("name a file"))
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(tr("no such file"), tr("make it, or correct the name")) from None
    except PermissionError:
        said = tr("user {user} may not read it", user=os.geteuid())
        raise Forbidden(said, tr("look at its owner and mode: namei -l {path}", path=quoted)) from None
    # ValueError: a name with a NUL or half a surrogate pair
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else tr("not a file's name")
        raise Unreadable(tr("can't be read: {error}", error=reason), tr("correct the name")) from None
    return Text(text=_decoded(data), is_public=bool(status.st_mode & stat.S_IROTH))


def _decoded(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise Unreadable(tr("is larger than 1 MiB"), tr("this can't be the right file"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(tr("is not UTF-8 text"), tr("save it as UTF-8"), line=line) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """The environment over `.env`: values by name with their origins, and what was wrong in `.env`."""

    found: Mapping[str, tuple[str, Origin]]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def read_variables(environ: Mapping[str, str], dotenv_path: str, *, bystander: bool = False) -> Variables:
    """Our variables from the environment, else from `.env` if there is one. An empty value counts as not set.

    `bystander`: a `.env` that this user may not read is no problem.
    """
    found: dict[str, tuple[str, Origin]] = {}
    problems: list[Problem] = []
    warnings: list[str] = []
    try:
        dotenv = read_text(dotenv_path)
    except Missing:
        pass
    except Unreadable as error:
        if not (bystander and isinstance(error, Forbidden)):
            problems.append(Problem(file=dotenv_path, line=error.line, message=error.message, hint=error.hint))
    else:
        for name, value, line in _assignments(dotenv.text, dotenv_path, problems):
            if name in _ALL_VARIABLES:
                found[name] = value, Origin(file=dotenv_path, line=line, label=f".env:{line} {name}", variable=name)
            elif name.startswith(_OUR_PREFIXES):
                place = f"{dotenv_path}:{line}"
                warnings.append(tr("{place}: a variable here is not one of tfwatch's; check its spelling", place=place))
        if dotenv.is_public and any(secret.variable in found for secret in SECRETS):
            warnings.append(public_warning(dotenv_path))
    for name in _ALL_VARIABLES & environ.keys():
        if environ[name]:
            found[name] = environ[name], Origin(file="environment", label=f"environment {name}", variable=name)
    return Variables(found=found, problems=tuple(problems), warnings=tuple(warnings))


def _assignments(text: str, path: str, problems: list[Problem]) -> Iterator[tuple[str, str, int]]:
    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.line
        if binding.error:
            problems.append(
                Problem(file=path, line=line, message=tr("can't be understood"), hint=tr("write NAME=value"))
            )
        elif binding.key and binding.value:
            yield binding.key, binding.value, line


def public_warning(path: str) -> str:
    """What to say of a file with secrets that everyone may read."""
    return tr(
        "{path}: holds secrets and is readable by every user; chmod o-r {quoted}", path=path, quoted=shlex.quote(path)
    )


def credential_paths(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Where systemd may have put a credential, by `LoadCredential=name:file` or `LoadCredential=tfwatch:folder`."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    return (os.path.join(folder, name), os.path.join(folder, f"tfwatch_{name}")) if folder else ()
