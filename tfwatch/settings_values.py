"""What single values must look like: small functions that return the clean value or raise ValueError.

The message of each ValueError goes on from the key's name ("must …") and never quotes the value. Pure, but for
`timezone`, which looks into the system's time zone database.
"""

from __future__ import annotations

import ipaddress
import json
import re
import zoneinfo
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from tfwatch.language import tr

_SIZE = re.compile(r"(?P<number>\d{1,19}(?:\.\d{1,6})?) ?(?:(?P<prefix>[kmgtp])(?P<binary>i?))?b?", re.IGNORECASE)
_BARE_PREFIX = re.compile(r"\d+(\.\d+)? ?[kmgtp]", re.IGNORECASE)
_POWER: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def size(value: Any) -> Any:
    """`1GiB`, `500 MiB`, `10GB`, `1.5 TiB`, `2048` → bytes. Anything but text is left for the field to judge."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None or _BARE_PREFIX.fullmatch(value.strip()):
        raise ValueError(tr("must be a size in bytes, or with a unit as in 500MiB, 1GiB, 10GB"))
    base = 1024 if found["binary"] else 1000
    return int(Fraction(found["number"]) * base ** _POWER[(found["prefix"] or "").lower()])


def upper(value: Any) -> Any:
    """`info` → `INFO`."""
    return value.upper() if isinstance(value, str) else value


def empty_is_none(value: Any) -> Any:
    """`""` is how people write "not set" for a secret."""
    return None if value == "" else value


def line(text: str) -> str:
    """One line of visible text."""
    if not text.strip():
        raise ValueError(tr("must not be empty"))
    if not text.isprintable():
        raise ValueError(tr("must be one line without control characters"))
    return text


def absolute_path(text: str) -> str:
    """A folder's absolute path, not `/` itself, without `..`; a slash at the end is dropped."""
    if not text.startswith("/"):
        raise ValueError(tr("must be an absolute path, as /var/lib/tfwatch"))
    if ".." in text.split("/"):
        raise ValueError(tr("must not contain .."))
    clean = "/" + "/".join(part for part in line(text).split("/") if part not in ("", "."))
    if clean == "/":
        raise ValueError(tr("must be a folder below /, as /var/lib/tfwatch"))
    return clean


def host(text: str) -> str:
    """An address or name to listen on, without a port."""
    if re.search(r"[\s/\[\]]", text) or re.fullmatch(r"[^:]*:\d+", text):
        raise ValueError(tr("must be an address or a host name alone, as 127.0.0.1; the port has its own key"))
    return text


def host_name(text: str) -> str:
    """A name by which callers know this machine, without a port; in lower case."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", text):
        raise ValueError(tr("must be a host name alone, as tfwatch.example.com"))
    return text.lower()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on this address."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url(text: str) -> str:
    """An http(s) address without credentials, query or fragment; slashes at the end are dropped."""
    _http(text)
    if "?" in text or "#" in text:
        raise ValueError(tr("must be an address without ? or #"))
    return text.rstrip("/")


def callback_url(text: str) -> str:
    """An http(s) address as it is; it may carry a token in its path or query."""
    _http(text)
    return text


def _http(text: str) -> None:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not text.isprintable() or " " in text:
        raise ValueError(tr("must be an address that begins with https:// or http://"))
    if "@" in parts.netloc:
        raise ValueError(tr("must not hold a user name or password; credentials have their own keys"))


def bucket(text: str) -> str:
    """A bucket's name of 3 to 63 characters, or empty while s3 is off."""
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}", text):
        raise ValueError(tr("must be a bucket's name: 3 to 63 letters, digits, dots and hyphens"))
    return text


def key_prefix(text: str) -> str:
    """What every key begins with; empty, or as `tfwatch/`. S3 keys have at most 1,024 bytes; half is left for names."""
    if text.startswith("/") or not text.isprintable() or len(text.encode(errors="replace")) > 512:
        raise ValueError(tr("must be visible text of at most 512 bytes that does not begin with /"))
    return text


def spreadsheet_id(text: str) -> str:
    """The id in a spreadsheet's address, or empty while sheets is off."""
    if text and not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", text):
        raise ValueError(tr("must be the id alone: the part of the spreadsheet's address between /d/ and /edit"))
    return text


def timezone(text: str) -> str:
    """`local` or an IANA name such as `America/Sao_Paulo`."""
    if text == "local":
        return text
    try:
        zoneinfo.ZoneInfo(text)
    # KeyError: not there; ValueError: not a name; OSError: a folder of names, such as `America`
    except (KeyError, ValueError, OSError):
        words = tr(
            "must be local or a time zone this machine knows, as America/Sao_Paulo (see: timedatectl list-timezones)"
        )
        raise ValueError(words) from None
    return text


# --- secrets: checked inside their wrapper --------------------------------------------------------------------------


def secret(check: Callable[[str], str]) -> Callable[[SecretStr | None], SecretStr | None]:
    """Make a check of text one of a wrapped secret."""

    def checked(value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(check(value.get_secret_value()))

    return checked


def secret_token(text: str) -> str:
    """A key as it travels in a header: printable ASCII without spaces."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(tr("must be one line of plain characters, without spaces"))
    return text


def web_token(text: str) -> str:
    """A token that nobody finds by trying."""
    if len(secret_token(text)) < 16:
        raise ValueError(tr("must have 16 characters or more; make one: openssl rand -hex 32"))
    return text


def service_account(text: str) -> str:
    """The JSON of a Google service account's key."""
    try:
        account = json.loads(text)
    # RecursionError: brackets within brackets, a thousand deep
    except (ValueError, RecursionError):
        raise ValueError(tr("must be the JSON file that Google gave for the service account; it is not JSON")) from None
    needed = ("client_email", "private_key", "token_uri")
    if not isinstance(account, dict) or not all(isinstance(account.get(key), str) for key in needed):
        raise ValueError(tr("must be a Google service account's key, with client_email, private_key and token_uri"))
    return text


def alert_url(text: str) -> str:
    """Where to send alerts, as Apprise writes it: `scheme://…`."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", text) or not text.isprintable():
        raise ValueError(tr("must be an Apprise address, as mailto://… or ntfy://…"))
    return text
