"""`tfwatch status`: what the running daemon shows of itself, with what the folders and the log say, in one document."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from tfwatch import __version__
from tfwatch.language import ntr, number, tr
from tfwatch.ledger.index import PackageState
from tfwatch.local_time import midnight
from tfwatch.look import View
from tfwatch.model import Integration, Stage, parse_rfc3339, rfc3339
from tfwatch.seen import day_in_words, figures
from tfwatch.spool.names import printable
from tfwatch.story import Scene, next_step
from tfwatch.story_lines import When
from tfwatch.unsent import unreadable
from tfwatch.wording import integration_state, kind_of_file, seconds, work_in_words

_MOST_LISTED: Final = 20
_BAR: Final = 20
_SHORT_OF_WORK: Final = ("rolled back", "paused", "held")

Document = dict[str, Any]


def scene_of(view: View, state: PackageState) -> Scene:
    """What a package's story needs to know of its surroundings."""
    integrations = view.settings.config.integrations
    stand = view.stand(Integration.GOTRANSCRIPT)
    held = "" if stand.enabled else _is_held(Integration.GOTRANSCRIPT, stand.state, stand.reason)
    return Scene(
        places=view.places(state.name),
        running=view.running,
        held=held,
        lift=stand.what_to_do,
        backups_on=integrations.s3.enabled,
        worksheet=integrations.sheets.worksheet if integrations.sheets.enabled else None,
    )


# --- assembling -----------------------------------------------------------------------------------------------------


def assemble(view: View, now: datetime, when: When) -> Document:
    """The whole status as plain values; its keys are stable. Names are printable, moments RFC 3339."""
    shown = view.shown
    listing = view.listing(Stage.OUTBOX)
    blocked = list(islice(unreadable(view.folders, listing), _MOST_LISTED))
    integrations = shown.get("integrations") or {name.value: _integration(view, name) for name in Integration}
    document: Document = {
        "at": rfc3339(now),
        "spool": printable(view.folders.root),
        "config": printable(view.settings.path),
        "daemon": _daemon(view, shown),
        "stages": _stages(view, shown, now),
        "in_flight": [_with_percent(work) for work in shown.get("in_flight", ())],
        "waiting": [_waiting(state) for state in _waiting_states(view)],
        "integrations": integrations,
        "backup_pending": view.index.unbacked_count() if view.settings.config.integrations.s3.enabled else 0,
        "delivered_today": view.index.settled_since(midnight(now)),
        "unfinished": shown.get("unfinished", {}),
        "ignored": listing.ignored,
        "oddities": [{"package": printable(name), "kind": kind} for name, kind in listing.oddities[:_MOST_LISTED]],
        "unreadable": [{"package": printable(name), "what_to_do": how} for name, how in blocked],
        "parked": [_problem(view, state, when) for state in view.index.parked()[:_MOST_LISTED]],
        "last_problems": [_problem(view, state, when) for state in view.index.recent_problems(10)],
        "watch": shown.get("watch"),
        "watch_latency_seconds": shown.get("watch_latency_seconds"),
        "alerts": shown.get("alerts", []),
        "problems": _problems(view, shown),
        "config_problems": [str(problem) for problem in view.settings.problems],
    }
    document["metrics"] = figures(view, document, shown, now)
    document["needs_a_person"] = list(_needs(view, document))
    return document


def _daemon(view: View, shown: Mapping[str, Any]) -> Document:
    exec_id = shown.get("exec_id")
    return {
        "running": view.running,
        "pid": shown.get("pid"),
        "exec_id": exec_id,
        "since": _began(exec_id) if exec_id else None,
        "version": shown.get("version", __version__),
        "line": shown.get("line", ""),
    }


def _began(exec_id: str) -> str | None:
    """When a run began: its name says so, `20251113T103533Z_MSJTU6`."""
    try:
        return rfc3339(datetime.strptime(exec_id.partition("_")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC))
    except ValueError:
        return None


def _stages(view: View, shown: Mapping[str, Any], now: datetime) -> Document:
    """Count and oldest age of each stage. A daemon that runs has counted its settled packages already."""
    counted = shown.get("stages", {})
    stages = {}
    for stage in Stage:
        if stage in (Stage.OUTBOX, Stage.CLAIMED):
            entries = view.listing(stage).entries
            count, oldest = len(entries), min((entry.ctime_ns for entry in entries), default=None)
            age = None if oldest is None else max(0.0, time.time() - oldest / 1e9)
        else:
            count = counted[stage.value] if stage.value in counted else view.count(stage)
            since = view.index.oldest_at(stage) if count else None
            age = None if since is None else max(0.0, (now - since) / timedelta(seconds=1))
        stages[stage.value] = {"count": count, "oldest_seconds": None if age is None else round(age, 1)}
    return stages


