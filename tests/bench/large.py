"""One large ZIP: the memory it takes, and how fast its bytes are inspected, submitted and backed up."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

from tests.bench import proc
from tests.bench.bare_loop import make_client
from tests.bench.figures import Figure, Peer, at_most
from tests.bench.peers import run as peers
from tests.bench.proc import Spent, Stopwatch
from tests.bench.rig import API_KEY, Portal, Rig
from tests.support.daemon import Spool
from tfwatch.model import Event, parse_rfc3339

_GIB = 2**30
_MIB = 2**20
_BYTES = 5 * _GIB
_BYTES_QUICK = _GIB
_NAME = "large_v1.zip"
_WARM_UP = "small_v1.zip"
_PART_MIB = 16


def measure(rig: Rig) -> list[Figure]:
    """A stored ZIP with one member of zeros, made as a hole and read once, so that no figure is that of the disk.

    tfwatch and the peers that its time is held against take turns; the other peers are clocked once, in the first run.
    """
    peers.need("curl", "s5cmd")
    size = _BYTES_QUICK if rig.quick or not _has_room(rig.home) else _BYTES
    ours: list[dict[str, Spent]] = []
    theirs: list[dict[str, Spent]] = []
    peaks: list[float] = []
    others: dict[str, Spent] = {}
    for run in range(rig.repeats):
        with (
            rig.folder("large") as folder,
            rig.bucket(f"bench-large-{run}") as s3,  # gone with all its bytes after each run
            rig.portal(verdict="immediate") as portal,
            rig.spool(portal, integrations={"s3": {**s3, "part_size_mib": _PART_MIB}}) as spool,
        ):
            package = make_large_zip(folder / _NAME, size)
            _sha256sum(package)
            steps, peak = _deliver(spool, package, size)
            package = spool.root / "delivered" / _NAME
            hashed, sha256 = _sha256sum(package)
            ours.append(steps)
            peaks.append(peak / 1e6)
            theirs.append(
                {
                    "sha256sum (no CRC-32)": hashed,
                    "curl -F": _curl(package, sha256, portal),
                    "s5cmd cp": _store(_s5cmd(package, s3), s3),
                }
            )
            if run == 0:
                others = _other_peers(package, s3)
    return [
        Figure(
            name=f"{size / _GIB:.0f} GiB inspected, submitted and backed up",
            unit="s",
            runs=tuple(sum(spent.seconds for spent in steps.values()) for steps in ours),
            peer=Peer(
                name="sha256sum, curl -F and s5cmd cp, one after the other",
                runs=tuple(sum(spent.seconds for spent in steps.values()) for steps in theirs),
            ),
            ratio_limit=at_most(1.0),
        ),
        Figure(name="peak memory", unit="MB", runs=tuple(peaks), limit=at_most(130)),
        *_steps(ours, theirs, size),
        *(
            _figure("backed up", "MB/s", [_rate(run["backed up"], size) for run in ours], name, [_rate(spent, size)])
            for name, spent in others.items()
        ),
    ]


def _steps(ours: Sequence[Mapping[str, Spent]], theirs: Sequence[Mapping[str, Spent]], size: int) -> Iterator[Figure]:
    """Each step's speed and CPU beside the program that does nothing else."""
    for what, peer in zip(ours[0], theirs[0], strict=True):
        here, there = [run[what] for run in ours], [run[peer] for run in theirs]
        yield _figure(
            what, "MB/s", [_rate(spent, size) for spent in here], peer, [_rate(spent, size) for spent in there]
        )
        cpu = [[spent.cpu * _GIB / size for spent in runs] for runs in (here, there)]
        yield _figure(f"{what}, CPU", "s/GiB", cpu[0], peer, cpu[1])


def _rate(spent: Spent, size: int) -> float:
    """MB/s."""
    return size / spent.seconds / 1e6


def _has_room(home: Path) -> bool:
    """Room for the package (a hole that a copy would fill) and for both backups, wherever SeaweedFS puts them."""
    return all(shutil.disk_usage(folder).free > 4 * _BYTES for folder in (home, tempfile.gettempdir()))


def _figure(name: str, unit: str, runs: Sequence[float], peer: str, peer_runs: Sequence[float]) -> Figure:
    return Figure(name=name, unit=unit, runs=tuple(runs), peer=Peer(name=peer, runs=tuple(peer_runs)))


def _deliver(spool: Spool, package: Path, size: int) -> tuple[dict[str, Spent], int]:
    """What each step took, and the daemon's peak of memory in bytes."""
    spool.start()
    assert spool.process is not None
    make_large_zip(spool.home / _WARM_UP, 2 * _PART_MIB * _MIB).rename(spool.root / "outbox" / _WARM_UP)
    spool.wait_for_event(Event.BACKED_UP, _WARM_UP)  # the first one loads what is loaded late
    steps: dict[str, Spent] = {}
    pid, began = spool.process.pid, time.time()
    before = proc.look(pid)
    package.rename(spool.root / "outbox" / _NAME)
    for what, event in (
        ("inspected", Event.ATTEMPTED),
        ("submitted", Event.ACCEPTED),
        ("backed up", Event.BACKED_UP),
    ):
        spool.wait_for_event(event, _NAME, seconds=120 + size / (10 * _MIB))
        after, ended = proc.look(pid), parse_rfc3339(spool.row(event, _NAME)["at"]).timestamp()
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


def _s5cmd(package: Path, s3: Mapping[str, Any]) -> list[str]:
    return [
        peers.program("s5cmd") or "s5cmd", "--endpoint-url", s3["endpoint_url"],
        "cp", str(package), f"s3://{s3['bucket']}/s5cmd",
    ]  # fmt: skip


def _store(command: Sequence[str], s3: Mapping[str, Any]) -> Spent:
    """Run another program's upload with our keys, and with nobody's settings."""
    home = tempfile.gettempdir()
    stopwatch = Stopwatch()
    subprocess.run(
        command, env=peers.credentials(s3) | {"HOME": home}, cwd=home, stdout=subprocess.DEVNULL, check=True
    )  # fmt: skip
    return stopwatch.read()


def _other_peers(package: Path, s3: Mapping[str, Any]) -> dict[str, Spent]:
    """Those that are installed: each stores the ZIP once more."""
    endpoint, bucket = s3["endpoint_url"], s3["bucket"]
    rclone = f":s3,provider=Other,env_auth=true,endpoint='{endpoint}':{bucket}/rclone"
    commands = {
        "rclone copyto": ["rclone", "copyto", "--s3-no-check-bucket", str(package), rclone],
        "aws s3 cp": ["aws", "--endpoint-url", endpoint, "s3", "cp", str(package), f"s3://{bucket}/aws"],
    }
    found = {"boto3 upload_file, one thread": _upload(package, s3)}
    for name, (program, *words) in commands.items():
        if (path := peers.program(program)) is not None:
            found[name] = _store([path, *words], s3)
    return found


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
