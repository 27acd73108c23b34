"""Keeping secrets out of words that come back from a service: some repeat what they were sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

_LOGIN: Final = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?")
"""A signed login (JWT, RFC 7519): who has it may log in until it expires."""


def blot(text: str, secrets: Iterable[str | None], mark: str = "***") -> str:
    """The text without any of these secrets, plain or in the spellings of URLs, forms and JSON, and without logins."""
    for secret in filter(None, secrets):
        for spelling in _spellings(secret):
            text = text.replace(spelling, mark)
    return _LOGIN.sub(mark, text)


def holds(text: str, secrets: Iterable[str | None]) -> bool:
    """Whether one of these secrets is in the text."""
    return any(spelling in text for secret in filter(None, secrets) for spelling in _spellings(secret))


def _spellings(secret: str) -> Iterator[str]:
    """The longest first: a plain spelling may be part of another one."""
    spelled = {secret, quote(secret, safe=""), quote(secret), quote_plus(secret), json.dumps(secret)[1:-1]}
    yield from sorted(spelled, key=len, reverse=True)
