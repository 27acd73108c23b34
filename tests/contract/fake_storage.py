"""A backup storage in memory that keeps the contract of `BackupStoragePort`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tfwatch.errors import ContentChanged, ServiceFailure, Stopping
from tfwatch.model import Backup, Sha256, StoredObject
from tfwatch.ports import Kept, Reach

_CHUNK = 64 * 1024


@dataclass(slots=True, kw_only=True)
class FakeStorage:
    """What was stored, by key. `failures`: raised one by one, before anything else, by the next calls of `store`,
    `verify` and `fetch`, and told by those of `probe`."""

    bucket: str = "backups"
    objects: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    failures: list[ServiceFailure] = field(default_factory=list)
    abandoned: int = 0
    closed: bool = False

    def store(self, backup: Backup) -> StoredObject:
        if self.failures:
            raise self.failures.pop(0)
        package = backup.package
        existed = self._sha256(backup.key) == package.sha256
        if not existed:
            content = self._read(backup)
            if hashlib.sha256(content).hexdigest() != package.sha256:
                raise ContentChanged
            self.objects[backup.key] = content
            words = {"sha256": package.sha256, "trace-id": package.trace_id, "order-id": backup.order_id}
            self.metadata[backup.key] = words
        return StoredObject(bucket=self.bucket, key=backup.key, bytes=package.bytes, existed=existed)

    def verify(self, key: str, sha256: Sha256, size: int) -> Kept:
        if self.failures:
            raise self.failures.pop(0)
        if key not in self.objects:
            return "missing"
        return "found" if (len(self.objects[key]), self._sha256(key)) == (size, sha256) else "differs"

    def fetch(
        self,
        key: str,
        sha256: Sha256,
        size: int,
        *,
        write: Callable[[bytes], object],
        stopping: Callable[[], bool],
    ) -> Kept:
        if self.failures:
            raise self.failures.pop(0)
        if key not in self.objects:
            return "missing"
        content = self.objects[key]
        if len(content) != size:
            return "differs"
        for start in range(0, size, _CHUNK):
            if stopping():
                raise Stopping
            write(content[start : start + _CHUNK])
        return "found" if self._sha256(key) == sha256 else "differs"

    def presign(self, key: str, *, expires_seconds: int) -> str:
        return f"https://storage.invalid/{self.bucket}/{key}?expires={expires_seconds}"

    def abort_abandoned(self, *, older_than_seconds: float) -> int:
        aborted, self.abandoned = self.abandoned, 0
        return aborted

    def probe(self) -> Reach:
        now, failure = datetime.now(UTC), self.failures.pop(0) if self.failures else None
        return Reach(proven="" if failure else "it is here", failure=failure, date=now, asked_at=now, answered_at=now)

    def close(self) -> None:
        self.closed = True

    def _sha256(self, key: str) -> str | None:
        content = self.objects.get(key)
        return None if content is None else hashlib.sha256(content).hexdigest()

    def _read(self, backup: Backup) -> bytes:
        content = b""
        with backup.open_zip() as zip_file:
            while len(content) < backup.package.bytes:
                if backup.stopping():
                    raise Stopping
                chunk = zip_file.read(min(_CHUNK, backup.package.bytes - len(content)))
                if not chunk:
                    raise ContentChanged
                content += chunk
                backup.progress(len(content))
        return content
