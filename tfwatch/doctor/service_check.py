"""The services outside, each asked by one harmless call, all at once; and our clock against theirs."""

from __future__ import annotations

import codecs
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Final, Protocol

from tfwatch.connections import connect_gotranscript, connect_s3, connect_sheets
from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, ok, skipped, warning
from tfwatch.errors import ServiceError, ServiceFailure, TransientError
from tfwatch.model import Integration
from tfwatch.ports import Reach

ANSWER_SECONDS: Final = 10.0
"""No single answer is waited for longer."""

PATIENCE_SECONDS: Final = 20.0
"""After so long a service has not answered, whatever holds it up (a name that isn't resolved, a login)."""

CLOCK_FAILURE_SECONDS: Final = 60.0
"""Signatures break from 5 minutes on (Google, webhooks), S3's from 15: a minute is a clock nobody sets."""

CLOCK_WARNING_SECONDS: Final = 5.0

_NO_LOOKUP: Final = frozenset((404, 405))


class _Port(Protocol):
    def probe(self) -> Reach: ...

    def close(self) -> None: ...


class _Call:
    """One service being asked. `reach`: what came of it, None as long as nothing has."""

    def __init__(self, port: _Port | None, failure: ServiceFailure | None = None) -> None:
        self.reach: Reach | None = None
        self.failure = failure
        self.crash: BaseException | None = None
        self._port = port

    def make(self) -> None:
        """Ask, and wait for the answer; it is left in the attributes."""
        if self._port is None:
            return
        try:
            with closing(self._port):
                self.reach = self._port.probe()
        except BaseException as error:  # noqa: BLE001  raised in the main thread
            self.crash = error


class Services:
    """All services that are on, asked at once. `off`: why the others aren't asked."""

    def __init__(self) -> None:
        self.calls: dict[Integration, _Call] = {}
        self.off: dict[Integration, str] = {}
        self._threads: dict[Integration, threading.Thread] = {}
        self._begun = 0.0

    def ask(self) -> None:
        """Begin; returns at once."""
        self._begun = time.monotonic()
        for integration, call in self.calls.items():
            # A thread of its own that nobody waits for at the end: some calls can't be cut short.
            thread = threading.Thread(target=call.make, name=integration.value, daemon=True)
            self._threads[integration] = thread
            thread.start()

    def wait(self, integration: Integration) -> _Call:
        """A call that has come to its end, or has had its time since `ask`."""
        self._threads[integration].join(max(0.0, self._begun + PATIENCE_SECONDS - time.monotonic()))
        return self.calls[integration]


def connect(case: Case) -> Services:
    """Make a client for every service that is on. No request is made, but modules and certificates are read.

    So call it before `take_over`: this Python may be root's own, which the daemon's user needn't be able to read.
    """
    codecs.lookup("idna")  # else it is read when the first name is resolved
    services = Services()
    config = case.config
    makers: Mapping[Integration, Callable[[], _Port | None]] = {
        Integration.GOTRANSCRIPT: lambda: connect_gotranscript(config, most_seconds=ANSWER_SECONDS),
        Integration.S3: lambda: connect_s3(config, most_seconds=ANSWER_SECONDS),
        Integration.SHEETS: lambda: connect_sheets(config, threading.Event(), most_seconds=ANSWER_SECONDS),
    }
    for integration, make in makers.items():
        section = getattr(config.integrations, integration.value)
        if case.settings.problems:
            services.off[integration] = "the settings have problems"
        elif not section.enabled:
            services.off[integration] = f"integrations.{integration.value}.enabled is false"
        elif integration is Integration.GOTRANSCRIPT and config.integrations.gotranscript.held_because:
            services.off[integration] = "it has no API key, so nothing can be sent"
        else:
            try:
                services.calls[integration] = _Call(make())
            except ServiceFailure as error:
                services.calls[integration] = _Call(None, error)
    return services


def answers(case: Case, services: Services) -> Iterator[Finding]:
    """What each service said, in the settings' order. Waits for it, 20 s after they were asked at most."""
    for integration in Integration:
        if integration in services.off:
            yield _not_asked(case, integration, services.off[integration])
        else:
            yield _answer(case, integration, services.wait(integration))


def _not_asked(case: Case, integration: Integration, why: str) -> Finding:
    if "API key" in why:
        do = case.config.integrations.gotranscript.held_because or ""
        return failure(integration.value, why, do.removeprefix("no API key: "))
    return skipped(integration.value, why)


def _answer(case: Case, integration: Integration, call: _Call) -> Finding:
    name = integration.value
    if call.crash is not None:
        raise call.crash
    found = call.failure or (call.reach.failure if call.reach else None)
    if call.reach is None and found is None:
        seen = f"no answer within {PATIENCE_SECONDS:g} s"
        return failure(name, seen, f"look at the network and at integrations.{name}")
    if found is None:
        assert call.reach is not None
        return ok(name, call.reach.proven)
    gotranscript = case.config.integrations.gotranscript
    if integration is Integration.GOTRANSCRIPT and found.code in _NO_LOOKUP:
        seen = f"it answers, but a lookup with {found.code}: the API key was not tried"
        if gotranscript.on_unknown_outcome != "lookup":
            return warning(name, seen, found.hint)
        return failure(name, f"{seen}, and on_unknown_outcome is lookup", found.hint)
    hint = found.hint or _waiting(found, name)
    return failure(name, str(found), hint)


def _waiting(found: ServiceFailure, name: str) -> str:
    if isinstance(found, TransientError) and found.code is not None:
        return "nothing, if it passes: it is tried again by itself"
    if isinstance(found, ServiceError):
        return f"check integrations.{name}"
    return f"look at the network and at the address in integrations.{name}"


# --- the clock ------------------------------------------------------------------------------------------------------


def clock(services: Services) -> Iterator[Finding]:
    """Our clock against every service's that told its own. Call after `answers`."""
    told = {name: call.reach.clock_ahead_seconds for name, call in services.calls.items() if call.reach is not None}
    ahead = {name.value: seconds for name, seconds in told.items() if seconds is not None}
    if not ahead:
        yield skipped("clock", "no service has told its time")
        return
    name, worst = max(ahead.items(), key=lambda each: abs(each[1]))
    seen = f"this clock is {abs(worst):,.0f} s {'behind' if worst > 0 else 'ahead of'} that of {name}"
    do = "sudo timedatectl set-ntp true; timedatectl shows whether it is synchronised"
    if abs(worst) > CLOCK_FAILURE_SECONDS:
        limit = f"{CLOCK_FAILURE_SECONDS:g} s are allowed, since signatures of requests, logins and webhooks break"
        yield failure("clock", f"{seen}; {limit}", do)
    elif abs(worst) > CLOCK_WARNING_SECONDS:
        yield warning("clock", seen, do)
    else:
        yield ok("clock", f"it agrees with that of {', '.join(sorted(ahead))}")
