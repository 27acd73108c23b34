"""Whether a bucket can be used as it is configured, found out without leaving anything in it."""

from __future__ import annotations

import secrets as chance
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from tfwatch.adapters.http_date import moment
from tfwatch.adapters.s3_errors import hints, translated
from tfwatch.errors import ServiceError, ServiceFailure
from tfwatch.language import tr
from tfwatch.ports import Reach

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_PROVEN: Final = "the bucket is there, and this key may list, read and write in it"


def probe(client: S3Client, bucket: str, prefix: str, secrets: Sequence[str]) -> Reach:
    """See `BackupStoragePort.probe`. Each request once, up to the first that fails."""
    asked_at, date = datetime.now(UTC), None
    try:
        for request in _requests(client, bucket, f"{prefix}.tfwatch-probe-{chance.token_hex(8)}", prefix):
            asked_at = datetime.now(UTC)
            with translated(secrets):
                try:
                    answer = request()
                except ClientError as error:
                    date = _date(error.response)
                    raise
                date = _date(answer)
    except ServiceFailure as failure:
        return Reach(failure=_named(failure, bucket), date=date, asked_at=asked_at, answered_at=datetime.now(UTC))
    return Reach(proven=_PROVEN, date=date, asked_at=asked_at, answered_at=datetime.now(UTC))


def _requests(client: S3Client, bucket: str, key: str, prefix: str) -> Iterator[Callable[[], Any]]:
    yield lambda: client.head_bucket(Bucket=bucket)
    yield lambda: client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    yield lambda: client.list_multipart_uploads(Bucket=bucket, Prefix=prefix, MaxUploads=1)
    yield lambda: _not_there(client, bucket, key)
    yield lambda: _begin_and_abort(client, bucket, key)


def _not_there(client: S3Client, bucket: str, key: str) -> Any:
    """Reading is asked for: 404 is the right answer for an object that nobody has made."""
    try:
        return client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return error.response
        raise


def _begin_and_abort(client: S3Client, bucket: str, key: str) -> Any:
    """Writing is asked for: an upload that is never completed makes no object."""
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    return client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)


def _date(answer: Mapping[str, Any]) -> datetime | None:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return moment(headers.get("date"))


def _named(failure: ServiceFailure, bucket: str) -> ServiceFailure:
    """A HEAD is answered 404 without a word: it is the bucket that isn't there."""
    if failure.code != 404:
        return failure
    return ServiceError(tr("S3: there is no bucket {bucket}", bucket=bucket), code=404, hint=hints()["NoSuchBucket"])
