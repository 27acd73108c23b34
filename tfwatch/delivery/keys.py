"""Where a package's backup lies: one key for one package, whatever its name holds. Pure."""

from __future__ import annotations

import re
from datetime import date
from typing import Final

from tfwatch.model import Package

MAX_KEY_BYTES: Final = 1024
"""The longest key S3 takes, in UTF-8. Source: Amazon S3 user guide, "Naming Amazon S3 objects"."""

MAX_PART_BYTES: Final = 255
"""The longest piece between slashes that servers keeping objects as files can store (MinIO, SeaweedFS)."""

# Written out instead of asking `unicodedata`: a newer Python must not give an old package a new key.
_UNSAFE: Final = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f"  # control characters
    "\u2028\u2029"  # line and paragraph separators
    "\ud800-\udfff"  # undecodable bytes (`os.fsdecode`)
    "\ufdd0-\ufdef\ufffe\uffff]"  # not allowed in XML, so a listing that holds them can't be read
)


def backup_key(prefix: str, day: date, package: Package) -> str:
    """`{prefix}{YYYY}/{MM}/{DD}/{sha256[:12]}-{name}`: the same package on the same day always has the same key.

    Bytes and characters that can't stand in a key become `_xff` or `_u2028`; a name too long is cut before its
    extension (the digest keeps the key unique). At most 1024 bytes of UTF-8. `prefix` may have 512.
    """
    head = f"{_safe(prefix)}{day:%Y/%m/%d}/"
    mark = f"{package.sha256[:12]}-"
    room = min(MAX_PART_BYTES, MAX_KEY_BYTES - len(head.encode())) - len(mark)
    return head + mark + _cut(_safe(package.name), room)


def _safe(text: str) -> str:
    return _UNSAFE.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"_x{code - 0xDC00:02x}"
    return f"_x{code:02x}" if code <= 0xFF else f"_u{code:04x}"


def _cut(name: str, room: int) -> str:
    if len(name.encode()) <= room:
        return name
    stem, extension = name[:-4], name[-4:]
    return stem.encode()[: room - len(extension.encode())].decode(errors="ignore") + extension
