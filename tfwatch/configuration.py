"""What the daemon asks of its configuration, whoever reads it."""

from __future__ import annotations

from typing import Protocol

from tfwatch.delivery.desk import Desk
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.wiring import Wired
from tfwatch.model import Integration


class Configuration(Wired, Protocol):
    """Where the daemon gets its wiring from, and how it learns that config.yaml has changed."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Why a changed config.yaml was not taken over; empty when it was."""
        ...

    def changed(self) -> bool:
        """Whether a file the configuration was read from has changed since."""
        ...

    def reload(self) -> bool:
        """Read it again; true when it was taken over, false when it has problems (logged) and the old one stays."""
        ...

    def configure(self, switches: dict[Integration, Switch], desk: Desk, rollback: Rollback) -> None:
        """Tell each switch and the rollback what the configuration says."""
        ...
