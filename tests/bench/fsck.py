"""`tfwatch fsck` on the spool of a daemon that has delivered for years: the local part, and an index made anew."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.bench.figures import Figure, Peer, at_most
from tests.bench.past import Past, write_past
from tests.bench.rig import Rig

_PACKAGES = 100_000
_PACKAGES_QUICK = 10_000
_LIMIT_SECONDS = 30.0


def measure(rig: Rig) -> list[Figure]:
    """Against a command that reads log.csv once, row by row, and compares nothing."""
    count = _PACKAGES_QUICK if rig.quick else _PACKAGES
    checks, repairs, reads = [], [], []
    with rig.folder("fsck") as home:
        (home / "spool").mkdir()
        write_past(home / "spool", Past(delivered=count))
        settings = {
            "spool": {"root": str(home / "spool")},
            "integrations": {"gotranscript": {"enabled": False}},
            "web": {"enabled": False},
        }
        (home / "config.yaml").write_text(yaml.safe_dump(settings))
        for _ in range(rig.repeats):
            for path in (home / "spool/.tfwatch").glob("index.sqlite*"):
                path.unlink()
            repairs.append(_seconds("fsck", "--repair", home=home))
            checks.append(_seconds("fsck", home=home))
            reads.append(_seconds("log", home=home))
    peer = Peer(name="tfwatch log, which reads and prints it once", runs=tuple(reads))
    limit = None if rig.quick else at_most(_LIMIT_SECONDS)
    return [
        Figure(name=f"fsck of {count:,} packages", unit="s", runs=tuple(checks), limit=limit, peer=peer),
        Figure(name=f"fsck --repair of {count:,} packages without an index", unit="s", runs=tuple(repairs), peer=peer),
    ]


def _seconds(*words: str, home: Path) -> float:
    began = time.monotonic()
    command = [sys.executable, "-m", "tfwatch", *words, "-c", str(home / "config.yaml")]
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began
