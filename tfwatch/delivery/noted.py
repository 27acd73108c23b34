"""What a person should know of single packages, for as long as they lie there."""

from __future__ import annotations

from tfwatch.model import Stage
from tfwatch.spool.folders import Folders


class Noted:
    """One sentence each about packages, by name. Lanes write, any thread may ask."""

    def __init__(self, folders: Folders, *places: Stage) -> None:
        """`places`: a sentence holds while anything of its name lies in one of these."""
        self._folders = folders
        self._places = places
        self._texts: dict[str, str] = {}

    def put(self, name: str, text: str) -> None:
        """Note it, instead of what was noted before."""
        self._texts[name] = text

    def drop(self, name: str) -> None:
        """All is well with it again."""
        self._texts.pop(name, None)

    def texts(self) -> list[str]:
        """What still holds, in the order it was first noted."""
        for name in list(self._texts):
            if not any(self._folders.is_taken(stage, name) for stage in self._places):
                self.drop(name)
        return list(self._texts.values())
