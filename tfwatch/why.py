"""`tfwatch why`: everything known about what a word names, and how it is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

from tfwatch.language import number, tr
from tfwatch.look import View
from tfwatch.model import Integration, Stage, parse_rfc3339, rfc3339
from tfwatch.report import scene_of
from tfwatch.spool.listing import NotAPackage, kind_of
from tfwatch.spool.names import counts, printable
from tfwatch.story import Story, tell
from tfwatch.story_lines import When
from tfwatch.unsent import describe_unreadable, unfinished_why
from tfwatch.wording import integration_state, kind_of_file

_MOST_STORIES: Final = 20

Document = dict[str, Any]


def assemble(view: View, word: str, when: When) -> Document:
    """All packages a word names, the latest first, and a file in the outbox the log has not seen yet.

    Names are printable, moments RFC 3339. With `packages` empty and `unseen` null, nothing of that name is known;
    `near` then holds names like it.
    """
    states = view.find(word)[:_MOST_STORIES]
    rows = view.story_rows({state.sha256 for state in states}) if states else []
    stories = [tell(state, rows, scene_of(view, state), when) for state in states]
    name = os.path.basename(word)
    known = any(state.name == name and state.stage is Stage.OUTBOX for state in states)
    unseen = None if known else _unseen(view, name)
    return {
        "asked": printable(word),
        "packages": [_package(story) for story in stories],
        "unseen": unseen,
        "near": [] if states or unseen else [printable(near) for near in view.near(word)],
        "problems": [view.trouble] if view.trouble else [],
    }


def is_known(document: Document) -> bool:
    """Whether the word names anything."""
    return bool(document["packages"] or document["unseen"])


def _package(story: Story) -> Document:
    state = story.state
    return {
        "package": printable(state.name),
        "sha256": state.sha256,
        "bytes": state.bytes,
        "trace_id": printable(state.trace_id),
        "order_id": printable(state.order_id) or None,
        "stage": state.stage.value if state.stage else None,
        "status": state.status.value if state.status else None,
        "retry_at": rfc3339(state.retry_at) if state.retry_at else None,
        "backup_key": printable(state.backup_key) if state.backup_key and state.backed_up else None,
        "where": printable(story.where),
        "what_to_do": printable(story.what_to_do),
        "story": [
            {
                "at": rfc3339(line.at),
                "seq": line.seq,
                "event": line.event.value,
                "text": printable(line.text),
                "sheet_row": line.sheet_row or None,
            }
            for line in story.lines
        ],
    }


# --- a file the log has never seen -----------------------------------------------------------------------------------


def _unseen(view: View, name: str) -> Document | None:
    """A file of that name in outbox/ (or just claimed): why it has not been sent yet."""
    if name in ("", ".", "..") or "\0" in name:
        return None
    if os.path.lexists(view.folders.path(Stage.OUTBOX, name)):
        why, what = _why_waiting(view, name)
        where = tr("in {stage}/", stage=Stage.OUTBOX)
        return {"package": printable(name), "where": where, "why": printable(why), "what_to_do": printable(what)}
    if view.folders.look(Stage.CLAIMED, name) is not None and not view.index.named(name):
        why = tr("it was just taken out of outbox/ and is being read")
        what = tr("nothing: ask again in a moment") if view.running else _start()
        where = tr("in {stage}/", stage=Stage.CLAIMED)
        return {"package": printable(name), "where": where, "why": why, "what_to_do": what}
    return None


def _start() -> str:
    return tr("start the daemon: systemctl start tfwatch")


def _why_waiting(view: View, name: str) -> tuple[str, str]:
    if not counts(name):
        return (
            tr("it is ignored: only files named *.zip count, and none that is hidden or still has a temporary ending"),
            tr("when it is whole, rename it so that it ends in .zip and does not begin with a dot"),
        )
    spool = view.settings.config.spool
    try:
        unfinished = unfinished_why(view.folders, name, settle_seconds=spool.settle_seconds)
    except PermissionError:
        return describe_unreadable(view.folders, name), tr("run that command")
    except NotAPackage:
        kind = kind_of(os.lstat(view.folders.path(Stage.OUTBOX, name)).st_mode)
        why = tr("it is a {kind}, not a regular file, so it is never opened", kind=kind_of_file(kind))
        return why, tr("drop the ZIP itself")
    if unfinished:
        what = tr(
            "wait for whoever writes it, or copy it again; unfinished and unchanged for {seconds} s it is rejected as "
            "truncated",
            seconds=f"{spool.incomplete_timeout_seconds:g}",
        )
        return tr("it is not finished: it {why}", why=unfinished), what
    if not view.running:
        return tr("it is whole, but no daemon is running"), _start()
    stand = view.stand(Integration.GOTRANSCRIPT)
    if not stand.enabled:
        held = {"name": Integration.GOTRANSCRIPT, "state": integration_state(stand.state), "reason": stand.reason}
        return tr("it is whole, but {name} is {state}: {reason}", **held), stand.what_to_do
    return tr("it is whole and waits for its turn"), tr("nothing: it is claimed in a moment")


# --- telling --------------------------------------------------------------------------------------------------------


def render(document: Document, when: When) -> Iterator[tuple[str, str]]:
    """The stories as lines for people, each with its style (see `report.Styled`)."""
    for problem in document["problems"]:
        yield problem, "bad"
    unseen = document["unseen"]
    if unseen:
        where = {"name": unseen["package"], "where": unseen["where"]}
        yield tr("{name}, {where}: the log has not seen this file yet", **where), "head"
        yield tr("  Why: {why}", why=unseen["why"]), ""
        yield tr("  What to do: {what}", what=unseen["what_to_do"]), "good"
    for n, package in enumerate(document["packages"]):
        if n or unseen:
            yield "", ""
        yield from _render_package(package, when)


def _render_package(package: Document, when: When) -> Iterator[tuple[str, str]]:
    yield package["package"], "head"
    order = tr(", order {order}", order=package["order_id"]) if package["order_id"] else ""
    known = {"bytes": number(package["bytes"]), "sha256": package["sha256"], "trace": package["trace_id"]}
    yield tr("  {bytes} bytes, SHA-256 {sha256}, trace {trace}{order}", order=order, **known), "dim"
    for line in package["story"]:
        sheet = f"  [{line['sheet_row']}]" if line["sheet_row"] else ""
        yield f"  {when(parse_rfc3339(line['at']))}  {line['text']}{sheet}", ""
    if package["backup_key"]:
        yield tr("  Backup: {key}", key=package["backup_key"]), ""
    yield tr("  Now: {where}", where=package["where"]), ""
    yield tr("  What to do: {what}", what=package["what_to_do"]), "good"
