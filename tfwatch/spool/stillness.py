"""How long files have not changed, where nothing better proves that nobody is writing to them. Pure."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

_Look = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    look: _Look
    since: float


class Stillness:
    """Remembers what each file in a folder looked like, and since when.

    The age of its mtime proves nothing (`cp -p` and rsync set it back), so only our own clock counts: the moments
    passed in are seconds on one monotonic clock. Not for several threads at once.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Sight] = {}

    def observe(self, name: str, stat: os.stat_result, now: float) -> float:
        """Seconds this file has been the same inode with the same size and times; 0.0 at first sight or a change."""
        look = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        before = self._seen.get(name)
        if before is None or before.look != look:
            self._seen[name] = _Sight(look=look, since=now)
            return 0.0
        return now - before.since

    def forget(self, name: str) -> None:
        """Take a file out of memory; one that isn't known is fine."""
        self._seen.pop(name, None)

    def keep_only(self, names: Collection[str]) -> None:
        """Forget every file but these: called after each scan, so that memory follows the folder."""
        self._seen = {name: sight for name, sight in self._seen.items() if name in names}
