"""The peer of the throughput figure: the same calls to the same services from as many threads, and nothing else.

No claim, no log, no sync, no inspection: what a short script would do that may lose or double a package.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.bench.proc import Spent, Stopwatch
from tests.bench.rig import API_KEY

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

# As many as the daemon has by default.
_SUBMIT_THREADS = 4
_ASK_THREADS = 2
_STORE_THREADS = 2


def deliver(base_url: str, s3: Mapping[str, Any], contents: Sequence[bytes]) -> Spent:
    """Post, ask about and store all of them."""
    storage, run = make_client(s3), time.monotonic_ns()
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with (
        httpx.Client(base_url=base_url, headers=headers, timeout=30) as portal,
        ThreadPoolExecutor(_SUBMIT_THREADS) as submit,
        ThreadPoolExecutor(_ASK_THREADS) as ask,
        ThreadPoolExecutor(_STORE_THREADS) as store,
    ):
        stopwatch = Stopwatch()
        posted = [submit.submit(_post, portal, number, content) for number, content in enumerate(contents)]
        asked = [ask.submit(_ask, portal, order) for order in posted]
        stored = [
            store.submit(_store, storage, s3["bucket"], done, f"bare/{run}/{number}", contents[number])
            for number, done in enumerate(asked)
        ]
        for done in stored:
            done.result()
        return stopwatch.read()


def make_client(s3: Mapping[str, Any]) -> S3Client:
    """boto3 as it comes, but with path addressing, which a server on loopback needs."""
    client: S3Client = boto3.client(
        "s3",
        endpoint_url=s3["endpoint_url"],
        region_name="us-east-1",
        aws_access_key_id=s3["access_key"],
        aws_secret_access_key=s3["secret_key"],
        config=Config(s3={"addressing_style": "path"}),
    )
    return client


def _post(portal: httpx.Client, number: int, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    answer = portal.post(
        "/deliveries",
        headers={"Idempotency-Key": f'"bare-{time.monotonic_ns()}-{number}"'},
        data={
            "job_id": f"bare{number}",
            "version": "1",
            "sha256": sha256,
            "client_reference": sha256,
            "meta[trace_id]": sha256[:32],
        },
        files={"package": (f"bare{number}_v1.zip", content, "application/zip")},
    )
    order: str = answer.raise_for_status().json()["id"]
    return order


def _ask(portal: httpx.Client, order: Future[str]) -> None:
    status = portal.get(f"/deliveries/{order.result()}").raise_for_status().json()["status"]
    assert status == "completed", status


def _store(storage: S3Client, bucket: str, done: Future[None], key: str, content: bytes) -> None:
    """Look whether it is there, put it, look whether it arrived: as the daemon does."""
    done.result()
    with contextlib.suppress(ClientError):
        storage.head_object(Bucket=bucket, Key=key)
    storage.put_object(Bucket=bucket, Key=key, Body=content)
    assert storage.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(content)
