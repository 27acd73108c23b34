"""How a package is removed for good, and no other file ever is.

Nothing tells the kernel to delete this file and no other one of its name. So it is taken out of its folder first, by
one rename into a place where nobody finds it by name; there it is looked at once more, and only then deleted. What lies
in that place at a start was on its way: the log says whether it goes or goes back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from tfwatch.model import Stage
from tfwatch.spool.listing import Entry, entry_of
from tfwatch.spool.papers import Papers
from tfwatch.spool.places import REMOVING, WHERE
from tfwatch.spool.renames import rename_noreplace

OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Removal(Papers):
    """Taking a settled package out, putting it back, deleting it. Each is on disk when it returns.

    The stages are those packages are ever removed from. All raise OSError: `NotSynced` ends the process.
    """

    def take_out(self, stage: Stage, name: str) -> Entry:
        """Take whatever is called so out of its folder; gives what it is now.

        Raises FileNotFoundError when it is gone, FileExistsError when another one of that name is on its way still.
        """
        there = self._in(REMOVING[stage], name)
        rename_noreplace(self._in(WHERE[stage], name), there)
        # The arrival first: where renames are not atomic, a power cut in between leaves two names, never none.
        self._sync(self._in(REMOVING[stage]))
        self._sync(self._in(WHERE[stage]))
        return entry_of(name, os.lstat(there))

    def put_back(self, stage: Stage, name: str) -> None:
        """Undo `take_out`. Raises FileExistsError when somebody put another file there meanwhile."""
        rename_noreplace(self._in(REMOVING[stage], name), self._in(WHERE[stage], name))
        self._sync(self._in(WHERE[stage]))
        self._sync(self._in(REMOVING[stage]))

    def taken_out(self) -> Iterator[tuple[Stage, str]]:
        """What is on its way out, by the stage it was taken from."""
        for stage, where in REMOVING.items():
            with suppress(FileNotFoundError):
                for name in sorted(os.listdir(self._in(where))):
                    yield stage, name

    def open_taken(self, stage: Stage, name: str) -> int:
        """Open such a file for reading; a link is never followed."""
        return os.open(self._in(REMOVING[stage], name), OPEN_FLAGS)

    def delete_taken(self, stage: Stage, name: str) -> None:
        """Delete one for good, and the reason file that lay beside it."""
        os.unlink(self._in(REMOVING[stage], name))
        self._sync(self._in(REMOVING[stage]))
        if stage is Stage.REJECTED:
            self.remove_reason(name)
            self._sync(self._in(WHERE[stage]))

    def describe_taken(self, stage: Stage, name: str) -> str:
        """The path of such a file, for messages."""
        return f"{self.root}/{REMOVING[stage]}/{name}"
