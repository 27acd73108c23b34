"""The story of one package: what happened to it, in plain words and in order, where it is, and what to do. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tfwatch.language import tr
from tfwatch.ledger.index import PackageState
from tfwatch.model import DeliveryRecord, Event, Stage, Status, read_detail
from tfwatch.story_lines import When, words

_ROWS_A_SHEET: Final = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is known besides the log's rows.

    `places`: the stages where a file of that name lies now. `held`: what keeps packages from being sent, empty when
    nothing does; `lift`: what to do about that. `worksheet`: where the log is mirrored, None when it isn't.
    """

    places: tuple[Stage, ...]
    running: bool
    held: str
    lift: str
    backups_on: bool
    worksheet: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that happened. `sheet_row`: its place in the sheet, `log!A7`; empty when there is no sheet."""

    at: datetime
    seq: int
    event: Event
    text: str
    sheet_row: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One package's story. `where`: where its file lies and what the log says of that; `what_to_do`: a sentence."""

    state: PackageState
    lines: tuple[Line, ...]
    where: str
    what_to_do: str


def tell(state: PackageState, rows: Sequence[DeliveryRecord], scene: Scene, when: When) -> Story:
    """Assemble a story from the rows about a package's content (others of the same content are left out)."""
    own = rows_of(state, rows)
    lines = [
        Line(at=row.at, seq=row.seq, event=row.event, text=text, sheet_row=sheet_row(row.seq, scene.worksheet))
        for n, row in enumerate(own)
        for text in words(row, when, is_first=n == 0)
    ]
    said = [row for row in own if row.package]
    flaw = read_detail(said[-1].detail)[0].get("flaw", "") if said else ""
    step = next_step(state, scene, when, flaw=flaw)
    return Story(state=state, lines=tuple(lines), where=whereabouts(state, scene), what_to_do=step)


def rows_of(state: PackageState, rows: Iterable[DeliveryRecord]) -> list[DeliveryRecord]:
    """The rows about a package under its name and, before it was renamed, its earlier ones; the log's order.

    Calls are about an order or a content, whatever its name.
    """
    names, own = {state.name}, []
    for row in reversed(list(rows)):
        is_call = row.event is Event.WEBHOOK and row.order_id in ("", state.order_id)
        if row.sha256 == state.sha256 and (row.package in names or is_call):
            own.append(row)
            names |= {was for was in (read_detail(row.detail)[0].get("was"),) if was is not None}
    return own[::-1]


def sheet_row(seq: int, worksheet: str | None) -> str:
    """Log row n has one place: row ((n-1) mod 500,000) + 2 of worksheet `log`, `log-2`, …"""
    if worksheet is None:
        return ""
    number, row = divmod(seq - 1, _ROWS_A_SHEET)
    return f"{worksheet if number == 0 else f'{worksheet}-{number + 1}'}!A{row + 2}"


# --- where it is, and what to do -------------------------------------------------------------------------------------


def whereabouts(state: PackageState, scene: Scene) -> str:
    """Where its file lies now, and how that fits what the log says."""
    seen, stage = ", ".join(f"{place}/" for place in scene.places), state.stage
    if stage in scene.places:
        if len(scene.places) == 1:
            return tr("in {stage}/", stage=stage)
        return tr("in {stage}/ (files of that name: {places})", stage=stage, places=seen)
    if stage is not None and _is_where_it_should_be(state, scene):
        if scene.running:
            return tr("in claimed/: it is being worked on")
        return tr("in claimed/: work on it goes on at the start")
    if stage is None:
        if seen:
            return tr("in no folder by the log; a file of that name lies in {places}", places=seen)
        if state.event is Event.PRUNED:
            return tr("in no folder any more: retention removed it")
        return tr("in no folder any more")
    if not seen:
        return tr("in no folder, though the log has it in {stage}/: somebody took it away", stage=stage)
    follows = (
        tr("the daemon will notice in a moment") if scene.running else tr("that is logged at the daemon's next start")
    )
    return tr(
        "in {places}, though the log has it in {stage}/: somebody moved it, or it is another file of that name; "
        "{follows}",
        places=seen, stage=stage, follows=follows,
    )  # fmt: skip


