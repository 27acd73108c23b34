"""Whether an integration may be used now, and who said so."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from loguru import logger

from tfwatch.delivery.desk import Desk
from tfwatch.language import tr
from tfwatch.ledger.index import Index, IntegrationState
from tfwatch.local_time import local
from tfwatch.model import Actor, Event, Fact, Integration, write_detail
from tfwatch.retry import Backoff, Ramp
from tfwatch.wording import held_since

PROBE_PAUSE = Backoff(initial=60.0, maximum=1800.0)
"""Between probes of a service that was given up, seconds."""


_ON_BY_DEFAULT = frozenset((Integration.GOTRANSCRIPT,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the configuration says of an integration: on or off, where that was read, and what it still lacks."""

    enabled: bool
    source: str
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Where an integration stands: whether it may be used, in words why not, and what to do about it."""

    open: bool
    word: str
    source: str
    reason: str = ""
    hint: str = ""


class Switch:
    """One integration's switch. A rollback, a pause or `disable` wins over the configuration. Thread-safe.

    `probing`: after a rollback, let one package try after a growing pause (`resume: probe`).
    """

    def __init__(self, integration: Integration, index: Index, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.integration = integration
        self._index = index
        self._clock = clock
        self._lock = threading.Lock()
        self._setting = Setting(enabled=False, source="default")
        self._held = index.integration(integration)
        self._hold_until = 0.0
        self._lifted_at = float("-inf")
        self._ramp: Ramp | None = None
        self._probing = False
        self._probes = 0
        self._probe_at = 0.0
        self._rng = random.Random()  # noqa: S311  spreads retries, protects nothing

    def configure(self, setting: Setting, desk: Desk, *, probing: bool) -> None:
        """Take over what the configuration says; when off became on, that lifts whatever held it."""
        with self._lock:
            self._setting, self._probing = setting, probing
            before = self._held.configured
            if before is None:
                before = self.integration in _ON_BY_DEFAULT
            turned_on, turned_off = setting.enabled and not before, before and not setting.enabled
            self._plan_probe()
        if turned_on or turned_off:
            self._log(
                desk, Event.ENABLED if turned_on else Event.DISABLED, Actor.OPERATOR, "configuration",
                tr("turned on by {source}", source=setting.source)
                if turned_on
                else tr("turned off by {source}", source=setting.source),
            )  # fmt: skip

    def lift(self, desk: Desk, *, actor: Actor, why: str) -> None:
        """`enable`, or a probe that got through."""
        self._log(desk, Event.ENABLED, actor, "command" if actor is Actor.OPERATOR else "probe", why)
        with self._lock:
            self._probes, self._hold_until = 0, 0.0

    def drop(self, desk: Desk, *, actor: Actor, by: str, why: str, package: str | None = None) -> None:
        """`disable`, or the service refused us all, as it told the sender of `package`."""
        self._log(desk, Event.DISABLED, actor, by, why, package=package)

    def fell(self) -> None:
        """A rollback was logged: read it back."""
        with self._lock:
            self._held = self._index.integration(self.integration)
            self._plan_probe()

    def hold(self, seconds: float) -> bool:
        """The service asked everybody to wait; false when we do already: it told several lanes the same."""
        with self._lock:
            now = self._clock()
            is_first = self._hold_until <= now
            self._hold_until = max(self._hold_until, now + seconds)
            self._ramp = Ramp.begin(self._hold_until, self._rng)
            return is_first

    def got_through(self) -> None:
        """A delivery reached the service: more of them may be under way, if not all may already."""
        with self._lock:
            if self._ramp is not None:
                self._ramp = self._ramp.succeeded(self._clock(), self._rng)

    def did_not(self) -> None:
        """A delivery failed: if not all may be under way yet, only one may again."""
        with self._lock:
            if self._ramp is not None:
                self._ramp = self._ramp.failed(self._clock(), self._rng)

    def allowed(self, workers: int) -> int | None:
        """How many deliveries may be under way while the service comes back; None once all `workers` may."""
        with self._lock:
            allowed = None if self._ramp is None else self._ramp.allows(self._clock())
            if allowed is None or allowed >= workers:
                self._ramp = None
                return None
            return allowed

    def probe_failed(self) -> None:
        """The package that tried did not get through: a longer pause."""
        with self._lock:
            self._probes += 1
            self._plan_probe()

    @property
    def stand(self) -> Stand:
        """Where it stands now."""
        with self._lock:
            held, setting, wait = self._held, self._setting, self._hold_until - self._clock()
        name = self.integration.value
        if held.held:
            return Stand(
                open=False, word=held.state, source=held_since(held.state, held.since), reason=held.reason,
                hint=tr("mend the cause, then: tfwatch enable {name}", name=name),
            )  # fmt: skip
        if not setting.enabled:
            return Stand(
                open=False, word="off", source=setting.source, reason=tr("off by {source}", source=setting.source),
                hint=tr("set integrations.{name}.enabled: true", name=name),
            )  # fmt: skip
        if setting.missing:
            return Stand(open=False, word="held", source=setting.source, reason=setting.missing)
        if wait > 0:
            until = local(datetime.now(UTC) + timedelta(seconds=wait))
            return Stand(
                open=False, word="waiting", source=setting.source,
                reason=tr("the service asked us to wait until {time}", time=f"{until:%H:%M:%S}"),
            )  # fmt: skip
        return Stand(open=True, word="enabled", source=setting.source)

    def lifted_since(self, moment: float) -> bool:
        """Whether it was switched on after that moment: what was asked before then says nothing of the service now."""
        with self._lock:
            return self._lifted_at > moment

    @property
    def held(self) -> bool:
        """Whether a rollback, a pause or `disable` keeps it off."""
        with self._lock:
            return self._held.held

    def look(self) -> bool:
        """Whether it is held by what the log says at this moment: whoever logs that tells us a little later."""
        with self._lock:
            self._held = self._index.integration(self.integration)
            return self._held.held

    @property
    def held_state(self) -> IntegrationState:
        """What the log says of it."""
        with self._lock:
            return self._held

    @property
    def waits(self) -> float | None:
        """Seconds until the switch opens by itself or a probe is due; None when only a person can open it."""
        with self._lock:
            if self._held.held:
                return self._probe_wait()
            if not self._setting.enabled or self._setting.missing:
                return None
            return max(0.0, self._hold_until - self._clock())

    @property
    def probe_due(self) -> bool:
        """Whether one package may try now though the integration is held."""
        with self._lock:
            return self._held.held and self._probe_wait() == 0.0

    def _probe_wait(self) -> float | None:
        if not self._probing or self._held.state not in ("rolled back", "paused") or not self._setting.enabled:
            return None
        return max(0.0, self._probe_at - self._clock())

    def _plan_probe(self) -> None:
        self._probe_at = self._clock() + PROBE_PAUSE.delay(self._probes + 1, self._rng)

    def _log(self, desk: Desk, event: Event, actor: Actor, by: str, why: str, *, package: str | None = None) -> None:
        detail = write_detail(why, integration=self.integration.value, by=by, package=package)
        desk.record(Fact(event=event, actor=actor, detail=detail))
        logger.bind(EVENT=event.value, INTEGRATION=self.integration.value).warning(
            "{} {}: {}", self.integration.value, event.value.lower(), why
        )
        with self._lock:
            if event is Event.ENABLED:
                self._lifted_at = self._clock()
                self._ramp = Ramp.begin(self._clock(), self._rng)
            self._held = self._index.integration(self.integration)
            self._plan_probe()