def _with_percent(work: Mapping[str, Any]) -> Document:
    total = work.get("bytes") or 0
    # Inspecting reads the file and then unpacks it, so it may count further than the file is long.
    done = min(work.get("bytes_done", 0), total)
    return {**work, "percent": round(100 * done / total) if total else 0}


def _waiting_states(view: View) -> list[PackageState]:
    """Packages with a next try, the soonest first; one whose outcome is unknown waits in claimed/."""
    states = [*view.index.at_stage(Stage.OUTBOX), *view.index.at_stage(Stage.CLAIMED)]
    due = sorted((state.retry_at, n) for n, state in enumerate(states) if state.retry_at is not None)
    return [states[n] for _, n in due[:_MOST_LISTED]]


def _waiting(state: PackageState) -> Document:
    return {
        "package": printable(state.name),
        "sha256": state.sha256,
        "retry_at": rfc3339(state.retry_at) if state.retry_at else None,
        "failures": state.failures,
        "code": state.code,
        "reason": printable(state.reason),
    }


def _integration(view: View, name: Integration) -> Document:
    stand = view.stand(name)
    return {
        "enabled": stand.enabled,
        "state": stand.state,
        "source": stand.source,
        "reason": stand.reason,
        "what_to_do": stand.what_to_do,
        "trouble": "",
    }


def _problems(view: View, shown: Mapping[str, Any]) -> list[str]:
    """What the daemon says, and the room on its disk as it is now: on a full one it can't write down what it sees."""
    shortage = view.folders.shortage(view.settings.config.spool.min_free_bytes)
    said = [text for text in shown.get("problems", ()) if text != shown.get("shortage")]
    return [shortage, *said] if shortage else said


def _problem(view: View, state: PackageState, when: When) -> Document:
    return {
        "package": printable(state.name),
        "sha256": state.sha256,
        "at": rfc3339(state.changed_at),
        "stage": state.stage.value if state.stage else None,
        "status": state.status.value if state.status else None,
        "code": state.code,
        "reason": printable(state.reason),
        "retry_at": rfc3339(state.retry_at) if state.retry_at else None,
        "what_to_do": printable(next_step(state, scene_of(view, state), when)),
    }


def _needs(view: View, document: Document) -> Iterator[str]:
    """Everything that waits for a person, as sentences, the most urgent first."""
    if view.trouble:
        yield view.trouble
    yield from document["problems"]
    yield from document["config_problems"]
    for name, stand in document["integrations"].items():
        if stand["state"] in _SHORT_OF_WORK:
            what = f"; {stand['what_to_do']}" if stand["what_to_do"] else ""
            yield f"{_is_held(name, stand['state'], stand['reason'])}{what}"
        elif stand["trouble"]:
            yield tr("{name} is in trouble: {trouble}", name=name, trouble=stand["trouble"])
    said = " ".join(document["problems"])
    for blocked in document["unreadable"]:
        if f"outbox/{blocked['package']}:" not in said:
            yield f"outbox/{blocked['package']}: {blocked['what_to_do']}"
    for odd in document["oddities"]:
        if f"outbox/{odd['package']}:" not in said:
            yield tr(
                "outbox/{name}: is a {kind}, not a regular file: drop the ZIP itself",
                name=odd["package"],
                kind=kind_of_file(odd["kind"]),
            )
    for parked in document["parked"]:
        yield tr(
            "rejected/{name}: nobody knows whether it was accepted; {what}",
            name=parked["package"],
            what=parked["what_to_do"],
        )


def _is_held(name: str, state: str, reason: str) -> str:
    return tr("{name} is {state}: {reason}", name=name, state=integration_state(state), reason=reason)


# --- rendering ------------------------------------------------------------------------------------------------------

Styled = tuple[str, str]
"""One line and how it stands out: `head`, `good`, `warn`, `bad`, `dim` or nothing."""


def render(document: Document, when: When) -> Iterator[Styled]:
    """The status as lines for people."""
    yield from _render_daemon(document, when)
    yield from _render_stages(document)
    yield from _render_section(tr("the last 24 hours"), day_in_words(document["metrics"]))
    yield from _render_section(tr("in flight"), map(_flight, document["in_flight"]))
    yield from _render_section(tr("waiting to be tried again"), (_retry(each, when) for each in document["waiting"]))
    yield from _render_integrations(document)
    yield from _render_notes(document)
    yield from _render_section(tr("last problems"), (_trouble(each, when) for each in document["last_problems"]))
    alerts = (f"{when(parse_rfc3339(each['since']))}  {each['text']}" for each in document["alerts"])
    yield from _render_section(tr("alerted and not over"), alerts)
    needs = document["needs_a_person"]
    yield from _render_section(tr("needs a person"), needs, "bad")
    if not needs:
        yield "", ""
        yield tr("nothing needs a person"), "good"


