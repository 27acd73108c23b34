"""Backups in an S3 bucket, Amazon's or compatible: stored once, read back before anyone is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import backoff

from tfwatch.adapters.s3_body import Body, stretches
from tfwatch.adapters.s3_client import S3Settings, make_client
from tfwatch.adapters.s3_errors import hints, translated
from tfwatch.adapters.s3_headers import Proof, base64, metadata
from tfwatch.adapters.s3_probe import probe
from tfwatch.adapters.s3_reading import Reading
from tfwatch.errors import ContentChanged, ServiceError, ServiceFailure, Stopping, TransientError
from tfwatch.language import number, tr
from tfwatch.model import Backup, Sha256, StoredObject
from tfwatch.ports import BackupStoragePort, Kept, Reach

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, HeadObjectOutputTypeDef

__all__ = ["S3Settings", "connect"]

_T = TypeVar("_T")

_MIB: Final = 1024 * 1024
_MAX_PARTS: Final = 10_000
_CHUNK: Final = _MIB
_TRIES: Final = 4
_LONGEST_PAUSE: Final = 1.0
_MAX_ABORTS: Final = 10_000


def connect(settings: S3Settings) -> BackupStoragePort:
    """A storage for these settings. Makes no request."""
    return _S3Storage(settings)


class _S3Storage:
    def __init__(self, settings: S3Settings) -> None:
        self._bucket = settings.bucket
        self._prefix = settings.prefix
        self._part_bytes = settings.part_size_mib * _MIB
        self._secrets = tuple(secret for secret in (settings.secret_key, settings.access_key) if secret)
        self._client = make_client(settings)
        self._shows_composites = False
        """Whether it has shown the checksum of an object in parts: then MD5, the dearest of digests, is not needed."""

    def store(self, backup: Backup) -> StoredObject:
        existed = self._is_there(backup)
        if not existed:
            proof = self._put(backup) if backup.package.bytes <= self._part_bytes else self._put_parts(backup)
            self._read_back(backup, proof)
        return StoredObject(bucket=self._bucket, key=backup.key, bytes=backup.package.bytes, existed=existed)

    def verify(self, key: str, sha256: Sha256, size: int) -> Kept:
        head = self._look(key)
        if head is None:
            return "missing"
        if head["ContentLength"] != size:
            return "differs"
        expected, checksum = base64(bytes.fromhex(sha256)), head.get("ChecksumSHA256")
        if checksum == expected:
            return "found"
        if checksum and head.get("ChecksumType") == "FULL_OBJECT":
            return "differs"
        return "found" if head["Metadata"].get("sha256") == sha256 else "differs"

    def fetch(
        self,
        key: str,
        sha256: Sha256,
        size: int,
        *,
        write: Callable[[bytes], object],
        stopping: Callable[[], bool],
    ) -> Kept:
        head = self._look(key)
        if head is None:
            return "missing"
        if head["ContentLength"] != size:
            return "differs"
        reading = Reading(self._client, self._bucket, key, etag=head["ETag"], size=size, write=write, stopping=stopping)
        while not reading.is_done:
            self._call(stopping, reading.go_on)
        return "found" if reading.sha256 == sha256 else "differs"

    def presign(self, key: str, *, expires_seconds: int) -> str:
        with translated(self._secrets):
            return self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": key}, ExpiresIn=expires_seconds
            )

    def abort_abandoned(self, *, older_than_seconds: float) -> int:
        return self._abort_uploads(self._prefix, before=datetime.now(UTC) - timedelta(seconds=older_than_seconds))

    def probe(self) -> Reach:
        return probe(self._client, self._bucket, self._prefix, self._secrets)

    def close(self) -> None:
        self._client.close()

    # --- is it there, and is it whole? ------------------------------------------------------------------------------

    def _is_there(self, backup: Backup) -> bool:
        try:
            head = self._head(backup)
        except ServiceError as refused:
            # Amazon answers 403 for an object that isn't there when the key may not list: the put will tell.
            if refused.code in (403, 404):
                return False
            raise
        package = backup.package
        same = head["ContentLength"] == package.bytes and head["Metadata"].get("sha256") == package.sha256
        return same and self._is_whole(backup, head, proof=None)

    def _read_back(self, backup: Backup, proof: Proof) -> None:
        head = self._head(backup)
        if head["ContentLength"] != backup.package.bytes:
            sizes = {"there": number(head["ContentLength"]), "here": number(backup.package.bytes)}
            raise TransientError(tr("S3: {key} has {there} bytes there, {here} here", key=ascii(backup.key), **sizes))
        if not self._is_whole(backup, head, proof):
            raise TransientError(tr("S3: {key} does not read back as it was sent", key=ascii(backup.key)))

    def _is_whole(self, backup: Backup, head: HeadObjectOutputTypeDef, proof: Proof | None) -> bool:
        """By the server's own checksum where it has one, by its MD5 else, by reading the object where neither fits."""
        checksum = head.get("ChecksumSHA256")
        if checksum == base64(bytes.fromhex(backup.package.sha256)):
            return True
        if proof is not None and checksum in proof.checksums:
            self._shows_composites = True
            return True
        if proof is not None and not checksum and head["ETag"].strip('"') == proof.etag:
            return True
        return self._call(backup.stopping, lambda: self._digest_there(backup)) == backup.package.sha256

    def _head(self, backup: Backup) -> HeadObjectOutputTypeDef:
        return self._call(backup.stopping, lambda: self._head_of(backup.key))

    def _head_of(self, key: str) -> HeadObjectOutputTypeDef:
        return self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")

    def _look(self, key: str) -> HeadObjectOutputTypeDef | None:
        """What is known of an object; None when it isn't there, though its bucket is."""
        try:
            return self._call(_never, lambda: self._head_of(key))
        except ServiceError as refused:
            if refused.code != 404:
                raise
        self._require_bucket()
        return None

    def _require_bucket(self) -> None:
        """A HEAD is answered 404 without a word, whether it is the object that isn't there or the whole bucket."""
        try:
            self._call(_never, lambda: self._client.head_bucket(Bucket=self._bucket))
        except ServiceError as refused:
            if refused.code == 404:
                message = tr("S3: there is no bucket {bucket}", bucket=self._bucket)
                raise ServiceError(message, code=404, hint=hints()["NoSuchBucket"]) from refused
            if refused.code != 403:  # it is there; the key may only not list it
                raise

    def _digest_there(self, backup: Backup) -> str:
        digest = hashlib.sha256()
        with closing(self._client.get_object(Bucket=self._bucket, Key=backup.key)["Body"]) as body:
            for chunk in body.iter_chunks(_CHUNK):
                if backup.stopping():
                    raise Stopping("told to stop")
                digest.update(chunk)
                backup.progress(backup.package.bytes)  # read back: no standstill
        return digest.hexdigest()

    # --- one request ------------------------------------------------------------------------------------------------

    def _put(self, backup: Backup) -> Proof:
        package = backup.package
        checksum = base64(bytes.fromhex(package.sha256))
        with backup.open_zip() as zip_file:
            body = _body(backup, zip_file, 0, package.bytes, hashlib.sha256(), with_md5=True)
            try:
                self._call(
                    backup.stopping,
                    lambda: self._client.put_object(
                        Bucket=self._bucket,
                        Key=backup.key,
                        Body=_rewound(body),
                        ChecksumSHA256=checksum,
                        Metadata=metadata(backup),
                    ),
                )
            except TransientError:
                # A server that compares checksums refuses changed bytes, and would refuse them for ever.
                if body.sent_whole and body.sha256.hexdigest() != package.sha256:
                    raise ContentChanged(tr("not the bytes that were inspected")) from None
                raise
        if body.sha256.hexdigest() != package.sha256:
            self._call(backup.stopping, lambda: self._client.delete_object(Bucket=self._bucket, Key=backup.key))
            raise ContentChanged(tr("not the bytes that were inspected"))
        return Proof(checksums=frozenset({checksum}), etag=body.md5.hexdigest() if body.md5 else "")

    # --- many parts -------------------------------------------------------------------------------------------------

    def _put_parts(self, backup: Backup) -> Proof:
        self._abort_leftovers(backup)
        upload = self._call(
            backup.stopping,
            lambda: self._client.create_multipart_upload(
                Bucket=self._bucket, Key=backup.key, ChecksumAlgorithm="SHA256", Metadata=metadata(backup)
            ),
        )["UploadId"]
        try:
            return self._send_and_complete(backup, upload)
        except BaseException:
            self._abort_quietly(backup.key, upload)
            raise

    def _send_and_complete(self, backup: Backup, upload: str) -> Proof:
        package = backup.package
        parts: list[CompletedPartTypeDef] = []
        digests, md5s = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        whole, with_md5 = hashlib.sha256(), not self._shows_composites
        with backup.open_zip() as zip_file:
            for number, (start, size) in enumerate(stretches(package.bytes, self._part_size(package.bytes)), start=1):
                body = _body(backup, zip_file, start, size, whole, with_md5=with_md5)
                digest = body.digest()
                parts.append(self._send_part(backup, upload, number, body, digest))
                whole = body.sha256
                digests.update(digest)
                md5s.update(body.md5.digest() if body.md5 else b"")
        if whole.hexdigest() != package.sha256:
            raise ContentChanged(tr("not the bytes that were inspected"))
        self._call(
            backup.stopping,
            lambda: self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=backup.key, UploadId=upload, MultipartUpload={"Parts": parts}
            ),
        )
        composite = base64(digests.digest())
        # Amazon, MinIO and SeaweedFS name the number of parts in a composite checksum; moto leaves it out.
        checksums = frozenset({composite, f"{composite}-{len(parts)}"})
        return Proof(checksums=checksums, etag=f"{md5s.hexdigest()}-{len(parts)}" if with_md5 else "")

    def _send_part(self, backup: Backup, upload: str, number: int, body: Body, digest: bytes) -> CompletedPartTypeDef:
        checksum = base64(digest)
        try:
            answer = self._call(
                backup.stopping,
                lambda: self._client.upload_part(
                    Bucket=self._bucket,
                    Key=backup.key,
                    UploadId=upload,
                    PartNumber=number,
                    Body=_rewound(body),
                    ChecksumSHA256=checksum,
                ),
            )
        except TransientError:
            if body.sent_whole and body.digest() != digest:
                raise ContentChanged(tr("not the bytes that were inspected")) from None
            raise
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    def _part_size(self, size: int) -> int:
        """Bytes a part, in whole MiB: the configured size unless that made more parts than S3 takes."""
        least = -(-size // _MAX_PARTS)
        return max(self._part_bytes, -(-least // _MIB) * _MIB)

    def _abort_leftovers(self, backup: Backup) -> None:
        """Abort what a crash left of this very key: MinIO lists unfinished uploads only by their whole key.

        A package is at work once at most, so nobody else is uploading it. Not allowed to list: nothing lost.
        """
        try:
            self._abort_uploads(backup.key, before=datetime.max.replace(tzinfo=UTC))
        except ServiceFailure:
            return

    def _abort_uploads(self, prefix: str, *, before: datetime) -> int:
        aborted = 0
        with translated(self._secrets):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=prefix, PaginationConfig={"MaxItems": _MAX_ABORTS}
            )
            found = [upload for page in pages for upload in page.get("Uploads", [])]
        for upload in found:
            if upload["Initiated"] < before:
                aborted += self._abort(upload["Key"], upload["UploadId"])
        return aborted

    def _abort(self, key: str, upload: str) -> bool:
        """Abort one upload; False when it is gone already."""
        try:
            with translated(self._secrets):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)
        except ServiceFailure as error:
            if error.code == 404:
                return False
            raise
        return True

    def _abort_quietly(self, key: str, upload: str) -> None:
        """Abort after a failure, which matters more than this: what stays is found by `abort_abandoned`."""
        try:
            self._abort(key, upload)
        except ServiceFailure:
            return

    # --- every request ----------------------------------------------------------------------------------------------

    def _call(self, stopping: Callable[[], bool], request: Callable[[], _T]) -> _T:
        """Make a request, a few times if need be: seconds only, the minutes are the caller's."""

        @backoff.on_exception(
            backoff.expo,
            TransientError,
            max_tries=_TRIES,
            factor=0.2,
            max_value=_LONGEST_PAUSE,
            jitter=backoff.full_jitter,
            giveup=lambda error: stopping() or _asks_for_minutes(error),
            logger=None,
        )
        def tried() -> _T:
            if stopping():
                raise Stopping("told to stop")
            with translated(self._secrets):
                return request()

        return tried()


def _never() -> bool:
    return False


def _asks_for_minutes(error: Exception) -> bool:
    return isinstance(error, TransientError) and (error.retry_after or 0) > _LONGEST_PAUSE


def _body(backup: Backup, zip_file: BinaryIO, start: int, size: int, before: hashlib._Hash, *, with_md5: bool) -> Body:
    return Body(
        zip_file, start=start, size=size, before=before, with_md5=with_md5, stopping=backup.stopping,
        progress=backup.progress,
    )  # fmt: skip


def _rewound(body: Body) -> Any:
    """The body at its beginning, for each try anew. Any: boto3 asks for an IO, but needs read, seek and tell."""
    body.rewind()
    return body
