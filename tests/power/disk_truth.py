"""What a disk holds right after a power cut, before anything is repaired, and whether it bears out what was told."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from dataclasses import dataclass
from typing import Final, Self

from tests.support.portal import ordered
from tests.support.scene import Scene

_ONE_RENAME_BEHIND: Final = {
    "ATTEMPTED": {"claimed"},
    "ACCEPTED": {"claimed", "submitted"},
    "COMPLETED": {"submitted", "delivered"},
    "BACKED_UP": {"delivered"},
}
"""Last event of a content → where its file may lie. A claim is on disk before its fact, other moves come after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The good rows of a log, up to a tail that may be torn; and the files: stage, name, SHA-256."""

    rows: list[dict[str, str]]
    cells: list[list[str]]
    lying: list[tuple[str, str, str]]

    @classmethod
    def of(cls, scene: Scene) -> Self:
        """Of a scene's spool as it lies there."""
        path = scene.spool.root / "log.csv"
        text = path.read_bytes().decode(errors="replace") if path.exists() else ""
        read = cls.read(text)
        return cls(rows=read.rows, cells=read.cells, lying=scene.lying())

    @classmethod
    def read(cls, text: str) -> Self:
        """Of a log's text alone. Its chain says which rows are good; none may follow a bad one."""
        header, *lines = text.split("\r\n")
        chain = hashlib.sha256(header.encode()).hexdigest()
        good: list[str] = []
        for line in lines:
            row, _, sealed = line.rpartition(",")
            chain = hashlib.sha256(f"{chain}\n{row}".encode()).hexdigest()
            if chain != sealed:
                break
            good.append(line)
        cells = list(csv.reader(io.StringIO("\r\n".join([header, *good]), newline="")))
        return cls(rows=[dict(zip(cells[0], row, strict=True)) for row in cells[1:]], cells=cells, lying=[])

    def assert_bears_out(self, scene: Scene, *, offered: set[str], promised: set[str]) -> None:
        """What portal, bucket and sheet were told is on this disk, and what was sent lies here whole, once.

        `offered`: all that was ever dropped; `promised`: what its dropper had synced.
        """
        lying = Counter(sha256 for _, _, sha256 in self.lying)
        attempted, completed = self._with("ATTEMPTED"), self._with("COMPLETED")
        orders, shown = ordered(scene.sandbox), scene.shown()
        assert orders.keys() <= attempted, f"sent, but not on disk\n{scene.picture()}"
        assert set(orders.values()) <= {1}, f"sent twice\n{scene.picture()}"
        assert {sha256 for _, sha256 in scene.objects()} <= completed, f"backed up, but not on disk\n{scene.picture()}"
        assert shown == self.cells[: len(shown)], f"shown in the sheet, but not on disk\n{scene.picture()}"
        assert attempted <= offered, f"sent, but nobody dropped it\n{scene.picture()}"
        for sha256 in attempted | promised:
            assert 1 == lying[sha256], f"{sha256} does not lie here once\n{scene.picture()}"
        for stage, name, sha256 in self.lying:
            assert stage not in ("submitted", "delivered") or sha256 in attempted, f"{stage}/{name}\n{scene.picture()}"
            last = next((row["event"] for row in reversed(self.rows) if row["sha256"] == sha256), "")
            assert stage in _ONE_RENAME_BEHIND.get(last, {stage}), f"{stage}/{name}, {last}\n{scene.picture()}"

    def _with(self, event: str) -> set[str]:
        return {row["sha256"] for row in self.rows if row["event"] == event}
