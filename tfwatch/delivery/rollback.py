"""Giving a service up, and taking it back: the rollback, the pause, and their document."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from loguru import logger

from tfwatch import disk
from tfwatch.delivery import reasons
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.trouble import Trouble
from tfwatch.delivery.whereabouts import Whereabouts
from tfwatch.errors import ServiceError, ServiceFailure
from tfwatch.language import tr
from tfwatch.ledger.index import PackageState
from tfwatch.model import Actor, Event, Package, Stage, rfc3339, write_detail
from tfwatch.retry import Breaker
from tfwatch.spool.names import printable

_MOST_NAMED: Final = 20
"""Packages that a document names: those that failed one after another. A threshold may be far higher."""

_STILL_OURS: Final = (Stage.OUTBOX, Stage.CLAIMED, Stage.REJECTED)
"""Where a package may lie that trips a rollback, unless a person took it meanwhile."""


class Rollback:
    """Counts failed deliveries and, when there are too many, switches the integration off. Thread-safe.

    `lifted` is called by whichever thread took the service back into use, once what was rejected is back in the outbox.
    """

    def __init__(
        self,
        desk: Desk,
        switch: Switch,
        *,
        threshold: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._switch = switch
        self._clock = clock
        self._lock = threading.Lock()
        self._breaker = Breaker(threshold=threshold)
        self._tripping = False
        self._episode: Trouble | None = None
        self._failed: tuple[str, ...] = ()
        self._writing = threading.Lock()
        self._unwritten: list[tuple[str, str]] = []
        self.lifted: Callable[[], None] = lambda: None

    def configure(self, threshold: int) -> None:
        """Take over a changed `rollback_after`; the failures counted so far stay counted."""
        with self._lock:
            self._breaker = replace(self._breaker, threshold=threshold)

    @property
    def episode(self) -> Trouble | None:
        """Deliveries that fail one after another, not yet so many that the service is given up."""
        with self._lock:
            return self._recent()

    def _recent(self) -> Trouble | None:
        """Nothing that lies further back than rounds do: whoever waited for one may have been taken away."""
        failed_at = self._breaker.failed_at
        recent = failed_at is not None and self._clock() - failed_at <= self._breaker.window
        return self._episode if recent else None

    def shorten(self, delay: float) -> float:
        """A wait between rounds that does not step over the moment which decides."""
        with self._lock:
            return self._breaker.wait(delay, self._clock())

    def succeeded(self, *, probe: bool) -> None:
        """A package was accepted (or refused for its own sake): the service works.

        Only a probe lifts a rollback: a request that was under way when it tripped proves nothing about later.
        """
        with self._lock:
            self._forget()
        self._switch.got_through()
        if probe and self._switch.stand.word in ("rolled back", "paused"):
            self.lift(actor=Actor.TFWATCH, why=tr("a package tried after a pause got through"))

    def _forget(self) -> None:
        self._breaker, self._episode, self._failed = self._breaker.succeeded(), None, ()

    def failed(self, *, began: float, why: str = "", package: str = "") -> bool:
        """One more failed delivery, begun at `began` (monotonic). True: the caller's `package` trips the rollback.

        Only one caller is told so; the switch must still be open, and not have been lifted since.
        """
        if self._switch.lifted_since(began):
            return False
        self._switch.did_not()
        with self._lock:
            if self._tripping or self._switch.stand.word not in ("enabled", "waiting"):
                return False
            now = self._clock()
            episode = self._recent()
            self._breaker = self._breaker.failed(began=began, now=now)
            self._episode = Trouble.of(why, before=episode)
            before = self._failed if self._breaker.failures > 1 else ()
            self._failed = (*(name for name in before if name != package), package)[-_MOST_NAMED:]
            if not self._breaker.tripped(now):
                return False
            failed = tuple(filter(None, self._failed[:-1]))
            self._forget()
            self._tripping, self._failed = True, failed
            return True

    def trip(self, package: Package, where: Whereabouts, error: ServiceFailure, *, sent: bool, attempt: int) -> None:
        """Switch the integration off, put the package that tripped it into rejected/, and document it.

        One that a person took somewhere else while it was sent stays there.
        """
        integration = self._switch.integration.value
        why = tr("deliveries failed one after another; the last one: {error}", error=error.message)
        # One that lies in rejected/ already waits there for a person to decide; its reason file says how.
        parked = where.log is Stage.REJECTED
        to = Stage.REJECTED if where.log in _STILL_OURS else where.log
        detail = write_detail(why, integration=integration, sent="maybe" if sent else "no", failed="yes")
        where = self._desk.settle(
            package, Event.ROLLBACK, where, to=to, attempt=attempt, code=error.code, detail=detail,
            reason=None if parked else reasons.rolled_back(package.name, integration=integration, why=why),
        )  # fmt: skip
        self._switch.fell()
        with self._lock:
            self._tripping, failed, self._failed = False, self._failed, ()
        self._document(where.named(package).name, where.log, failed)

    def pause(self, package: Package, error: ServiceError, *, began: float) -> None:
        """The service, asked at `began`, can't serve anyone: stop asking until a person acts. Rejects no package."""
        with self._lock:
            if self._switch.lifted_since(began) or self._switch.stand.word not in ("enabled", "waiting"):
                return
            self._forget()
            why = "; ".join(filter(None, (error.message, error.hint)))
            self._switch.drop(self._desk, actor=Actor.TFWATCH, by="service", why=why, package=package.name)
        self._document()

    def lift(self, *, actor: Actor, why: str) -> bool:
        """Take the service back into use and requeue what its rollback rejected, as `requeue_rejected` does."""
        self._switch.lift(self._desk, actor=actor, why=why)
        is_done = self.requeue_rejected()
        self.lifted()
        return is_done

    def offer_probe(self) -> bool:
        """A probe is due and nothing in the outbox may go: let a package the rollback rejected be the one to try."""
        rejected = self._desk.index.rolled_back()[:1]
        return any(self._requeue(state, tr("it is to show whether the service works again")) for state in rejected)

    def requeue_rejected(self) -> bool:
        """Bring the packages a rollback rejected back into the outbox; false when a lane isn't done with one yet."""
        held = False
        for state in self._desk.index.rolled_back():
            held |= not self._requeue(state, tr("the rollback was lifted")) and state.name in self._desk.in_work
        return not held

    def _requeue(self, state: PackageState, why: str) -> bool:
        with self._desk.in_work.holding(state.name) as mine:
            if not mine or self._desk.folders.look(Stage.REJECTED, state.name) is None:
                return False
            return self._desk.requeue(state, actor=Actor.TFWATCH, forced=False, why=why)

    # --- the document ----------------------------------------------------------------------------------------------

    def write_missing_document(self) -> None:
        """At start: a crash may have come between the fact and its document."""
        held = self._switch.held_state
        if held.state not in ("rolled back", "paused") or held.since is None:
            return
        if rfc3339(held.since) not in self._desk.folders.read_rollbacks(held.exec_id):
            self._document()

    def write_again(self) -> None:
        """What could not be written, for want of room perhaps: try once more; told when it is there."""
        if not self._unwritten:
            return
        try:
            path = self._write()
        except disk.NotSynced:
            raise
        except OSError:
            return
        words = tr("{path}: it could not be written before, and is there now", path=path)
        logger.bind(INTEGRATION=self._switch.integration.value).warning("{}", words)

    def _write(self, *sections: tuple[str, str]) -> str:
        """Append sections, each to its run's document, and all that could not be written before; gives the last path.

        Raises OSError; what is left is kept for the next time.
        """
        path = ""
        with self._writing:
            self._unwritten += sections
            while self._unwritten:
                exec_id, section = self._unwritten[0]
                path = self._desk.folders.append_rollback(exec_id, _head(exec_id), section)
                del self._unwritten[0]
        return path

    def _document(
        self, package: str | None = None, lies_in: Stage | None = Stage.REJECTED, failed: Sequence[str] = ()
    ) -> None:
        """Write down, from the fact that was just logged, what happened and how to lift it.

        `package`: the name it has now, where the fact has the one before. `lies_in`: None when somebody took it away.
        `failed`: those that failed before it.
        """
        held, integration = self._switch.held_state, self._switch.integration.value
        is_rollback = held.state == "rolled back"
        lift = tr("mend the cause, then: tfwatch enable {name}", name=integration)
        section = _section(
            is_rollback=is_rollback,
            integration=integration,
            at=rfc3339(held.since) if held.since else "",
            why=held.reason,
            packages=_packages(package or held.package, lies_in, failed) if is_rollback else _met(held.package),
            lift=lift,
        )
        try:
            self._write((held.exec_id, section))
        except disk.NotSynced:
            raise
        except OSError as error:
            words = tr("its document can't be written: {error}; it is tried again each minute", error=error)
            path = self._desk.folders.rollback_document(held.exec_id)
            logger.bind(INTEGRATION=integration).error("{}: {}", path, words)


