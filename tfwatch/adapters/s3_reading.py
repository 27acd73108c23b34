"""Reading one object to its end, in stretches: a connection that breaks costs no byte that was read before it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from tfwatch.errors import ServiceError, Stopping

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

STRETCH: Final = 16 << 20
"""Bytes asked for with one request. Each has tries of its own, so that a long object may break often."""

_CHUNK: Final = 1 << 20
_CHANGED: Final = 412


class Reading:
    """One object on its way here. `go_on` may be called again after whatever it raised."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        key: str,
        *,
        etag: str,
        size: int,
        write: Callable[[bytes], object],
        stopping: Callable[[], bool],
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._etag = etag
        self._size = size
        self._write = write
        self._stopping = stopping
        self._digest = hashlib.sha256()
        self._at = 0
        self._changed = False

    @property
    def is_done(self) -> bool:
        """Whether all was read, or the object became another one meanwhile."""
        return self._changed or self._at >= self._size

    @property
    def sha256(self) -> str:
        """Of what was read: 64 hex digits."""
        return self._digest.hexdigest()

    def go_on(self) -> None:
        """Read one stretch, from where the last one ended. Raises what boto3 raises, `Stopping`, `ServiceError`."""
        end = min(self._size, (self._at // STRETCH + 1) * STRETCH)
        try:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._key, IfMatch=self._etag, Range=f"bytes={self._at}-{end - 1}"
            )
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == _CHANGED:
                self._changed = True
                return
            raise
        with closing(answer["Body"]) as body:
            if answer["ContentLength"] != end - self._at:
                raise ServiceError(
                    f"S3: asked for bytes {self._at} to {end - 1}, it sends {answer['ContentLength']} bytes",
                    hint="the server does not honour the Range header: read the object with its own tools",
                )
            for chunk in body.iter_chunks(_CHUNK):
                if self._stopping():
                    raise Stopping("told to stop")
                self._write(chunk)
                self._digest.update(chunk)
                self._at += len(chunk)
