"""The spool's root while the daemon works in it: the folder it began in, wherever its path leads meanwhile."""

from __future__ import annotations

import os

from tfwatch.language import tr


def away(path: str) -> str:
    """What to tell a person about a root that is away."""
    return tr(
        "{path}: is unmounted, moved away or another folder now; work goes on in the folder tfwatch began in, "
        "but nobody can drop there: put it back, or restart tfwatch",
        path=path,
    )


class Root:
    """One folder. Held, it stays the same one: a disk unmounted lazily is worked on until it is mounted again."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._fd: int | None = None

    def hold(self) -> None:
        """From now on this very folder is meant, whatever its path leads to; for the life of the process."""
        self._fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def is_away(self) -> bool:
        """Whether the path leads nowhere, or to another folder than the one that is held."""
        if self._fd is None:
            return False
        try:
            named = os.stat(self.path)
        except OSError:
            return True
        held = os.fstat(self._fd)
        return (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino)

    @property
    def here(self) -> str:
        """A path to the folder that works now. Asked anew for each use."""
        return f"/proc/self/fd/{self._fd}" if self.is_away else self.path
