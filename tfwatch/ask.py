"""What commands ask of the daemon: is it possible, the request itself, and whether it was taken."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Mapping, Sequence
from typing import Final

from tfwatch import requests
from tfwatch.ledger.index import PackageState
from tfwatch.look import HOW_TO_BE_LET_IN, Unavailable, View
from tfwatch.model import Stage
from tfwatch.requests import Request
from tfwatch.spool.names import printable
from tfwatch.story import cancel, requeue

TAKEN_SECONDS: Final = 5.0
"""How long a running daemon may take to see a request."""

_LOOK_SECONDS: Final = 0.02


class NotPossible(Exception):
    """What was asked for can't be done: to which package, why, and what to do instead."""


def choose(view: View, word: str) -> PackageState:
    """The one package a word names that can be put back; raises `NotPossible`."""
    states = view.find(word)
    if not states:
        raise NotPossible(unknown(view, word))
    present = [state for state in states if state.stage in view.places(state.name)]
    if len(present) > 1:
        listed = ", ".join(f"{printable(state.name)} in {state.stage}/ ({state.sha256[:12]})" for state in present)
        raise NotPossible(f"{printable(word)}: names several packages: {listed}; give the SHA-256 digits of one")
    return present[0] if present else states[0]


def unknown(view: View, word: str) -> str:
    """That nothing is known under a word, and which names are like it."""
    name = os.path.basename(word)
    if name and view.folders.look(Stage.OUTBOX, name) is not None:
        return f"{printable(word)}: lies in outbox/ and has not been sent yet; ask: tfwatch why {printable(name)}"
    near = ", ".join(map(printable, view.near(word)))
    hint = f"did you mean: {near}?" if near else "look at the names in the spool's folders, or at tfwatch log"
    return f"{printable(word)}: no package of that name, SHA-256, trace or order is known; {hint}"


def check_requeue(view: View, state: PackageState, *, forced: bool) -> None:
    """Raises `NotPossible` when putting a package back into the outbox makes no sense, or a second order."""
    name = printable(state.name)
    again = printable(requeue(state.name, force=True))
    if state.stage is None:
        raise NotPossible(f"{name}: is in no folder any more; to have it sent again, drop its ZIP into outbox/")
    if state.stage is Stage.CLAIMED:
        raise NotPossible(f"{name}: is being worked on; ask what became of it: tfwatch why {name}")
    if state.stage not in (found := view.places(state.name)):
        seen = f"lies in {found[0]}/" if found else "is in no folder"
        raise NotPossible(f"{name}: {seen}, though the log has it in {state.stage}/; see: tfwatch why {name}")
    if forced:
        return
    if state.stage in (Stage.SUBMITTED, Stage.DELIVERED):
        order = f" as order {printable(state.order_id)}" if state.order_id else ""
        raise NotPossible(f"{name}: was accepted already{order}; for a second order of it: {again}")
    content = view.index.content(state.sha256)
    if content.accepted_as is not None and not content.unknown and view.settings.config.intake.duplicates == "reject":
        order = f" as order {printable(content.order_id)}" if content.order_id else ""
        raise NotPossible(
            f"{name}: the same content was accepted already under the name {printable(content.accepted_as)}{order}, "
            f"so it would be refused again as a duplicate; for a second order of it: {again}"
        )


def choose_to_cancel(view: View, word: str, *, accepted_too: bool) -> str:
    """The name of the one file in outbox/ (or submitted/) that a word names; raises `NotPossible`."""
    name = os.path.basename(word)
    if not name or not view.places(name):
        name = choose(view, word).name
    places, shown = view.places(name), printable(name)
    if Stage.OUTBOX in places:
        return name
    if Stage.SUBMITTED in places and accepted_too:
        return name
    if Stage.SUBMITTED in places:
        order = next((f" as order {printable(state.order_id)}" for state in view.find(name) if state.order_id), "")
        raise NotPossible(
            f"{shown}: was accepted already{order}, and that order goes on at the service, where only they can cancel "
            f"it; to stop following it here and keep its ZIP in rejected/: {printable(cancel(name, force=True))}"
        )
    if Stage.CLAIMED in places:
        raise NotPossible(f"{shown}: is being sent, or may have been: see what becomes of it: tfwatch why {shown}")
    if Stage.REJECTED in places:
        raise NotPossible(f"{shown}: lies in rejected/ already, so it is not sent")
    if Stage.DELIVERED in places:
        raise NotPossible(f"{shown}: is delivered, which nobody can take back; see: tfwatch why {shown}")
    raise NotPossible(f"{shown}: is in no folder any more, so it is not sent; see: tfwatch why {shown}")


def leave(view: View, request: Request) -> bool | None:
    """Leave a request on disk: True once the daemon took it, False when it didn't in time, None with none running.

    Raises `Unavailable`.
    """
    folders = view.folders
    if not os.path.isdir(folders.requests):
        raise Unavailable(f"{folders.root}: no daemon has worked in this spool yet; start it first")
    try:
        name = requests.leave(folders, request)
    except PermissionError:
        user = f"user {os.geteuid()}"
        raise Unavailable(f"{folders.requests}: {user} may not write there; {HOW_TO_BE_LET_IN}") from None
    if not view.running:
        return None
    deadline = time.monotonic() + TAKEN_SECONDS
    while name in folders.waiting_requests():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def requeue_request(states: Sequence[PackageState], *, user: str, forced: bool) -> Request:
    """One request for all of them."""
    return Request(
        command="requeue",
        user=user,
        names=tuple(state.name for state in states),
        sha256s=tuple(state.sha256 for state in states),
        forced=forced,
    )


def user_name(environ: Mapping[str, str]) -> str:
    """Who asks, as the log will say: whoever used sudo, else the login name, else the user's number."""
    said = environ.get("SUDO_USER") or environ.get("LOGNAME")
    if said:
        return said
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
