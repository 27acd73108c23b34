"""Figures past the limits an operator set: success rates, latency, and packages that wait too long.

A rate counts from the first delivery on: one failure in ten on a quiet day is ten percent, and a person may want to
know why. All rates are of 24 hours, so such an episode lasts until then, or until enough got through.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from tfwatch.delivery.journal import fields, fields_of
from tfwatch.language import number, tr
from tfwatch.model import Integration, Stage
from tfwatch.observe.alerts import Condition
from tfwatch.observe.state import Running
from tfwatch.spool.names import printable

_MINUTE: Final = 60.0

_WAY_BACK: Final = 0.25
"""A rate is well again a quarter of the way from its limit to 100 %; a latency, when it is so much below its limit."""


class Figures(Protocol):
    """What is needed of all figures; None: nothing happened in 24 hours. `oldest_seconds`: by stage word."""

    @property
    def delivery_success_rate(self) -> float | None: ...
    @property
    def backup_success_rate(self) -> float | None: ...
    @property
    def avg_delivery_latency_ms(self) -> float | None: ...
    @property
    def oldest_seconds(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From which figures on people are told. Rates are shares, 0 to 1."""

    backup_success_rate_min: float = 0.95
    delivery_success_rate_min: float = 0.99
    avg_delivery_latency_ms_max: float = 2000
    oldest_package_minutes: float = 60


def past(daemon: Running, figures: Figures, limits: Limits, going_on: frozenset[str]) -> Iterator[Condition]:
    """What is past its limit. `going_on`: the keys of what was before; that must be well past its limit to be over."""
    share, least = figures.delivery_success_rate, limits.delivery_success_rate_min
    shown = {"rate": _percent(share), "least": _percent(least)}
    yield from _too_low(
        "delivery-rate", Integration.GOTRANSCRIPT, share, least, going_on,
        text=tr(
            "only {rate} of the delivery attempts of the last 24 h got through, less than "
            "alerts.delivery_success_rate_min ({least}): tfwatch status says what fails",
            **shown,
        ),
        over=tr("the delivery success rate of the last 24 h is back above {least}", **shown),
    )  # fmt: skip
    share, least = figures.backup_success_rate, limits.backup_success_rate_min
    shown = {"rate": _percent(share), "least": _percent(least)}
    yield from _too_low(
        "backup-rate", Integration.S3, share, least, going_on,
        text=tr(
            "only {rate} of the backups of the last 24 h were stored, less than alerts.backup_success_rate_min "
            "({least}); they are tried again, deliveries go on: tfwatch status says what fails",
            **shown,
        ),
        over=tr("the backup success rate of the last 24 h is back above {least}", **shown),
    )  # fmt: skip
    most, latency = limits.avg_delivery_latency_ms_max, figures.avg_delivery_latency_ms
    if latency is not None and latency > most * (1 - _WAY_BACK if "latency" in going_on else 1.0):
        yield Condition(
            key="latency",
            text=tr(
                "a delivery took {ms} ms on average over the last 24 h, more than alerts.avg_delivery_latency_ms_max "
                "({most} ms): look at the network and at the service, or raise the limit if packages are large",
                ms=number(latency), most=number(most),
            ),
            over=tr("the average delivery latency of the last 24 h is back below {most} ms", most=number(most)),
            fields={"INTEGRATION": Integration.GOTRANSCRIPT.value},
        )  # fmt: skip
    for stage in (Stage.OUTBOX, Stage.CLAIMED, Stage.SUBMITTED):
        age = figures.oldest_seconds.get(stage.value)
        if age is not None and age > limits.oldest_package_minutes * _MINUTE:
            yield _oldest(daemon, stage, age, limits.oldest_package_minutes)


def _too_low(
    key: str,
    integration: Integration,
    share: float | None,
    least: float,
    going_on: frozenset[str],
    *,
    text: str,
    over: str,
) -> Iterator[Condition]:
    """One rate under its limit. Its texts are made in any case, and shown only then."""
    enough = least + _WAY_BACK * (1 - least) if key in going_on else least
    if share is not None and share < enough:
        yield Condition(key=key, text=text, over=over, fields={"INTEGRATION": integration.value})


def _oldest(daemon: Running, stage: Stage, age: float, limit: float) -> Condition:
    """One that waits too long, whatever it waits for: also what a person switched off is forgotten at times."""
    facts = {"stage": stage.value, "minutes": int(age / _MINUTE), "limit": f"{limit:g}"}
    filed = _oldest_of(daemon, stage)
    name = filed.get("PACKAGE", "")
    ask = tr("tfwatch why {name}", name=shlex.quote(name)) if name else "tfwatch status"
    head = tr(
        "a package is in {stage}/ for {minutes} min, longer than alerts.oldest_package_minutes ({limit})", **facts
    )
    whole = head if not name else tr(
        "{stage}/{name} is there for {minutes} min, longer than alerts.oldest_package_minutes ({limit})",
        name=name, **facts,
    )  # fmt: skip
    stand = daemon.switches[Integration.GOTRANSCRIPT].stand
    if stage is Stage.SUBMITTED:
        what = tr(
            "it was accepted and has no verdict; ask the service about order {order}",
            order=printable(filed.get("ORDER_ID", "")),
        )
        bare = tr("it was accepted and has no verdict; ask the service about its order: tfwatch status names it")
    elif not stand.open:
        facts = {"state": stand.word, "hint": stand.hint}
        what = tr("gotranscript is {state}: {reason}; {hint}", reason=printable(stand.reason), **facts)
        bare = tr("gotranscript is {state}; {hint}", **facts)
    else:
        what, bare = ask, "tfwatch status"
    return Condition(
        key=f"oldest:{stage.value}",
        text=f"{whole}: {what}",
        outside=f"{head}: {bare}",
        over=tr("no package is in {stage}/ for longer than alerts.oldest_package_minutes any more", stage=stage.value),
        is_found_late=True,
        fields=filed,
    )


def _oldest_of(daemon: Running, stage: Stage) -> dict[str, str]:
    """What the journal files the oldest package of a stage under, as far as it is known now."""
    if stage is Stage.OUTBOX:
        entry = min(daemon.outbox.listing.entries, key=lambda entry: entry.ctime_ns, default=None)
        return fields_of(daemon.desk.index, entry.name) if entry else {}
    state = daemon.desk.index.oldest(stage)
    return fields(state, state.name, order_id=state.order_id) if state else {}


def _percent(share: float | None) -> str:
    """Rounded down, so that it never looks like the limit it is below."""
    hundredths = round((share or 0) * 1e6) // 100
    return number(hundredths / 100, 2 if hundredths % 100 else 0) + " %"
