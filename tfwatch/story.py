"""The story of one package: what happened to it, in plain words and in order, where it is, and what to do. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tfwatch.ledger.index import PackageState
from tfwatch.model import Actor, DeliveryRecord, Event, Stage, Status, read_detail

_ROWS_A_SHEET: Final = 500_000

When = Callable[[datetime], str]
"""How a moment is shown to people."""


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
        for text in _words(row, when, is_first=n == 0)
    ]
    flaw = read_detail(own[-1].detail)[0].get("flaw", "") if own else ""
    step = next_step(state, scene, when, flaw=flaw)
    return Story(state=state, lines=tuple(lines), where=whereabouts(state, scene), what_to_do=step)


def rows_of(state: PackageState, rows: Iterable[DeliveryRecord]) -> list[DeliveryRecord]:
    """The rows about a package under its name and, before it was renamed, its earlier ones; the log's order."""
    names, own = {state.name}, []
    for row in reversed(list(rows)):
        if row.sha256 == state.sha256 and row.package in names:
            own.append(row)
            names |= {was for was in (read_detail(row.detail)[0].get("was"),) if was is not None}
    return own[::-1]


# --- what happened --------------------------------------------------------------------------------------------------


def _words(row: DeliveryRecord, when: When, *, is_first: bool) -> list[str]:
    facts, message = read_detail(row.detail)
    words = []
    dropped = facts.get("dropped")
    if is_first and dropped and dropped != row.package:
        words.append(f"was dropped as {dropped}; that name was taken, so it is called {row.package}")
    elif is_first and dropped:
        words.append("was taken out of outbox/ and read to its end")
    return [*words, _WORDS.get(row.event, _other)(row, facts, message, when)]


_Facts = Mapping[str, str]


