"""`python -m tests.bench [NAME…] [--quick] [--json FILE]`: run the benchmarks and show their figures.

Exit 0: every limit holds; 1: one doesn't.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tests.bench import (
    callbacks,
    first_byte,
    fsck,
    history,
    idle,
    large,
    sheet,
    slow_portal,
    start,
    throughput,
    waiting,
)
from tests.bench.figures import Figure, shown
from tests.bench.proc import Stolen
from tests.bench.rig import HOMES, Rig

BENCHMARKS: Mapping[str, Callable[[Rig], list[Figure]]] = {
    "first-byte": first_byte.measure,
    "throughput": throughput.measure,
    "slow-portal": slow_portal.measure,
    "large": large.measure,
    "idle": idle.measure,
    "start": start.measure,
    "history": history.measure,
    "waiting": waiting.measure,
    "fsck": fsck.measure,
    "callbacks": callbacks.measure,
    "sheet": sheet.measure,
}
_MARKS = {True: "[green]holds[/]", False: "[red]MISSED[/]"}
_LEAST_WIDTH = 140

_Results = dict[str, list[Figure]]


def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Some of: {', '.join(BENCHMARKS)}. All if none.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short runs, once each.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures there, too.")] = None,
    home: Annotated[Path, typer.Option(help="Where to work: a folder on the disk to be measured.")] = HOMES,
) -> None:
    """Measure, and show what was measured beside its limits and peers."""
    wanted = names or list(BENCHMARKS)
    if unknown := set(wanted) - BENCHMARKS.keys():
        raise typer.BadParameter(f"no such benchmark: {', '.join(sorted(unknown))}")
    results: _Results = {}
    machine = _machine(quick=quick)
    steal: dict[str, float] = {}
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="tfwatch-bench-", dir=home) as folder:
        for name in wanted:
            with console.status(f"{name} …"):
                stolen = Stolen()
                results[name] = BENCHMARKS[name](Rig(home=Path(folder), quick=quick))
                steal[name] = stolen.percent()
    machine |= {"load_after": os.getloadavg()[0], "steal_percent": steal}
    out = Console()
    out.width = max(out.width, _LEAST_WIDTH)
    out.print(_table(results, machine))
    if json_file is not None:
        json_file.write_text(json.dumps(_document(results, machine), indent=1, ensure_ascii=False) + "\n")
    sys.exit(any(figure.holds is False for figures in results.values() for figure in figures))


def _machine(*, quick: bool) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def _table(results: _Results, machine: Mapping[str, Any]) -> Table:
    table = Table(
        title=f"tfwatch on {machine['cores']} cores, load {machine['load_before']:.1f} before and "
        f"{machine['load_after']:.1f} after{', quick' if machine['quick'] else ''}",
        title_justify="left",
    )
    for heading in ("", "figure"):
        table.add_column(heading)
    for heading in ("median", "runs"):
        table.add_column(heading, justify="right")
    for heading in ("limit", "against a peer in the same run"):
        table.add_column(heading)
    for name, figures in results.items():
        for number, figure in enumerate(figures):
            about = f"{name}\n[dim]steal {machine['steal_percent'][name]:.0f} %[/]" if number == 0 else ""
            table.add_row(about, *_cells(figure), end_section=number == len(figures) - 1)
    return table


def _cells(figure: Figure) -> Sequence[str]:
    spread = f"{shown(min(figure.runs))} to {shown(max(figure.runs))}" if len(figure.runs) > 1 else ""
    limit = "" if figure.holds is None else f"{figure.bounds} {_MARKS[figure.holds]}"
    peer = f"{shown(figure.ratio)} of {shown(figure.peer.value)}, {figure.peer.name}" if figure.peer else ""
    return figure.name, f"{shown(figure.value)} {figure.unit}", spread, limit, peer


def _document(results: _Results, machine: Mapping[str, Any]) -> dict[str, Any]:
    figures = {name: [figure.as_json() for figure in figures] for name, figures in results.items()}
    return {"machine": dict(machine), "benchmarks": figures}


if __name__ == "__main__":
    typer.run(main)
