"""Traces that webhooks bound to the next package of a job."""

from __future__ import annotations

import threading

from tfwatch.ledger.index import Index
from tfwatch.model import TraceId, job_version


class AwaitedTraces:
    """Gives each bound trace to one package, the first of its job that asks. Thread-safe.

    That it is given away is known by the log, from that package's first row on. Until then it is remembered here.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._given: dict[str, tuple[TraceId, str]] = {}

    def trace(self, name: str, sha256: str) -> TraceId | None:
        """The trace bound to a package of that name which the log doesn't know yet; None when there is none."""
        found = job_version(name)
        if found is None:
            return None
        with self._lock:
            bound = self._index.calls.awaited_trace(name)
            if bound is None:
                self._given.pop(found[0], None)
                return None
            given, to = self._given.get(found[0], (bound, sha256))
            if given == bound and to != sha256:
                return None
            self._given[found[0]] = bound, sha256
            return bound