def next_step(state: PackageState, scene: Scene, when: When, *, flaw: str = "") -> str:
    """What a person should do about a package, or why nothing. `flaw`: what its last row found wrong with it."""
    start = "" if scene.running else tr(" (the daemon is not running: systemctl start tfwatch)")
    if not _is_where_it_should_be(state, scene):
        if not scene.places:
            return tr("nothing, if it was taken away on purpose; else put its ZIP back, or drop it into outbox/ again")
        return tr("nothing: the daemon follows what was moved") + start
    match state.stage:
        case Stage.OUTBOX if scene.held:
            return tr("it waits: {why}.", why=scene.held) + _lift(scene) + start
        case Stage.OUTBOX if state.retry_at is not None:
            return tr("nothing: it is tried again at {when}", when=when(state.retry_at)) + start
        case Stage.OUTBOX:
            return tr("nothing: it waits for its turn") + start
        case Stage.CLAIMED:
            return _step_in_claimed(state, scene, when) + start
        case Stage.SUBMITTED:
            return tr("nothing: its verdict is awaited") + start
        case Stage.DELIVERED if scene.backups_on and not state.backed_up:
            return tr("nothing: its backup is still to be made") + start
        case Stage.DELIVERED:
            return tr("nothing: it is done")
        case Stage.REJECTED:
            return _step_in_rejected(state, flaw)
        case None if state.status is Status.DELIVERED and state.backed_up:
            back = restore(state.name)
            return tr("nothing: it is done, and its backup is kept; to have its ZIP back: {command}", command=back)
        case None:
            return tr("nothing; to have it sent again, drop its ZIP into outbox/")


def _is_where_it_should_be(state: PackageState, scene: Scene) -> bool:
    """A claim is no fact: what the log has in outbox/ may lie in claimed/."""
    is_claimed = state.stage is Stage.OUTBOX and Stage.CLAIMED in scene.places
    return state.stage is None or state.stage in scene.places or is_claimed


def _step_in_claimed(state: PackageState, scene: Scene, when: When) -> str:
    if state.status is Status.UNKNOWN and scene.held:
        return tr("it waits to be asked about: {why}.", why=scene.held) + _lift(scene)
    if state.status is Status.UNKNOWN and state.retry_at is not None:
        moment = when(state.retry_at)
        return tr("nothing: it is sent or asked about again, under the same key, at {when}", when=moment)
    return (
        tr("nothing: it is being sent") if scene.running else tr("nothing: what became of it is found out at the start")
    )


def _lift(scene: Scene) -> str:
    return tr(" To go on: {what}", what=scene.lift) if scene.lift else ""


def _step_in_rejected(state: PackageState, flaw: str) -> str:
    if state.by_rollback:
        return tr(
            "mend what made the deliveries fail, then: tfwatch enable gotranscript (it requeues this package too)"
        )
    if state.status is Status.UNKNOWN:
        return tr(
            "ask the service whether it has it (client reference {sha256}); if it has: move the ZIP to delivered/, "
            "if it has not: {command}",
            sha256=state.sha256, command=requeue(state.name),
        )  # fmt: skip
    if flaw == "duplicate":
        return tr(
            "nothing, if one order is enough; for a second one: {command}", command=requeue(state.name, force=True)
        )
    if state.event is Event.MOVED:
        again = requeue(state.name, force=state.accepted_at is not None)
        return tr("nothing: an operator put it there; to have it sent: {command}", command=again)
    return tr(
        "read the .reason.txt beside it; mend the package and drop it again, or: {command}", command=requeue(state.name)
    )


def requeue(name: str, *, force: bool = False) -> str:
    """The command that brings a package back into the outbox, as a shell takes it."""
    return _command("requeue", *(["--force"] if force else []), name=name)


def cancel(name: str, *, force: bool = False) -> str:
    """The command that cancels a package, as a shell takes it."""
    return _command("cancel", *(["--force"] if force else []), name=name)


def restore(name: str) -> str:
    """The command that brings a package back from its backup, as a shell takes it."""
    return _command("restore", name=name)


def _command(*words: str, name: str) -> str:
    return shlex.join(["tfwatch", *words, *(["--"] if name.startswith("-") else []), name])
