"""Where everything of the spool lies: every name of a folder or file in it, written once."""

from __future__ import annotations

import os
from typing import Final

from tfwatch import disk
from tfwatch.model import Stage
from tfwatch.spool.root import Root

PRIVATE: Final = ".tfwatch"
WHERE: Final = {
    Stage.OUTBOX: "outbox",
    Stage.CLAIMED: f"{PRIVATE}/claimed",
    Stage.SUBMITTED: "submitted",
    Stage.DELIVERED: "delivered",
    Stage.REJECTED: "rejected",
}
REMOVING: Final = {
    Stage.DELIVERED: f"{PRIVATE}/removing/delivered",
    Stage.REJECTED: f"{PRIVATE}/removing/rejected",
}
"""Where a package lies for the moment between being taken out of its folder and being deleted."""

REQUESTS: Final = f"{PRIVATE}/requests"
ROLLBACKS: Final = "rollbacks"
LOGS: Final = "logs"
PRIVATE_FOLDERS: Final = (REQUESTS, LOGS, ROLLBACKS, f"{PRIVATE}/removing", *REMOVING.values())
CANARY: Final = ".tfwatch-canary"


class Places:
    """The paths of one spool, built from its root."""

    def __init__(self, root: str) -> None:
        self._root = Root(root)
        self.root = self._root.path
        self._not_synced: disk.NotSynced | None = None

    def folder(self, stage: Stage) -> str:
        """The folder of a stage, for the watcher and for messages."""
        return os.path.join(self.root, WHERE[stage])

    def path(self, stage: Stage, name: str) -> str:
        """Where a package of that name lies or would lie at a stage, for messages."""
        return os.path.join(self.root, WHERE[stage], name)

    @property
    def log(self) -> str:
        return os.path.join(self.root, "log.csv")

    @property
    def lock(self) -> str:
        return os.path.join(self.root, PRIVATE, "lock")

    @property
    def index(self) -> str:
        return os.path.join(self.root, PRIVATE, "index.sqlite")

    @property
    def state(self) -> str:
        """What the running daemon shows of itself to `tfwatch status`."""
        return os.path.join(self._root.here, PRIVATE, "state.json")

    @property
    def observability(self) -> str:
        """The figures as a file, for whoever collects them without HTTP."""
        return os.path.join(self._root.here, LOGS, "observability.json")

    @property
    def alerts(self) -> str:
        """What was alerted and is not over, for the next run."""
        return os.path.join(self._root.here, PRIVATE, "alerts.json")

    @property
    def requests(self) -> str:
        return os.path.join(self.root, PRIVATE, "requests")

    def all_folders(self) -> tuple[str, ...]:
        """Every folder of the spool below its root, each after the one it lies in."""
        return tuple(os.path.join(self.root, where) for where in (PRIVATE, *WHERE.values(), *PRIVATE_FOLDERS))

    def everything(self) -> tuple[str, ...]:
        """All folders, and the files that a daemon must be able to write."""
        index = (f"{self.index}{suffix}" for suffix in ("", "-wal", "-shm"))
        return (*self.all_folders(), self.log, self.lock, *index)

    def hold(self) -> None:
        """Stay in this spool from now on, also while its root is unmounted or renamed away."""
        self._root.hold()

    @property
    def is_away(self) -> bool:
        """Whether the root's path leads elsewhere now."""
        return self._root.is_away

    def torn(self, exec_id: str) -> str:
        """Where a cut-off tail of the log is kept."""
        return os.path.join(self.root, PRIVATE, f"torn-{exec_id}")

    def rollback_document(self, exec_id: str) -> str:
        return os.path.join(self.root, "rollbacks", f"rollback_integrations_{exec_id}.md")

    def _at(self, stage: Stage, name: str = "") -> str:
        """The path to work with now; never shown."""
        return self._in(WHERE[stage], name)

    def _in(self, *where: str) -> str:
        return os.path.join(self._root.here, *filter(None, where))

    def _sync(self, path: str) -> None:
        """Put the names in a folder on disk: the one way to it, so that one that failed is never tried again.

        Raises `NotSynced`, and from then on always, for whatever folder.
        """
        if self._not_synced is not None:
            raise self._not_synced
        try:
            disk.sync_folder(path)
        except disk.NotSynced as error:
            self._not_synced = error
            raise
