"""What the sandbox remembers of the requests it served: the last thousand, and counters."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass

from starlette.types import Scope

from tfwatch.sandbox.wire import arrival_of

MAX_REMEMBERED = 1000
CONTROL_PREFIX = "/_sandbox"

_SHOWN = {
    b"content-type",
    b"content-length",
    b"idempotency-key",
    b"traceparent",
    b"user-agent",
    b"retry-after",
    b"content-digest",
}


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request. `at`, `monotonic`: when its first byte arrived. `status`: what was answered, None if nothing."""

    method: str
    path: str
    headers: dict[str, str]
    at: float
    monotonic: float
    status: int | None = None


class Journal:
    """The last requests to the services (the control API's own are left out), and how many there were."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=MAX_REMEMBERED)
        self._methods: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()

    def open(self, scope: Scope) -> Entry | None:
        """Note a request as it arrives; None for the control API's own."""
        path = scope["path"]
        if path.startswith(CONTROL_PREFIX):
            return None
        arrival = arrival_of(scope)
        entry = Entry(
            method=scope["method"],
            path=path,
            headers=_selected(scope["headers"]),
            at=arrival.at,
            monotonic=arrival.monotonic,
        )
        self._entries.append(entry)
        self._methods[entry.method] += 1
        return entry

    def close(self, entry: Entry) -> None:
        """Count how the request ended."""
        self._statuses[str(entry.status) if entry.status else "none"] += 1

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._methods.clear()
        self._statuses.clear()

    def as_json(self) -> dict[str, object]:
        """`requests` (oldest first), and counts `by_method` and `by_status` (`none`: no answer was given)."""
        return {
            "requests": [asdict(entry) for entry in self._entries],
            "by_method": dict(self._methods),
            "by_status": dict(self._statuses),
        }


def _selected(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    shown = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in _SHOWN}
    for name, value in headers:
        if name == b"authorization":
            shown["authorization"] = value.split(b" ", 1)[0].decode("latin-1") + " <redacted>"
    return shown