def _head(exec_id: str) -> str:
    return tr(
        "# Rollbacks and pauses of run {exec_id}\n\n"
        "Each section is one moment at which tfwatch stopped using an integration by itself: what happened, when, why, "
        "which\npackages it concerns, and how to lift it. Packages that are not named here wait in `outbox/` and lose "
        "nothing.\n",
        exec_id=exec_id,
    )


def _section(*, is_rollback: bool, integration: str, at: str, why: str, packages: str, lift: str) -> str:
    title = (
        tr("Rollback of {name} at {at}", name=integration, at=at)
        if is_rollback
        else tr("Pause of {name} at {at}", name=integration, at=at)
    )
    body = tr(
        "- **When:** {at} (UTC)\n"
        "- **Integration:** {name}\n"
        "- **Why:** {why}\n"
        "- **Packages:** {packages}\n"
        "- **To lift it:** {lift}\n",
        at=at,
        name=integration,
        why=why,
        packages=packages,
        lift=lift,
    )
    return f"\n## {title}\n\n{body}"


def _packages(name: str, lies_in: Stage | None, failed: Sequence[str]) -> str:
    """Which package tripped a rollback, and where it lies; and which ones failed before it."""
    tripped = _tripped(printable(name), lies_in)
    if not failed:
        return tripped
    names = ", ".join(printable(name) for name in failed)
    return tr("{tripped}. Before it failed, and wait: {names}", tripped=tripped, names=names)


def _tripped(name: str, lies_in: Stage | None) -> str:
    """None: somebody took it away."""
    if lies_in is Stage.REJECTED:
        return tr("{name} tripped it and lies in rejected/; its reason file says what to do", name=name)
    if lies_in is None:
        return tr("{name} tripped it; somebody has taken it away", name=name)
    return tr("{name} tripped it; somebody has moved it to {stage}/", name=name, stage=lies_in)


def _met(name: str) -> str:
    """Which package was told that the service serves nobody."""
    return tr("{name} met it and waits in outbox/; none was rejected", name=printable(name))
