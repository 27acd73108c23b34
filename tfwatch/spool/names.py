"""Names that are derived from other names, and which names count. Pure.

A name is what the file system holds: any bytes but NUL and `/`, up to 255, as `os.fsdecode` gives them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

MAX_BYTES = 255
REASON_SUFFIX = ".reason.txt"


def counts(name: str) -> bool:
    """Whether a name is a package's: `*.zip` in any case, not hidden."""
    return name[-4:].lower() == ".zip" and len(name) > 4 and not name.startswith(".")


def free_name(name: str, taken: Callable[[str], bool]) -> str:
    """`name` itself, else the first of `stem~2.zip`, `stem~3.zip`, … that is not taken."""
    candidate, n = name, 2
    while taken(candidate):
        candidate = _derived(name[:-4], f"~{n}{name[-4:]}", name)
        n += 1
    return candidate


def reason_name(name: str) -> str:
    """The name of the file beside a rejected package that says why."""
    return _derived(name, REASON_SUFFIX, name)


def _derived(stem: str, suffix: str, whole: str) -> str:
    """`stem + suffix`; past 255 bytes the stem is cut at a UTF-8 boundary and marked with the name's own hash."""
    raw = os.fsencode(stem)
    if len(raw) + len(suffix.encode()) <= MAX_BYTES:
        return stem + suffix
    mark = "~" + hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]
    room = MAX_BYTES - len(mark) - len(suffix.encode())
    while room > 0 and raw[room] & 0xC0 == 0x80:
        room -= 1
    return os.fsdecode(raw[:room]) + mark + suffix


def printable(name: str) -> str:
    """A name for people's eyes: one line, no control characters, undecodable bytes as `\\xNN`."""
    shown = []
    for char in name:
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            shown.append(f"\\x{code - 0xDC00:02x}")
        elif char.isprintable():
            shown.append(char)
        else:
            shown.append(char.encode("unicode_escape").decode("ascii"))
    return "".join(shown)
