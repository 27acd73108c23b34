"""`python -m tests.bench.soak [--minutes 20] [--json FILE]`, or `make soak`: whether anything grows with time.

A spool as it is after a day of one package a second, from the start on; then packages at a higher, even rate.
Exit 0: what is watched stays flat; 1: it doesn't.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.bench import proc
from tests.bench.figures import Figure, at_most
from tests.bench.past import Past, write_past
from tests.bench.rig import HOMES, Rig
from tests.support.daemon import Spool, zip_bytes

_DAY = 86_400
_REJECTED = 500
_REFUSED_EACH = 50
"""One package in so many is refused by the portal."""

_SAMPLE_SECONDS = 5.0
_VERDICT_SECONDS = 2.0
_PATIENCE_SECONDS = 1200.0
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look: seconds since the first, packages dropped since, and what the daemon uses (bytes, seconds of CPU)."""

    seconds: float
    packages: int
    rss: int
    fds: int
    threads: int
    cpu: float
    index_bytes: int


def main(
    minutes: Annotated[float, typer.Option(help="How long packages are dropped.")] = 20.0,
    rate: Annotated[float, typer.Option(help="Packages a second.")] = 10.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write figures and samples there.")] = None,
    home: Annotated[Path, typer.Option(help="Where to work: a folder on the disk to be measured.")] = HOMES,
) -> None:
    """Drop packages for so long, and show what grew meanwhile."""
    with tempfile.TemporaryDirectory(prefix="tfwatch-soak-", dir=home) as folder:
        samples = soak(Rig(home=Path(folder), quick=False), minutes * 60, rate)
    figures = judge(samples)
    out = Console(width=140)
    for figure in figures:
        verdict = {True: "holds", False: "MISSED", None: ""}[figure.holds]
        out.print(f"{figure.name}: {figure.value:.3g} {figure.unit}  {figure.bounds} {verdict}")
    if json_file is not None:
        document = {"figures": [figure.as_json() for figure in figures], "samples": [*map(asdict, samples)]}
        json_file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    sys.exit(any(figure.holds is False for figure in figures))


def soak(rig: Rig, seconds: float, rate: float) -> list[Sample]:
    """Samples of one run."""
    with rig.portal(verdict="delayed", verdict_delay=_VERDICT_SECONDS, reject_pattern="^bad") as portal:  # noqa: SIM117
        with rig.spool(portal) as spool:
            spool.configure(integrations={"gotranscript": {"poll_seconds": _VERDICT_SECONDS}})
            write_past(spool.root, Past(delivered=_DAY, rejected=_REJECTED, base_url=portal.url))
            spool.start(seconds=_PATIENCE_SECONDS)
            samples = _run(spool, seconds, rate)
            assert spool.stop() == 0, spool.output.read_text()[-4000:]
    return samples


def _run(spool: Spool, seconds: float, rate: float) -> list[Sample]:
    dropper = _Dropper(spool, rate)
    dropper.start()
    samples, began = [], time.monotonic()
    try:
        while time.monotonic() < began + seconds:
            time.sleep(_SAMPLE_SECONDS)
            samples.append(_sample(spool, time.monotonic() - began, dropper.dropped))
    finally:
        dropper.stop()
    return samples


class _Dropper(threading.Thread):
    """Drops packages at a rate, by the clock: what was late is made up for."""

    def __init__(self, spool: Spool, rate: float) -> None:
        super().__init__(daemon=True)
        self.dropped = 0
        self._spool = spool
        self._rate = rate
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def run(self) -> None:
        began = time.monotonic()
        while not self._stopped.wait(max(0.0, began + self.dropped / self._rate - time.monotonic())):
            kind = "bad" if self.dropped % _REFUSED_EACH == 0 else "job"
            ready = self._spool.home / f"{kind}{self.dropped}_v1.zip"
            ready.write_bytes(zip_bytes(seed=10**6 + self.dropped))
            os.rename(ready, self._spool.root / "outbox" / ready.name)
            self.dropped += 1


def _sample(spool: Spool, seconds: float, packages: int) -> Sample:
    assert spool.process is not None
    pid = spool.process.pid
    used = proc.look(pid)
    return Sample(
        seconds=seconds,
        packages=packages,
        rss=used.rss,
        fds=len(os.listdir(f"/proc/{pid}/fd")),
        threads=used.threads,
        cpu=used.cpu,
        index_bytes=(spool.root / ".tfwatch" / "index.sqlite").stat().st_size,
    )


def judge(samples: Sequence[Sample]) -> list[Figure]:
    """What grew over the second half of a run, and by how much it would in a day of one package a second."""
    half, quarter = samples[len(samples) // 2 :], len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    return [
        _growth("memory", "MiB in a day", half, lambda sample: sample.rss / _MIB, limit=16),
        _growth("descriptors", "in a day", half, lambda sample: sample.fds, limit=1),
        _growth("threads", "in a day", half, lambda sample: sample.threads, limit=1),
        _growth("index", "MiB in a day", half, lambda sample: sample.index_bytes / _MIB),
        Figure(name="memory at the end", unit="MiB", runs=(samples[-1].rss / _MIB,)),
        Figure(
            name="CPU of a package, last quarter against the second", unit="times",
            runs=(_cpu_each(last) / _cpu_each(second),), limit=at_most(1.1),
        ),
        Figure(name="CPU of a package, last quarter", unit="ms", runs=(1000 * _cpu_each(last),)),
    ]  # fmt: skip


def _growth(
    name: str, unit: str, samples: Sequence[Sample], value: Callable[[Sample], float], *, limit: float | None = None
) -> Figure:
    """By the straight line that fits best: of a thing that only swings it says next to nothing."""
    slope, _ = statistics.linear_regression([sample.packages for sample in samples], [*map(value, samples)])
    bound = at_most(limit) if limit is not None else None
    return Figure(name=f"growth of {name}", unit=unit, runs=(slope * _DAY,), limit=bound)


def _cpu_each(samples: Sequence[Sample]) -> float:
    first, last = samples[0], samples[-1]
    return (last.cpu - first.cpu) / (last.packages - first.packages)


if __name__ == "__main__":
    typer.run(main)
