"""What the file beside a rejected package says: why it lies there, and what to do. Pure.

Each text is made twice from the same facts: when the package is rejected, and at a start that finds it was rejected by
a daemon which died before it could say so.
"""

from __future__ import annotations

from typing import Final

from tfwatch.ledger.states import PackageState
from tfwatch.model import Integration, Status
from tfwatch.spool.names import printable

ADVICE: Final = {
    "corrupt": "make the ZIP again and drop it under the same name; this copy can be deleted.",
    "truncated": "copy it again, whole; this copy can be deleted.",
    "encrypted": "make the ZIP again without a password.",
    "empty": "make the ZIP again with its files in it.",
    "duplicate": "nothing, if one order is enough. For a second order of the same content: "
    "tfwatch requeue --force NAME.",
    "unknown twin": "decide about the package named above first: ask the service whether it has it.",
    "too_many_entries": "split it, or raise the limit in config.yaml and move it back to outbox/.",
    "too_big": "split it, or raise the limit in config.yaml and move it back to outbox/.",
    "bomb": "check where it came from; if it is honest, raise the limit in config.yaml and move it back to outbox/.",
    "unsafe_name": "make the ZIP again with relative names and without `..` in them.",
    "ambiguous": "make the ZIP again without a comment, and check where this one came from.",
    "overlapping": "make the ZIP again with an ordinary program, and check where this one came from.",
    "unsupported": "make the ZIP again with the usual compression (Deflate).",
}
"""What to do about a package that was refused here, for each flaw."""


def refused(name: str, *, message: str, code: int | None) -> str:
    """The service's own words about a package it never took."""
    return (
        f"{printable(name)} was refused by the transcription service.\n\n"
        f"Its own words: {message}\n"
        f"HTTP status: {code or 'none'}\n"
        "What to do: mend the package and drop it again, or move this one back to outbox/ to try it once more.\n"
    )


def refused_later(name: str, *, order_id: str, message: str) -> str:
    """The service's own words about an order it had accepted."""
    return (
        f"{printable(name)} was accepted as order {order_id} and then refused by the transcription service.\n\n"
        f"Its own words: {message or 'none'}\n"
        "What to do: mend the package and drop it again, or move this one back to outbox/ for a new order.\n"
    )


def unknown(name: str, *, sha256: str, why: str) -> str:
    """It may have been accepted, and a person decides."""
    return (
        f"Nobody knows whether {printable(name)} was delivered.\n\n"
        f"Why: {why}.\n"
        f"What to do: ask the service whether it has this package (client reference {sha256}).\n"
        "If it has: move the ZIP to delivered/. If it has not: move it back to outbox/; it is sent again under the "
        "same idempotency key.\n"
    )


def rolled_back(name: str, *, integration: str, why: str) -> str:
    """It was the one whose failure switched the service off."""
    return (
        f"{printable(name)} was not delivered.\n\n"
        f"What happened: {why}.\n"
        f"{integration} was switched off so that no further package is put at risk; all others wait in outbox/.\n"
        f"What to do: mend the cause, then: tfwatch enable {integration} (it also requeues this package).\n"
    )


def refused_here(name: str, *, message: str, flaw: str) -> str:
    """A reason found in this house: nothing was sent."""
    advice = ADVICE.get(flaw, ADVICE["corrupt"])
    return f"{printable(name)} was refused and not sent.\n\nWhy: {message}\nWhat to do: {advice}\n"


def renamed(text: str, *, was: str, name: str) -> str:
    """The same about a package that had to take another name on its way into rejected/."""
    return (
        f"{text}\nIt is called {printable(name)} now, also for commands: another file called {printable(was)} lay in "
        "rejected/ already.\n"
    )


def after_a_crash(state: PackageState) -> str:
    """The same, from what the log adds up to: the daemon died after it had logged the rejection."""
    if state.by_rollback:
        return rolled_back(state.name, integration=Integration.GOTRANSCRIPT.value, why=state.reason)
    if state.status is Status.UNKNOWN:
        return unknown(state.name, sha256=state.sha256, why=state.reason)
    if state.flaw:
        return refused_here(state.name, message=state.reason, flaw=state.flaw)
    if state.order_id:
        return refused_later(state.name, order_id=state.order_id, message=state.reason)
    return refused(state.name, message=state.reason, code=state.code)
