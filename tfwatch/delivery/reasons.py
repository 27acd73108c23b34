"""What the file beside a rejected package says: why it lies there, and what to do. Pure.

Each text is made twice from the same facts: when the package is rejected, and at a start that finds it was rejected by
a daemon which died before it could say so.
"""

from __future__ import annotations

from collections.abc import Mapping

from tfwatch.language import tr
from tfwatch.ledger.states import PackageState
from tfwatch.model import Integration, Status
from tfwatch.spool.names import printable


def advice() -> Mapping[str, str]:
    """What to do about a package that was refused here, for each flaw."""
    fewer = tr("split it, or raise the limit in config.yaml and move it back to outbox/.")
    return {
        "corrupt": tr("make the ZIP again and drop it under the same name; this copy can be deleted."),
        "truncated": tr("copy it again, whole; this copy can be deleted."),
        "encrypted": tr("make the ZIP again without a password."),
        "empty": tr("make the ZIP again with its files in it."),
        "duplicate": tr(
            "nothing, if one order is enough. For a second order of the same content: tfwatch requeue --force NAME."
        ),
        "unknown twin": tr("decide about the package named above first: ask the service whether it has it."),
        "too_many_entries": fewer,
        "too_big": fewer,
        "bomb": tr(
            "check where it came from; if it is honest, raise the limit in config.yaml and move it back to outbox/."
        ),
        "unsafe_name": tr("make the ZIP again with relative names and without `..` in them."),
        "ambiguous": tr("make the ZIP again without a comment, and check where this one came from."),
        "overlapping": tr("make the ZIP again with an ordinary program, and check where this one came from."),
        "unsupported": tr("make the ZIP again with the usual compression (Deflate)."),
    }


def refused(name: str, *, message: str, code: int | None) -> str:
    """The service's own words about a package it never took."""
    return tr(
        "{name} was refused by the transcription service.\n\n"
        "Its own words: {message}\n"
        "HTTP status: {code}\n"
        "What to do: mend the package and drop it again, or move this one back to outbox/ to try it once more.\n",
        name=printable(name),
        message=message,
        code=code or tr("none"),
    )


def refused_later(name: str, *, order_id: str, message: str) -> str:
    """The service's own words about an order it had accepted."""
    return tr(
        "{name} was accepted as order {order} and then refused by the transcription service.\n\n"
        "Its own words: {message}\n"
        "What to do: mend the package and drop it again, or move this one back to outbox/ for a new order.\n",
        name=printable(name),
        order=order_id,
        message=message or tr("none"),
    )


def unknown(name: str, *, sha256: str, why: str) -> str:
    """It may have been accepted, and a person decides."""
    return tr(
        "Nobody knows whether {name} was delivered.\n\n"
        "Why: {why}.\n"
        "What to do: ask the service whether it has this package (client reference {sha256}).\n"
        "If it has: move the ZIP to delivered/. If it has not: move it back to outbox/; it is sent again under the "
        "same idempotency key.\n",
        name=printable(name),
        sha256=sha256,
        why=why,
    )


def rolled_back(name: str, *, integration: str, why: str) -> str:
    """It was the one whose failure switched the service off."""
    return tr(
        "{name} was not delivered.\n\n"
        "What happened: {why}.\n"
        "{integration} was switched off so that no further package is put at risk; all others wait in outbox/.\n"
        "What to do: mend the cause, then: tfwatch enable {integration} (it also requeues this package).\n",
        name=printable(name),
        integration=integration,
        why=why,
    )


def refused_here(name: str, *, message: str, flaw: str) -> str:
    """A reason found in this house: nothing was sent."""
    by_flaw = advice()
    return tr(
        "{name} was refused and not sent.\n\nWhy: {why}\nWhat to do: {advice}\n",
        name=printable(name),
        why=message,
        advice=by_flaw.get(flaw, by_flaw["corrupt"]),
    )


def put_here(name: str, *, accepted: bool) -> str:
    """A person cancelled it. `accepted`: its content was accepted before, so a second order must be asked for."""
    what = (
        tr(
            "nothing here; it was accepted before, and its order stays at the service. For a second order: "
            "tfwatch requeue --force {name}",
            name=printable(name),
        )
        if accepted
        else tr("move it back to outbox/ to have it sent.")
    )
    return tr(
        "{name} was put here by an operator, so it is not sent or followed any more.\n\nWhat to do: {what}\n",
        name=printable(name),
        what=what,
    )


def renamed(text: str, *, was: str, name: str) -> str:
    """The same about a package that had to take another name on its way into rejected/."""
    more = tr(
        "It is called {name} now, also for commands: another file called {earlier} lay in rejected/ already.",
        name=printable(name),
        earlier=printable(was),
    )
    return f"{text}\n{more}\n"


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