def _render_daemon(document: Document, when: When) -> Iterator[Styled]:
    daemon = document["daemon"]
    known = {"version": daemon["version"], "spool": document["spool"], "config": document["config"]}
    yield tr("tfwatch {version}, spool {spool}, settings {config}", **known), "head"
    if not daemon["running"]:
        yield tr("daemon: not running; packages wait. Start it: systemctl start tfwatch"), "bad"
        return
    since = tr(" since {when}", when=when(parse_rfc3339(daemon["since"]))) if daemon["since"] else ""
    process = tr(" as process {pid}", pid=daemon["pid"]) if daemon["pid"] else ""
    run = tr(", run {exec_id}", exec_id=daemon["exec_id"]) if daemon["exec_id"] else ""
    yield tr("daemon: running{since}{process}{run}", since=since, process=process, run=run), "good"


def _render_stages(document: Document) -> Iterator[Styled]:
    yield "", ""
    for stage, there in document["stages"].items():
        age = there["oldest_seconds"]
        oldest = "   " + tr("oldest {age}", age=seconds(age)) if age is not None else ""
        delivered = ntr("{count} today", "{count} today", document["delivered_today"])
        today = f"   {delivered}" if stage == Stage.DELIVERED else ""
        yield f"  {stage:<10}{number(there['count']):>9}{today}{oldest}", ""


def _render_section(title: str, lines: Iterable[str], style: str = "") -> Iterator[Styled]:
    found = list(lines)
    if found:
        yield "", ""
        yield title, "head"
        yield from ((f"  {line}", style) for line in found)


def _flight(work: Mapping[str, Any]) -> str:
    full = round(_BAR * work["percent"] / 100)
    bar = "█" * full + "░" * (_BAR - full)
    amount = tr("{done} of {all}", done=size(work.get("bytes_done", 0)), all=size(work.get("bytes", 0)))
    took = seconds(work.get("seconds", 0))
    return f"{work_in_words(work['doing']):<11} {bar} {work['percent']:>3} %  {work['package']}  ({amount}, {took})"


def _retry(state: Mapping[str, Any], when: When) -> str:
    code = f"HTTP {state['code']}: " if state["code"] is not None else ""
    moment = when(parse_rfc3339(state["retry_at"]))
    why = f"{code}{state['reason']}"
    return tr("{name}: next try at {when}; {why}", name=state["package"], when=moment, why=why)


def _render_integrations(document: Document) -> Iterator[Styled]:
    yield "", ""
    yield tr("integrations"), "head"
    for name, stand in document["integrations"].items():
        reason = f": {stand['reason']}" if stand["reason"] and stand["state"] != "off" else ""
        trouble = tr("; in trouble: {trouble}", trouble=stand["trouble"]) if stand["trouble"] else ""
        what = stand["what_to_do"] if stand["state"] != "off" else ""
        hint = tr(". What to do: {what}", what=what) if what else ""
        style = "good" if stand["enabled"] and not trouble else "dim" if stand["state"] == "off" else "bad"
        yield f"  {name:<13} {integration_state(stand['state'])} ({stand['source']}){reason}{trouble}{hint}", style


def _render_notes(document: Document) -> Iterator[Styled]:
    watch = document["watch"] or {"mode": ""}
    notes = [
        _to_be_backed_up(document["backup_pending"]),
        _ignored(document["ignored"]),
        tr("the folders are polled: {why}", why=watch["why"] or tr("spool.watch says so"))
        if watch["mode"] == "polling"
        else "",
        *(f"outbox/{name}: {why}" for name, why in document["unfinished"].items()),
    ]
    yield from _render_section(tr("to know"), filter(None, notes))


def _to_be_backed_up(count: int) -> str:
    return (
        ntr("{count} delivered, backup still to be made", "{count} delivered, backups still to be made", count)
        if count
        else ""
    )


def _ignored(count: int) -> str:
    return (
        ntr("{count} other file in outbox/ is ignored", "{count} other files in outbox/ are ignored", count)
        if count
        else ""
    )


def _trouble(problem: Mapping[str, Any], when: When) -> str:
    code = f"HTTP {problem['code']}: " if problem["code"] is not None else ""
    said = f"{when(parse_rfc3339(problem['at']))}  {problem['stage']}/{problem['package']}: {code}{problem['reason']}"
    return said.removesuffix(".") + tr(". What to do: {what}", what=problem["what_to_do"])


def size(count: int) -> str:
    """An amount of bytes for people: `512 B`, `1.4 GiB`."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{number(amount)} {unit}" if unit == "B" else f"{number(amount, 1)} {unit}"
