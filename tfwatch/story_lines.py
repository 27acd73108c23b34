"""One row of the log as a line of its package's story. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from tfwatch.language import ntr, tr
from tfwatch.model import Actor, DeliveryRecord, Event, Stage, read_detail
from tfwatch.wording import call_in_words, seconds

When = Callable[[datetime], str]
"""How a moment is shown to people."""


def words(row: DeliveryRecord, when: When, *, is_first: bool) -> list[str]:
    """What a row says, in plain words that go on from the package's name. `is_first`: of the package's rows."""
    facts, message = read_detail(row.detail)
    said = []
    dropped = facts.get("dropped")
    if is_first and dropped and dropped != row.package:
        text = tr(
            "was dropped as {earlier}; that name was taken, so it is called {name}", earlier=dropped, name=row.package
        )
        said.append(text)
    elif is_first and dropped:
        said.append(tr("was taken out of outbox/ and read to its end"))
    return [*said, _WORDS.get(row.event, _other)(row, facts, message, when)]


_Facts = Mapping[str, str]


def _attempted(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    generation = facts.get("generation", "1")
    key = tr(", as delivery {number} of this content", number=generation) if generation != "1" else ""
    where = (
        tr(" to {url} ({profile})", url=facts["base_url"], profile=facts.get("profile", "?"))
        if "base_url" in facts
        else ""
    )
    return tr("round {number}: is being sent{where}{key}", number=row.attempt or 1, where=where, key=key)


def _accepted(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    said = message or facts.get("word", "")
    return tr("was accepted as order {order}{figures}", order=row.order_id, figures=_figures(row)) + _quote(said)


def _completed(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    after = tr(", {time} after it was accepted", time=seconds(row.duration_ms / 1000)) if row.duration_ms else ""
    code = f" (HTTP {row.code})" if row.code is not None else ""
    return tr("was completed{code}{after}", code=code, after=after) + _quote(message or facts.get("word", ""))


def _refused(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    if facts.get("by") == "service":
        order = tr(" as order {order}", order=row.order_id) if row.order_id else ""
        said = tr("was refused by the service{order}{figures}", order=order, figures=_figures(row))
        return said + _quote(message or facts.get("word", ""))
    flaw = f" ({facts['flaw']})" if "flaw" in facts else ""
    return tr("was refused here and not sent{flaw}: {why}", flaw=flaw, why=message)


def _deferred(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    head = tr("was not delivered") if facts.get("failed") == "yes" else tr("waits")
    why = message or tr("no reason given")
    return f"{head}{_figures(row)}: {why}{_retry(facts, when)}"


def _unknown(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    then = tr("; it was put into rejected/ for a person to decide") if row.to_stage is Stage.REJECTED else ""
    said = tr("may have been accepted, nobody knows{figures}: {why}", figures=_figures(row), why=message)
    return f"{said}{then}{_retry(facts, when)}"


def _requeued(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    forced = tr(", for a further order (--force)") if facts.get("forced") == "yes" else ""
    return tr("was put back into outbox/ by {who}{forced}: {why}", who=_who(row), forced=forced, why=message)


def _moved(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    renamed = tr("; it was called {earlier} before", earlier=facts["was"]) if "was" in facts else ""
    return tr("{what} (by {who})", what=message or tr("was moved"), who=_who(row)) + renamed


def _backed_up(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    extra = f" ({message})" if message else ""
    bucket, key = facts.get("bucket", "?"), facts.get("key", "?")
    return tr("was backed up: bucket {bucket}, key {key}", bucket=bucket, key=key) + extra


def _backup_failed(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    if row.to_stage is None:
        return tr("has no backup any more: {why}", why=message)
    return tr(
        "could not be backed up{figures}: {why}; that is tried again until it is done",
        figures=_figures(row),
        why=message,
    )


def _rollback(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    sent = tr("whether it arrived is not known") if facts.get("sent") == "maybe" else tr("it was not delivered")
    return tr(
        "tripped the rollback of {name}{figures}, so it went to rejected/ ({sent}): {why}",
        name=facts.get("integration", "?"), figures=_figures(row), sent=sent, why=message,
    )  # fmt: skip


def _pruned(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    said = tr("was removed from {stage}/ by the retention rule", stage=row.from_stage or "?")
    kept = tr("; its backup: key {key}", key=facts["key"]) if "key" in facts else ""
    return (f"{said}: {message}" if message else said) + kept


def _recovered(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    return tr("after a restart: {what}", what=message)


def _webhook(row: DeliveryRecord, facts: _Facts, message: str, when: When) -> str:
    outcome, said = facts.get("outcome", ""), message or facts.get("word", "")
    if "integration" not in facts:
        return tr("the service called") + _quote(message)
    what = call_in_words(outcome)
    return tr("{integration} called: {what}", integration=facts["integration"], what=what) + _quote(said)


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
    return tr("an operator") if row.actor is Actor.OPERATOR else "tfwatch"


def _figures(row: DeliveryRecord) -> str:
    """` (HTTP 503, 4 tries, 12 s)`, as far as the row has them."""
    parts = [f"HTTP {row.code}"] if row.code is not None else []
    if row.attempt is not None and row.event is not Event.ATTEMPTED:
        parts.append(ntr("{count} try", "{count} tries", row.attempt))
    if row.duration_ms is not None and not (row.event is Event.REFUSED and row.order_id):
        parts.append(seconds(row.duration_ms / 1000))
    return f" ({', '.join(parts)})" if parts else ""


def _quote(said: str) -> str:
    return tr("; its words: {words}", words=said) if said else ""


def _retry(facts: _Facts, when: When) -> str:
    if "retry_at" not in facts:
        return ""
    try:
        moment = when(datetime.fromisoformat(facts["retry_at"]))
    except ValueError:
        moment = facts["retry_at"]
    return tr("; next try at {when}", when=moment)
