"""Submissions to be sent by tests: small packages in memory, keys and callbacks with quiet defaults."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import BinaryIO

from tfwatch.model import Package, Sha256, Submission, TraceId

TRACE = TraceId("0af7651916cd43dd8448eb211c80319c")


def package_of(content: bytes, *, name: str = "job-7_v2.zip", trace_id: str = TRACE) -> Package:
    """The package these bytes are."""
    digest = Sha256(hashlib.sha256(content).hexdigest())
    return Package(name=name, sha256=digest, bytes=len(content), trace_id=TraceId(trace_id))


def submission_of(
    content: bytes = b"PK: a small package",
    *,
    name: str = "job-7_v2.zip",
    trace_id: str = TRACE,
    sends: bytes | None = None,
    open_zip: Callable[[], BinaryIO] | None = None,
    key: str | None = None,
    maybe_sent: bool = False,
    decided: bool = False,
    known: tuple[str, ...] = (),
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda _: None,
    source_url: str | None = None,
) -> Submission:
    """One delivery attempt of `content`; `sends`: what is read instead when the attempt reads the file."""
    package = package_of(content, name=name, trace_id=trace_id)
    return Submission(
        package=package,
        open_zip=open_zip or (lambda: io.BytesIO(content if sends is None else sends)),
        idempotency_key=key or package.sha256,
        maybe_sent=maybe_sent,
        decided=decided,
        known_order=lambda order_id: order_id in known,
        stopping=stopping,
        progress=progress,
        source_url=source_url,
    )
