"""One large ZIP: the memory it takes, and how fast its bytes are inspected, submitted and backed up."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

from tests.bench import proc
from tests.bench.bare_loop import make_client
from tests.bench.figures import Figure, Peer, at_most
from tests.bench.proc import Spent, Stopwatch
from tests.bench.rig import API_KEY, Portal, Rig
from tests.support.daemon import Spool
from tfwatch.model import Event, parse_rfc3339

_GIB = 2**30
_MIB = 2**20
_BYTES = 5 * _GIB
_BYTES_QUICK = _GIB
_NAME = "large_v1.zip"
_PART_MIB = 16


def measure(rig: Rig) -> list[Figure]:
    """A stored ZIP with one member of zeros, made as a hole and read once, so that no figure is that of the disk.

    Measured once: at this size a run is long enough to be its own median.
    """
    assert shutil.which("curl"), "curl is missing: apt install curl"
    size = _BYTES_QUICK if rig.quick or not _has_room(rig.home) else _BYTES
    with (
        rig.folder("large") as folder,
        rig.bucket("bench-large") as s3,
        rig.portal(verdict="immediate") as portal,
        rig.spool(portal, integrations={"s3": {**s3, "part_size_mib": _PART_MIB}}) as spool,
    ):
        package = make_large_zip(folder / _NAME, size)
        _sha256sum(package)
        ours, peak = _deliver(spool, package, size)
        package = spool.root / "delivered" / _NAME
        hashed, sha256 = _sha256sum(package)
        peers = {
            "sha256sum (no CRC-32)": hashed,
            "curl -F": _curl(package, sha256, portal),
            "boto3 upload_file, one thread": _upload(package, s3),
        }
    figures = [Figure(name=f"peak memory, {size / _GIB:.0f} GiB", unit="MiB", runs=(peak / _MIB,), limit=at_most(150))]
    for (what, spent), (peer, peer_spent) in zip(ours.items(), peers.items(), strict=True):
        figures += [
            _figure(what, "MB/s", size / spent.seconds / 1e6, peer, size / peer_spent.seconds / 1e6),
            _figure(f"{what}, CPU", "s/GiB", spent.cpu * _GIB / size, peer, peer_spent.cpu * _GIB / size),
        ]
    return figures


def _has_room(home: Path) -> bool:
    """Room for the package (a hole that a copy would fill) and for both backups, wherever SeaweedFS puts them."""
    return all(shutil.disk_usage(folder).free > 4 * _BYTES for folder in (home, tempfile.gettempdir()))


def _figure(name: str, unit: str, value: float, peer: str, peer_value: float) -> Figure:
    return Figure(name=name, unit=unit, runs=(value,), peer=Peer(name=peer, runs=(peer_value,)))


def _deliver(spool: Spool, package: Path, size: int) -> tuple[dict[str, Spent], int]:
    """What each step took, and the daemon's peak of memory in bytes."""
    spool.start()
    assert spool.process is not None
    steps: dict[str, Spent] = {}
    pid, began = spool.process.pid, time.time()
    before = proc.look(pid)
    package.rename(spool.root / "outbox" / _NAME)
    for what, event in (
        ("inspected", Event.ATTEMPTED),
        ("submitted", Event.ACCEPTED),
        ("backed up", Event.BACKED_UP),
    ):
        spool.wait_for_event(event, seconds=120 + size / (10 * _MIB))
        after, ended = proc.look(pid), parse_rfc3339(spool.row(event)["at"]).timestamp()
        steps[what] = Spent(seconds=ended - began, cpu=after.cpu - before.cpu)
        before, began = after, ended
    assert spool.stop() == 0, spool.picture()
    return steps, after.peak_rss


# --- the peers --------------------------------------------------------------------------------------------------------


def _sha256sum(package: Path) -> tuple[Spent, str]:
    stopwatch = Stopwatch()
    said = subprocess.run(["sha256sum", str(package)], stdout=subprocess.PIPE, text=True, check=True).stdout
    return stopwatch.read(), said.split()[0]


def _curl(package: Path, sha256: str, portal: Portal) -> Spent:
    fields = {"job_id": "large", "version": "1", "sha256": sha256, "client_reference": "peer", "meta[trace_id]": "peer"}
    command = [
        "curl", "-sS", "--fail", "-H", f"Authorization: Bearer {API_KEY}", "-H", 'Idempotency-Key: "peer"',
        *(word for name, value in fields.items() for word in ("-F", f"{name}={value}")),
        "-F", f"package=@{package};type=application/zip", f"{portal.url}/deliveries",
    ]  # fmt: skip
    stopwatch = Stopwatch()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return stopwatch.read()


def _upload(package: Path, s3: Mapping[str, Any]) -> Spent:
    client, part = make_client(s3), _PART_MIB * _MIB
    config = TransferConfig(multipart_chunksize=part, use_threads=False, preferred_transfer_client="classic")
    stopwatch = Stopwatch()
    client.upload_file(str(package), s3["bucket"], "peer", Config=config)
    return stopwatch.read()


# --- the ZIP ----------------------------------------------------------------------------------------------------------


def make_large_zip(path: Path, size: int) -> Path:
    """A sound ZIP64 archive (APPNOTE.TXT 6.3.10, 4.3 and 4.5.3) with one stored member of `size` zero bytes."""
    name, crc = b"large/audio.wav", _crc_of_zeros(size)
    sizes = struct.pack("<HHQQ", 1, 16, size, size)
    shared = struct.pack("<HHHHHLLLHH", 45, 0, 0, 0, 0x21, crc, 2**32 - 1, 2**32 - 1, len(name), len(sizes))
    local = b"PK\3\4" + shared + name + sizes
    central = b"PK\1\2" + struct.pack("<H", 45) + shared + struct.pack("<HHHLL", 0, 0, 0, 0, 0) + name + sizes
    at = len(local) + size
    end64 = b"PK\6\6" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 1, 1, len(central), at)
    locator = b"PK\6\7" + struct.pack("<LQL", 0, at + len(central), 1)
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, len(central), 2**32 - 1, 0)
    with path.open("wb") as file:
        file.write(local)
        file.seek(at)
        file.write(central + end64 + locator + end)
    return path


def _crc_of_zeros(size: int) -> int:
    """Seconds for 5 GiB, where combining CRCs would take a page of arithmetic."""
    crc, zeros = 0, bytes(_MIB)
    for _ in range(size // _MIB):
        crc = zlib.crc32(zeros, crc)
    return zlib.crc32(bytes(size % _MIB), crc)
