"""What people are alerted to of what runs beside the loop: lanes, webhooks, retention, the web server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tfwatch.delivery.journal import fields_of
from tfwatch.delivery.progress import Board
from tfwatch.language import tr
from tfwatch.ledger.index import Index
from tfwatch.observe.alerts import Condition
from tfwatch.observe.conditions import first_of
from tfwatch.observe.standstill import standing_still


def of_lanes(board: Board, index: Index, *, is_watched: bool) -> Iterator[Condition]:
    """Work of which not a byte moves. `is_watched`: systemd starts the daemon anew for it."""
    if still := standing_still(board, is_watched=is_watched):
        work, _ = still[0]
        yield Condition(
            key="standstill",
            text=first_of([words for _, words in still]),
            outside=tr("a lane stands still: tfwatch status says where, and what to do"),
            over=tr("no lane stands still any more"),
            marks=frozenset(f"{work.name} {work.doing}" for work, _ in still),
            fields=fields_of(index, work.name),
        )


def of_webhooks(off: str, old: Mapping[str, str], contradicted: Mapping[str, str]) -> Iterator[Condition]:
    """`off`: why no webhook is taken. `old`: integration → that its secret is too old. `contradicted`: order → that its
    verdict contradicts what was told before."""
    if off:
        yield Condition(key="webhooks-off", text=off, over=tr("the file with the secrets can be used; webhooks are on"))
    if old:
        yield Condition(
            key="secret-age",
            text=first_of([*old.values()]),
            over=tr("no webhook secret is too old any more"),
            marks=frozenset(old),
        )
    if contradicted:
        yield Condition(
            key="contradicted",
            text=first_of([*contradicted.values()][::-1]),
            outside=tr(
                "a webhook contradicts an earlier verdict; nothing was moved: tfwatch status and log.csv say more"
            ),
            over=tr("since the start no webhook has contradicted an earlier verdict"),
            marks=frozenset(contradicted),
        )


def of_retention(outlook: str, held: str, problems: Sequence[str]) -> Iterator[Condition]:
    """`outlook`: that the disk fills before retention can help. `held`, `problems`: what keeps it from its work."""
    if outlook:
        yield Condition(
            key="disk-fills",
            text=outlook,
            over=tr("the disk no longer fills before retention can help"),
            is_found_late=True,
        )
    if kept := [*filter(None, (held,)), *problems]:
        yield Condition(
            key="retention",
            text=first_of(kept),
            outside=tr("retention leaves packages where they are: tfwatch status says which, and why"),
            over=tr("retention has nothing in its way any more"),
            marks=frozenset(kept),
            is_found_late=True,
        )


def of_web_server(problems: Sequence[str]) -> Iterator[Condition]:
    """Why it doesn't listen."""
    if problems:
        yield Condition(
            key="web-server", text=first_of(problems), over=tr("the web server: it listens again"), is_found_late=True
        )
