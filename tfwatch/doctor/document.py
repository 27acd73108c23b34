"""What doctor found, as one document: plain values for scripts, one line a check for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from tfwatch.doctor.finding import Finding
from tfwatch.spool.names import printable

_STYLES: Final = {"ok": "good", "warning": "warn", "failure": "bad", "skipped": "dim"}

Document = dict[str, Any]


def assemble(spool: str, config: str, user: str, findings: Sequence[Finding]) -> Document:
    """The whole result; its keys are stable. `fine`: nothing failed."""
    counts = {result: sum(each.result == result for each in findings) for result in _STYLES}
    return {
        "spool": printable(spool),
        "config": printable(config),
        "user": user,
        "checks": [
            {
                "check": each.check,
                "result": each.result,
                "seen": printable(each.seen),
                "what_to_do": printable(each.what_to_do),
            }
            for each in findings
        ],
        "failures": counts["failure"],
        "warnings": counts["warning"],
        "skipped": counts["skipped"],
        "fine": not counts["failure"],
    }


def render(document: Document) -> Iterator[tuple[str, str]]:
    """The document as lines, each with its style (see `report.Styled`)."""
    yield f"spool {document['spool']}, settings {document['config']}", "head"
    width = max((len(each["check"]) for each in document["checks"]), default=0)
    for each in document["checks"]:
        do = f". What to do: {each['what_to_do']}" if each["what_to_do"] else ""
        yield (
            f"{each['result']:<8} {each['check']:<{width}}  {each['seen'].removesuffix('.')}{do}",
            _STYLES[each["result"]],
        )
    yield "", ""
    yield _summary(document)


def _summary(document: Document) -> tuple[str, str]:
    warnings = f", {document['warnings']} warning(s)" if document["warnings"] else ""
    if document["failures"]:
        return f"{document['failures']} failure(s){warnings}", "bad"
    return f"nothing failed{warnings}", "warn" if warnings else "good"
