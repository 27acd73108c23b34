"""One large ZIP: the memory it takes, and how fast its bytes are inspected, submitted and backed up."""

from __future__ import annotations

import struct
import subprocess
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

from tests.bench import proc
from tests.bench.bare_loop import make_client
from tests.bench.figures import Figure, Peer, at_most
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
    """A stored ZIP with one member of zeros, made as a hole: reading it costs CPU and memory, hardly any disk."""
    size = _BYTES_QUICK if rig.quick else _BYTES
    with (
        rig.folder("large") as folder,
        rig.bucket("bench-large") as s3,
        rig.portal(verdict="immediate") as portal,
        rig.spool(portal, integrations={"s3": {**s3, "part_size_mib": _PART_MIB}}) as spool,
    ):
        package = make_large_zip(folder / _NAME, size)
        seconds, peak = _deliver(spool, package, size)
        package = spool.root / "delivered" / _NAME
        hashed, sha256 = _sha256sum(package)
        posted = _curl(package, sha256, portal)
        stored = _upload(package, s3)
    rates = {
        "inspected": (seconds["inspected"], "sha256sum", hashed),
        "submitted": (seconds["submitted"], "curl -F", posted),
        "backed up": (seconds["backed up"], "boto3 upload_file, one thread", stored),
    }
    return [
        Figure(name=f"peak memory with {size / _GIB:.0f} GiB", unit="MiB", runs=(peak / _MIB,), limit=at_most(150)),
        *(
            Figure(
                name=what,
                unit="MB/s",
                runs=(size / taken / 1e6,),
                peer=Peer(name=peer, runs=(size / peer_taken / 1e6,)),
            )
            for what, (taken, peer, peer_taken) in rates.items()
        ),
    ]


def _deliver(spool: Spool, package: Path, size: int) -> tuple[Mapping[str, float], int]:
    """Seconds of each step, by the rows of log.csv, and the daemon's peak of memory in bytes."""
    spool.start()
    assert spool.process is not None
    began = time.time()
    package.rename(spool.root / "outbox" / _NAME)
    spool.wait_for_event(Event.BACKED_UP, seconds=120 + size / (20 * _MIB))
    peak = proc.look(spool.process.pid).peak_rss
    assert spool.stop() == 0
    at = {row["event"]: parse_rfc3339(row["at"]).timestamp() for row in spool.rows()}
    seconds = {
        "inspected": at[Event.ATTEMPTED] - began,
        "submitted": at[Event.ACCEPTED] - at[Event.ATTEMPTED],
        "backed up": at[Event.BACKED_UP] - at[Event.COMPLETED],
    }
    return seconds, peak


# --- the peers --------------------------------------------------------------------------------------------------------


def _sha256sum(package: Path) -> tuple[float, str]:
    seconds, said = _run("sha256sum", str(package))
    return seconds, said.split()[0]


def _curl(package: Path, sha256: str, portal: Portal) -> float:
    fields = {"job_id": "large", "version": "1", "sha256": sha256, "client_reference": "peer", "meta[trace_id]": "peer"}
    seconds, _ = _run(
        "curl", "-sS", "--fail", "-H", f"Authorization: Bearer {API_KEY}", "-H", 'Idempotency-Key: "peer"',
        *(word for name, value in fields.items() for word in ("-F", f"{name}={value}")),
        "-F", f"package=@{package};type=application/zip", f"{portal.url}/deliveries",
    )  # fmt: skip
    return seconds


def _upload(package: Path, s3: Mapping[str, Any]) -> float:
    client = make_client(s3)
    part = _PART_MIB * _MIB
    config = TransferConfig(multipart_chunksize=part, use_threads=False, preferred_transfer_client="classic")
    began = time.monotonic()
    client.upload_file(str(package), s3["bucket"], "peer", Config=config)
    return time.monotonic() - began


def _run(*command: str) -> tuple[float, str]:
    """Seconds a command takes that must succeed, and what it said."""
    began = time.monotonic()
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return time.monotonic() - began, said


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