def _attempted(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    key = f", as delivery {facts['generation']} of this content" if facts.get("generation", "1") != "1" else ""
    where = f" to {facts['base_url']} ({facts.get('profile', '?')})" if "base_url" in facts else ""
    return f"round {row.attempt or 1}: is being sent{where}{key}"


def _accepted(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    said = message or facts.get("word", "")
    return f"was accepted as order {row.order_id}{_figures(row)}{_quote(said)}"


def _completed(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    after = f", {seconds(row.duration_ms / 1000)} after it was accepted" if row.duration_ms else ""
    code = f" (HTTP {row.code})" if row.code is not None else ""
    return f"was completed{code}{after}{_quote(message or facts.get('word', ''))}"


def _refused(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    if facts.get("by") == "service":
        order = f" as order {row.order_id}" if row.order_id else ""
        return f"was refused by the service{order}{_figures(row)}{_quote(message or facts.get('word', ''))}"
    flaw = f" ({facts['flaw']})" if "flaw" in facts else ""
    return f"was refused here and not sent{flaw}: {message}"


def _deferred(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    head = "was not delivered" if facts.get("failed") == "yes" else "waits"
    return f"{head}{_figures(row)}: {message or 'no reason given'}{_retry(facts, when)}"


def _unknown(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    then = "; it was put into rejected/ for a person to decide" if row.to_stage is Stage.REJECTED else ""
    return f"may have been accepted, nobody knows{_figures(row)}: {message}{then}{_retry(facts, when)}"


def _requeued(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    forced = ", for a further order (--force)" if facts.get("forced") == "yes" else ""
    return f"was put back into outbox/ by {_who(row)}{forced}: {message}"


def _moved(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    renamed = f"; it was called {facts['was']} before" if "was" in facts else ""
    return f"{message or 'was moved'} (by {_who(row)}){renamed}"


def _backed_up(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    extra = f" ({message})" if message else ""
    return f"was backed up: bucket {facts.get('bucket', '?')}, key {facts.get('key', '?')}{extra}"


def _backup_failed(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    return f"could not be backed up{_figures(row)}: {message}; that is tried again until it is done"


def _rollback(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    sent = "whether it arrived is not known" if facts.get("sent") == "maybe" else "it was not delivered"
    what = facts.get("integration", "the integration")
    return f"tripped the rollback of {what}{_figures(row)}, so it went to rejected/ ({sent}): {message}"


def _pruned(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    return (
        f"was removed from {row.from_stage or 'its folder'}/ by the retention rule{f': {message}' if message else ''}"
    )


def _recovered(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    return f"after a restart: {message}"


def _webhook(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    return f"the service called{_quote(message)}"


def _other(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    return f"{row.event.value.lower()}: {message}"


_WORDS: Final = {
    Event.ATTEMPTED: _attempted,
    Event.ACCEPTED: _accepted,
    Event.COMPLETED: _completed,
    Event.REFUSED: _refused,
    Event.DEFERRED: _deferred,
    Event.UNKNOWN: _unknown,
    Event.REQUEUED: _requeued,
    Event.MOVED: _moved,
    Event.BACKED_UP: _backed_up,
    Event.BACKUP_FAILED: _backup_failed,
    Event.ROLLBACK: _rollback,
    Event.PRUNED: _pruned,
    Event.RECOVERED: _recovered,
    Event.WEBHOOK: _webhook,
}


def _who(row: DeliveryRecord) -> str:
    return "an operator" if row.actor is Actor.OPERATOR else "tfwatch"


def _figures(row: DeliveryRecord) -> str:
    """` (HTTP 503, 4 tries, 12 s)`, as far as the row has them."""
    parts = [f"HTTP {row.code}"] if row.code is not None else []
    if row.attempt is not None and row.event is not Event.ATTEMPTED:
        parts.append(f"{row.attempt} tries" if row.attempt != 1 else "1 try")
    if row.duration_ms is not None and not (row.event is Event.REFUSED and row.order_id):
        parts.append(seconds(row.duration_ms / 1000))
    return f" ({', '.join(parts)})" if parts else ""


def _quote(said: str) -> str:
    return f"; its words: {said}" if said else ""


def _retry(facts: _Facts, when: When) -> str:
    if "retry_at" not in facts:
        return ""
    try:
        return f"; next try at {when(datetime.fromisoformat(facts['retry_at']))}"
    except ValueError:
        return f"; next try at {facts['retry_at']}"


def seconds(count: float) -> str:
    """A length of time in its two largest units: `8 ms`, `0.8 s`, `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`."""
    if count < 0.1:
        return f"{count * 1000:.0f} ms"
    if count < 10:
        return f"{count:.1f} s"
    if count < 120:
        return f"{count:.0f} s"
    minutes = round(count / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def sheet_row(seq: int, worksheet: str | None) -> str:
    """Log row n has one place: row ((n-1) mod 500,000) + 2 of worksheet `log`, `log-2`, …"""
    if worksheet is None:
        return ""
    number, row = divmod(seq - 1, _ROWS_A_SHEET)
    return f"{worksheet if number == 0 else f'{worksheet}-{number + 1}'}!A{row + 2}"


# --- where it is, and what to do -------------------------------------------------------------------------------------


def whereabouts(state: PackageState, scene: Scene) -> str:
    """Where its file lies now, and how that fits what the log says."""
    seen = " and ".join(f"{place}/" for place in scene.places)
    if state.stage in scene.places:
        return f"in {state.stage}/" if len(scene.places) == 1 else f"in {state.stage}/ (files of that name: {seen})"
    if state.stage is not None and _is_where_it_should_be(state, scene):
        return "in claimed/: it is being worked on" if scene.running else "in claimed/: work on it goes on at the start"
    if state.stage is None:
        return f"in no folder by the log; a file of that name lies in {seen}" if seen else "in no folder any more"
    by_log = f"the log has it in {state.stage}/"
    if not seen:
        return f"in no folder, though {by_log}: somebody took it away"
    follows = "the daemon will notice in a moment" if scene.running else "that is logged at the daemon's next start"
    return f"in {seen}, though {by_log}: somebody moved it, or it is another file of that name; {follows}"


def next_step(state: PackageState, scene: Scene, when: When, *, flaw: str = "") -> str:
    """What a person should do about a package, or why nothing. `flaw`: what its last row found wrong with it."""
    start = "" if scene.running else " (the daemon is not running: systemctl start tfwatch)"
    if not _is_where_it_should_be(state, scene):
        if not scene.places:
            return "nothing, if it was taken away on purpose; else put its ZIP back, or drop it into outbox/ again"
        return f"nothing: the daemon follows what was moved{start}"
    match state.stage:
        case Stage.OUTBOX if scene.held:
            return f"it waits: {scene.held}.{f' To go on: {scene.lift}' if scene.lift else ''}{start}"
        case Stage.OUTBOX if state.retry_at is not None:
            return f"nothing: it is tried again at {when(state.retry_at)}{start}"
        case Stage.OUTBOX:
            return f"nothing: it waits for its turn{start}"
        case Stage.CLAIMED:
            return _step_in_claimed(state, scene, when) + start
        case Stage.SUBMITTED:
            return f"nothing: its verdict is awaited{start}"
        case Stage.DELIVERED if scene.backups_on and not state.backed_up:
            return f"nothing: its backup is still to be made{start}"
        case Stage.DELIVERED:
            return "nothing: it is done"
        case Stage.REJECTED:
            return _step_in_rejected(state, flaw)
        case None:
            return "nothing; to have it sent again, drop its ZIP into outbox/"


def _is_where_it_should_be(state: PackageState, scene: Scene) -> bool:
    """A claim is no fact: what the log has in outbox/ may lie in claimed/."""
    is_claimed = state.stage is Stage.OUTBOX and Stage.CLAIMED in scene.places
    return state.stage is None or state.stage in scene.places or is_claimed


def _step_in_claimed(state: PackageState, scene: Scene, when: When) -> str:
    if state.status is Status.UNKNOWN and scene.held:
        return f"it waits to be asked about: {scene.held}.{f' To go on: {scene.lift}' if scene.lift else ''}"
    if state.status is Status.UNKNOWN and state.retry_at is not None:
        return f"nothing: it is sent or asked about again, under the same key, at {when(state.retry_at)}"
    return "nothing: it is being sent" if scene.running else "nothing: what became of it is found out at the start"


def _step_in_rejected(state: PackageState, flaw: str) -> str:
    if state.by_rollback:
        return "mend what made the deliveries fail, then: tfwatch enable gotranscript (it requeues this package too)"
    if state.status is Status.UNKNOWN:
        return (
            f"ask the service whether it has it (client reference {state.sha256}); if it has: move the ZIP to "
            f"delivered/, if it has not: {requeue(state.name)}"
        )
    if flaw == "duplicate":
        return f"nothing, if one order is enough; for a second one: {requeue(state.name, force=True)}"
    if state.event is Event.MOVED:
        again = requeue(state.name, force=state.accepted_at is not None)
        return f"nothing: an operator put it there; to have it sent: {again}"
    return f"read the .reason.txt beside it; mend the package and drop it again, or: {requeue(state.name)}"


def requeue(name: str, *, force: bool = False) -> str:
    """The command that brings a package back into the outbox, as a shell takes it."""
    words = ["tfwatch", "requeue", *(["--force"] if force else []), *(["--"] if name.startswith("-") else []), name]
    return shlex.join(words)
