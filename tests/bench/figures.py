"""A measured figure: its runs, its median, the limit it must hold and the peer it is compared with."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a figure must be: at most or at least a value, in the figure's own unit."""

    bound: Literal["≤", "≥"]
    value: float

    def holds(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return value <= self.value if self.bound == "≤" else value >= self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The same work done by something else in the same run: what it is, and its values, in the figure's unit."""

    name: str
    runs: tuple[float, ...]

    @property
    def value(self) -> float:
        """The median of its runs."""
        return statistics.median(self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number of one benchmark. `runs` holds a value for each run; the figure is their median.

    `limit` is in the figure's own unit, `ratio_limit` bounds its ratio to the peer.
    """

    name: str
    unit: str
    runs: tuple[float, ...]
    limit: Limit | None = None
    peer: Peer | None = None
    ratio_limit: Limit | None = None

    @property
    def value(self) -> float:
        """The median of its runs."""
        return statistics.median(self.runs)

    @property
    def holds(self) -> bool | None:
        """Whether it is within its limits; None without one."""
        bounded = ((self.limit, self.value), (self.ratio_limit, self.ratio))
        held = [limit.holds(value) for limit, value in bounded if limit is not None and value is not None]
        return all(held) if held else None

    @property
    def bounds(self) -> str:
        """Its limits in words; empty without one."""
        kinds = ((self.limit, ""), (self.ratio_limit, " of the peer's"))
        return ", ".join(f"{limit.bound} {shown(limit.value)}{of}" for limit, of in kinds if limit is not None)

    @property
    def ratio(self) -> float | None:
        """This value over the peer's; None without a peer."""
        return None if self.peer is None else self.value / self.peer.value

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        document: dict[str, Any] = {"name": self.name, "unit": self.unit, "value": self.value, "runs": list(self.runs)}
        document |= {"bounds": self.bounds, "holds": self.holds}
        if self.peer is not None:
            peer = {"name": self.peer.name, "value": self.peer.value, "runs": list(self.peer.runs)}
            document |= {"peer": peer, "ratio": self.ratio}
        return document


def at_most(value: float) -> Limit:
    """A figure that must not be larger."""
    return Limit(bound="≤", value=value)


def at_least(value: float) -> Limit:
    """A figure that must not be smaller."""
    return Limit(bound="≥", value=value)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that is not exceeded by `share` of them (nearest rank)."""
    ordered: Sequence[float] = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def shown(value: float) -> str:
    """Three digits that matter, and never a power of ten."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
