"""What stands in the headers of a stored object: metadata and checksums as S3 writes them. Pure."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tfwatch.model import Backup

_MAX_METADATA: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the server must show for the bytes that were sent: any of `checksums`, or `etag` if it has none.

    `etag` is empty where checksums are known to be shown; should one be missing then, the object is read instead.
    """

    checksums: frozenset[str]
    etag: str


def metadata(backup: Backup) -> dict[str, str]:
    """What is written beside a package: its SHA-256, trace and order."""
    words = {"sha256": backup.package.sha256, "trace-id": backup.package.trace_id, "order-id": backup.order_id}
    return {name: _ascii(word) for name, word in words.items() if word}


def _ascii(text: str) -> str:
    """A header's value: visible ASCII stays, everything else is percent-encoded."""
    return quote(text, safe="!#$&'()*+,/:;<=>?@[]^_`{|}~", errors="surrogatepass")[:_MAX_METADATA]


def base64(digest: bytes) -> str:
    """A checksum's header."""
    return b64encode(digest).decode("ascii")
