"""Where a package is, by the folders and by the log. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tfwatch.ledger.states import PackageState
from tfwatch.model import Package, Sha256, Stage, Status, TraceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where a package is: `file` by the folders, `log` by its last fact, and the tag that fact carries.

    `name`: the one it had to take on its way, because another file lay there under its own; None: it kept that.
    """

    file: Stage
    log: Stage | None
    status: Status | None
    name: str | None = None

    def named(self, package: Package) -> Package:
        """The package under the name that it has there."""
        return package if self.name is None else replace(package, name=self.name)

    @classmethod
    def of(cls, state: PackageState | None, *, file: Stage) -> Whereabouts:
        """From what the log knows; a package it doesn't know has been in the outbox all along."""
        if state is None:
            return cls(file=file, log=Stage.OUTBOX, status=Status.WAITING)
        return cls(file=file, log=state.stage, status=state.status)


def package_of(state: PackageState) -> Package:
    """The package a log entry is about."""
    return Package(name=state.name, sha256=Sha256(state.sha256), bytes=state.bytes, trace_id=TraceId(state.trace_id))
