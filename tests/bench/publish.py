"""`python -m tests.bench.publish FILE…`: write what `--json` gave into docs/PERFORMANCE.md, as its table.

Of a benchmark that stands in several files the last one counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench.figures import shown

_PAGE = Path(__file__).parents[2] / "docs" / "PERFORMANCE.md"
_BEGIN, _END = "<!-- figures -->\n", "<!-- end of figures -->\n"

_Document = Mapping[str, Any]


def main(paths: Iterable[str]) -> None:
    """Put the table between the page's two marks."""
    documents = [json.loads(Path(path).read_text()) for path in paths]
    before, _, rest = _PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _PAGE.write_text(before + _BEGIN + "\n" + "\n".join(_lines(documents)) + "\n\n" + _END + after)


def _lines(documents: Iterable[_Document]) -> Iterator[str]:
    measured = {name: (document["machine"], figures) for document in documents for name, figures in _of(document)}
    yield "| Benchmark | Figure | Median | Runs | Limit | Ratio to | Measured |"
    yield "|---|---|--:|---|---|---|---|"
    for name, (machine, figures) in measured.items():
        for figure in figures:
            yield f"| {' | '.join((name, *_cells(figure), _when(machine, name)))} |"


def _of(document: _Document) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    benchmarks: dict[str, list[dict[str, Any]]] = document["benchmarks"]
    return benchmarks.items()


def _cells(figure: Mapping[str, Any]) -> Iterator[str]:
    yield figure["name"]
    yield f"{shown(figure['value'])} {figure['unit']}".rstrip()
    runs = figure["runs"]
    yield f"{shown(min(runs))} to {shown(max(runs))}" if len(runs) > 1 else "one"
    yield _limit(figure)
    peer = figure.get("peer")
    yield f"{shown(figure['ratio'])} of {shown(peer['value'])}: {peer['name']}" if peer else ""


def _limit(figure: Mapping[str, Any]) -> str:
    if figure["holds"] is None:
        return ""
    return f"{figure['bounds']}: {'holds' if figure['holds'] else '**missed**'}"


def _when(machine: Mapping[str, Any], name: str) -> str:
    quick = ", quick" if machine["quick"] else ""
    return f"{machine['at'][:10]}, {machine['cores']} cores, steal {machine['steal_percent'][name]:.0f} %{quick}"


if __name__ == "__main__":
    main(sys.argv[1:])
