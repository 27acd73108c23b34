"""Carry out what an operator asked for with a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from loguru import logger

from tfwatch import disk, requests
from tfwatch.delivery.cancel import cancel
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.journal import fields
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.whereabouts import Whereabouts, package_of
from tfwatch.language import tr
from tfwatch.ledger.index import PackageState
from tfwatch.model import Actor, Event, Integration, Stage, write_detail
from tfwatch.requests import BadRequest, Request
from tfwatch.spool.names import printable


class Operate:
    """Takes request files. Doing one twice is doing it once: a crash may come before it is removed."""

    def __init__(
        self,
        desk: Desk,
        switches: Mapping[Integration, Switch],
        rollback: Rollback,
        *,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """`moved`: something was brought where a person's own `mv` would have: have it seen and logged."""
        self._desk = desk
        self._switches = switches
        self._rollback = rollback
        self._moved = moved
        self.is_waiting = False

    def take_all(self) -> bool:
        """Take every waiting request; true when something was done.

        `is_waiting` says afterwards whether one has to wait for a lane.
        """
        taken = self.is_waiting = False
        names = list(self._desk.folders.waiting_requests())
        if names:
            self._desk.folders.keep_requests()
        for name in names:
            try:
                request = requests.read(self._desk.folders, name)
            except FileNotFoundError:
                continue
            except BadRequest as error:
                logger.warning("a request is ignored and removed: {}", error)
            except OSError as error:
                if not disk.is_of_one_file(error):
                    raise
                logger.warning("a request can't be read; it is tried again at each rescan: {}", error)
                continue
            else:
                rest = self._carry_out(request)
                self.is_waiting |= rest is not None
                if rest == request:
                    # What it switched is switched; the package that tripped the rollback is to be requeued yet.
                    taken |= request.command == "enable"
                    continue
                if rest is not None:
                    # Only what is left: a package that was requeued is delivered long before the last one is free.
                    requests.put(self._desk.folders, name, rest)
                    taken = True
                    continue
            self._desk.folders.drop_request(name)
            taken = True
        return taken

    def _carry_out(self, request: Request) -> Request | None:
        """What must be taken a little later, because a package is being worked on; None when all was done."""
        if request.command in ("requeue", "backup"):
            act = self._requeue if request.command == "requeue" else self._back_up_again
            pairs = zip(request.names, request.sha256s, strict=False)
            left = [(name, sha256) for name, sha256 in pairs if not act(name, sha256, request)]
            if not left:
                return None
            return replace(request, names=tuple(n for n, _ in left), sha256s=tuple(sha for _, sha in left))
        if request.command == "cancel":
            busy = tuple(name for name in request.names if not self._cancel(name, request))
            return replace(request, names=busy) if busy else None
        return None if self._switch(request) else request

    def _switch(self, request: Request) -> bool:
        """False when a lane isn't done yet with a package that is to be requeued."""
        integration = request.integration
        if integration is None:
            return True
        switch, why = self._switches[integration], request.reason or tr("by {user}", user=request.user)
        if request.command == "disable":
            if switch.stand.word != "disabled":
                switch.drop(self._desk, actor=Actor.OPERATOR, by="command", why=why)
        elif integration is Integration.GOTRANSCRIPT:
            if switch.look():
                return self._rollback.lift(actor=Actor.OPERATOR, why=why)
            return self._rollback.requeue_rejected()
        elif switch.look():
            switch.lift(self._desk, actor=Actor.OPERATOR, why=why)
        return True

    def _cancel(self, name: str, request: Request) -> bool:
        with self._desk.in_work.holding(name) as mine:
            if mine and cancel(self._desk, name, user=request.user, accepted_too=request.forced):
                self._moved()
        return mine

    def _requeue(self, name: str, sha256: str, request: Request) -> bool:
        with self._desk.in_work.holding(name) as mine:
            if not mine:
                return False
            state = self._desk.index.package(sha256, name)
            if state is None or state.stage is None:
                logger.bind(PACKAGE=printable(name), SHA256=sha256).warning(
                    "requeue {}: no such package in any folder", printable(name)
                )
            else:
                self._requeue_held(state, request)
        return True

    def _back_up_again(self, name: str, sha256: str, request: Request) -> bool:
        """The copy of a package is gone or another one: say so. It makes a new one due, if its ZIP is there."""
        with self._desk.in_work.holding(name) as mine:
            if not mine:
                return False
            state = self._desk.index.package(sha256, name)
            if state is not None and state.backed_up:
                where = Whereabouts(file=state.stage or Stage.DELIVERED, log=state.stage, status=state.status)
                detail = write_detail(request.reason or tr("a new copy was asked for by {user}", user=request.user))
                self._desk.settle(
                    package_of(state), Event.BACKUP_FAILED, where, order_id=state.order_id, actor=Actor.OPERATOR,
                    detail=detail,
                )  # fmt: skip
        return True

    def _requeue_held(self, state: PackageState, request: Request) -> None:
        name = printable(state.name)
        tell = logger.bind(**fields(state, state.name, order_id=state.order_id))
        if state.stage in (Stage.SUBMITTED, Stage.DELIVERED) and not request.forced:
            tell.warning("requeue {}: it was accepted already; a second order needs --force", name)
        elif state.stage is Stage.CLAIMED:
            tell.warning("requeue {}: it is being worked on; nothing was done: tfwatch why {}", name, name)
        elif state.stage is Stage.OUTBOX:
            self._note_requeued(state, request)
        elif not self._bring_back(state, request):
            tell.warning(
                "requeue {}: its file is not in the folder where the log has it, nor in outbox/; nothing was done: "
                "tfwatch why {}", name, name,
            )  # fmt: skip

    def _bring_back(self, state: PackageState, request: Request) -> bool:
        """False when somebody has taken the file away."""
        assert state.stage is not None
        forced, why = request.forced, tr("requeued by {user}", user=request.user)
        if self._desk.folders.look(state.stage, state.name) is not None:
            return self._desk.requeue(state, actor=Actor.OPERATOR, forced=forced, why=why)
        if self._desk.folders.look(Stage.OUTBOX, state.name) is None:
            return False
        # The file was moved, then the daemon died before it could say so.
        self._desk.log_requeue(state, actor=Actor.OPERATOR, forced=forced, why=why)
        return True

    def _note_requeued(self, state: PackageState, request: Request) -> None:
        """It lies in the outbox. Nothing is left to do for a request that was carried out before a crash."""
        if request.forced and not state.forced:
            # The file was moved, and the start saw it before the request and took it for a plain move.
            self._desk.log_requeue(
                state, actor=Actor.OPERATOR, forced=True, why=tr("requeued by {user}", user=request.user)
            )
        elif state.event is not Event.REQUEUED:
            logger.bind(**fields(state, state.name, order_id=state.order_id)).info(
                "requeue {}: it waits in outbox/ already; it is tried at once", printable(state.name)
            )
