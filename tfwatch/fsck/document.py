"""What fsck found, as one document: plain values for scripts, lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from tfwatch.fsck.repair import Outcome
from tfwatch.fsck.survey import Findings
from tfwatch.look import View
from tfwatch.spool.names import printable

_MOST_LISTED: Final = 20
_TITLES: Final = {
    "log": "log.csv and its chain",
    "index": "the index",
    "folder": "the folders",
    "reason": "reason files",
    "backup": "backups",
    "sheet": "the sheet",
}

Document = dict[str, Any]


def assemble(view: View, findings: Findings, outcomes: Sequence[Outcome]) -> Document:
    """The whole result; its keys are stable. `fine`: nothing differs any more."""
    return {
        "spool": printable(view.folders.root),
        "daemon_running": view.running,
        "rows": findings.rows,
        "packages": findings.packages,
        "compared": list(findings.compared),
        "notes": list(findings.notes),
        "differences": [
            {
                "kind": found.kind,
                "what": printable(found.what),
                "where": found.where,
                "mend": found.mend,
                "safe": found.safe,
                "repaired": repaired,
                "said": said,
            }
            for found, repaired, said in outcomes
        ],
        "fine": all(repaired for _, repaired, _ in outcomes),
    }


def render(document: Document) -> Iterator[tuple[str, str]]:
    """The document as lines, each with its style (see `report.Styled`)."""
    compared = ", ".join(document["compared"]) or "nothing"
    yield f"{document['spool']}: {document['packages']:,} packages, {document['rows']:,} rows of log", "head"
    yield f"compared: {compared}", "dim"
    for kind, title in _TITLES.items():
        found = [each for each in document["differences"] if each["kind"] == kind]
        if not found:
            continue
        yield "", ""
        yield title, "head"
        for each in found[:_MOST_LISTED]:
            yield from _difference(each)
        if len(found) > _MOST_LISTED:
            yield f"  … and {len(found) - _MOST_LISTED:,} more (tfwatch fsck --json lists all)", "bad"
    if document["notes"]:
        yield "", ""
        yield from ((f"note: {note}", "") for note in document["notes"])
    yield "", ""
    yield from _summary(document["differences"])


def _difference(each: Document) -> Iterator[tuple[str, str]]:
    if each["repaired"]:
        yield f"  {each['where']}: {each['what']}; {each['said']}", "good"
        return
    yield f"  {each['where']}: {each['what']}", "bad"
    yield f"    what to do: {each['said'] or each['mend']}", ""


def _summary(differences: Sequence[Document]) -> Iterator[tuple[str, str]]:
    left = [each for each in differences if not each["repaired"]]
    mended = len(differences) - len(left)
    if mended:
        yield f"{mended} difference(s) repaired", "good"
    if not left:
        yield "nothing differs" if not mended else "nothing differs any more", "good"
        return
    safe = sum(each["safe"] and not each["said"] for each in left)
    hint = f"; {safe} of them can be repaired safely: tfwatch fsck --repair" if safe else ""
    yield f"{len(left)} difference(s){hint}", "bad"
