"""A canary in each secret: a value found nowhere else, and the search for it. It finds the secrets by the settings."""

from __future__ import annotations

import base64
import json
import secrets
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import BaseModel, SecretStr

from tfwatch.config import Config


def secret_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every dotted key of the settings that holds a secret, and whether it is a list of them."""
    for name, about in model.model_fields.items():
        key = f"{prefix}{name}"
        kinds = list(_kinds(about.annotation))
        if SecretStr in kinds:
            yield key, tuple in kinds
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from secret_keys(kind, f"{key}.")


def _kinds(annotation: Any) -> Iterator[Any]:
    """Every type that an annotation is made of."""
    yield typing.get_origin(annotation) or annotation
    for part in typing.get_args(annotation):
        yield from _kinds(part)


@dataclass(slots=True)
class Canaries:
    """Values for all secrets. `settings`: as config.yaml has them. `needles`: what must not be found → whose it is."""

    settings: dict[str, Any] = field(default_factory=dict)
    needles: dict[bytes, str] = field(default_factory=dict)

    def value(self, key: str) -> Any:
        """The value planted under a dotted key."""
        found: Any = self.settings
        for part in key.split("."):
            found = found[part]
        return found

    def watch(self, text: str, whose: str) -> str:
        """Look for this, too, as it is and in the usual spellings."""
        raw = text.encode()
        spelled = quote(text, safe="")
        for spelling in (text, spelled, quote(spelled, safe=""), json.dumps(text)[1:-1]):
            self.needles[spelling.encode()] = whose
        for shift in range(3):
            # Of the three ways in which it may fall into groups of three bytes, each without its edges.
            self.needles[base64.b64encode(bytes(shift) + raw)[4:-4]] = whose
        return text

    def found_in(self, data: bytes, *, allowed: tuple[str, ...] = ()) -> set[str]:
        """Whose secrets are in there, other than those that may be."""
        return {whose for needle, whose in self.needles.items() if needle in data} - set(allowed)


def plant(token_url: str) -> Canaries:
    """A canary for each secret there is. `token_url`: where the service account would log in."""
    made = Canaries()
    for key, is_list in secret_keys():
        value = _value(made, key, token_url)
        section = made.settings
        *sections, last = key.split(".")
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = [value] if is_list else value
    return made


def _value(made: Canaries, key: str, token_url: str) -> str:
    """One that this key takes; what the settings refuse is a new kind of secret, to be taught here."""
    word = made.watch(f"canary+{secrets.token_hex(12)}/{key.rpartition('.')[2]}==", key)
    if key == "alerts.urls":
        return f"json://127.0.0.1:9/{word}"
    if key.endswith("_url"):
        return f"http://127.0.0.1:9/{word}?t={word}"
    if key.endswith("service_account_json"):
        return _service_account(made, key, word, token_url)
    return word


def _service_account(made: Canaries, key: str, word: str, token_url: str) -> str:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for line in private.decode().splitlines()[1:-1]:
        made.watch(line, key)
    account = {
        "type": "service_account", "project_id": "p", "private_key_id": word, "private_key": private.decode(),
        "client_email": "robot@p.example", "client_id": "1", "token_uri": token_url,
    }  # fmt: skip
    return json.dumps(account)


def everything_in(root: Any) -> Mapping[str, bytes]:
    """All files below a folder, with their names."""
    return {str(path): str(path).encode() + path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
