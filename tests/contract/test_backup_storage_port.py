"""What every backup storage keeps to: the fake, and the S3 adapter against moto and SeaweedFS, http and https."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from tests.contract.fake_storage import FakeStorage
from tests.support import s3_servers
from tests.support.s3_servers import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from tfwatch.adapters import s3
from tfwatch.delivery.keys import backup_key
from tfwatch.errors import ContentChanged, Stopping, TransientError
from tfwatch.model import Backup, Package, Sha256, TraceId
from tfwatch.ports import BackupStoragePort

MIB = 1024 * 1024
PART = 5 * MIB
PREFIX = "t/"
SIZES = [22, 20_000, PART, PART + 1, 2 * PART + 17]


class Place(Protocol):
    """A storage, and what lies in it, seen from behind."""

    @property
    def storage(self) -> BackupStoragePort: ...

    def content(self, key: str) -> bytes | None: ...

    def metadata(self, key: str) -> dict[str, str]: ...

    def plant(self, key: str, content: bytes, metadata: dict[str, str]) -> None: ...

    def begin_upload(self, key: str) -> None: ...

    def unfinished_uploads(self) -> int: ...

    def fetch(self, url: str) -> bytes | None: ...


@dataclass
class InMemory:
    storage: FakeStorage = field(default_factory=FakeStorage)

    def content(self, key: str) -> bytes | None:
        return self.storage.objects.get(key)

    def metadata(self, key: str) -> dict[str, str]:
        return self.storage.metadata[key]

    def plant(self, key: str, content: bytes, metadata: dict[str, str]) -> None:
        self.storage.objects[key] = content
        self.storage.metadata[key] = metadata

    def begin_upload(self, key: str) -> None:
        self.storage.abandoned += 1

    def unfinished_uploads(self) -> int:
        return self.storage.abandoned

    def fetch(self, url: str) -> bytes | None:
        return self.content(url.removeprefix("https://storage.invalid/backups/").partition("?")[0])


class InBucket:
    """One bucket of a server for all tests: their contents are random, so their keys differ."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.bucket = "contract"
        self.client = server.client()
        with contextlib.suppress(self.client.exceptions.BucketAlreadyOwnedByYou):
            self.client.create_bucket(Bucket=self.bucket)
        self.storage = s3.connect(
            s3.S3Settings(
                endpoint_url=server.url,
                region=REGION,
                bucket=self.bucket,
                prefix=PREFIX,
                access_key=ACCESS_KEY,
                secret_key=SECRET_KEY,
                part_size_mib=PART // MIB,
                verify=server.verify,
            )
        )

    def content(self, key: str) -> bytes | None:
        try:
            return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None

    def metadata(self, key: str) -> dict[str, str]:
        return self.client.head_object(Bucket=self.bucket, Key=key)["Metadata"]

    def plant(self, key: str, content: bytes, metadata: dict[str, str]) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content, Metadata=metadata)

    def begin_upload(self, key: str) -> None:
        upload = self.client.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        self.client.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"x" * PART)

    def unfinished_uploads(self) -> int:
        listed = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=PREFIX)
        return len(listed.get("Uploads", []))

    def fetch(self, url: str) -> bytes | None:
        verify = self.server.verify
        trust = verify if isinstance(verify, bool) else ssl.create_default_context(cafile=verify)
        return httpx.get(url, verify=trust).content


@cache
def moto(scheme: str) -> Place:
    return InBucket(s3_servers.moto(scheme))


@cache
def seaweed(scheme: str) -> Place:
    return InBucket(s3_servers.seaweed(scheme))


PLACES: dict[str, Callable[[], Place]] = {
    "fake": InMemory,
    "moto-http": lambda: moto("http"),
    "moto-https": lambda: moto("https"),
    "seaweed-http": lambda: seaweed("http"),
    "seaweed-https": lambda: seaweed("https"),
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param]()


def backup_of(path: Path, name: str = "42_v1.zip") -> Backup:
    content = path.read_bytes()
    package = Package(
        name=name,
        sha256=Sha256(hashlib.sha256(content).hexdigest()),
        bytes=len(content),
        trace_id=TraceId("trace-\u00e9\n1"),
    )
    return Backup(
        package=package,
        key=backup_key(PREFIX, date(2025, 11, 13), package),
        order_id="order 7",
        open_zip=lambda: open(path, "rb"),
        stopping=lambda: False,
        progress=lambda _: None,
    )


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Backup]:
    def make(size: int, name: str = "42_v1.zip") -> Backup:
        path = tmp_path / f"{size}.zip"
        path.write_bytes(os.urandom(size))
        return backup_of(path, name)

    return make


@pytest.mark.parametrize("size", SIZES)
def test_what_is_stored_is_what_was_there(place: Place, make: Callable[..., Backup], size: int) -> None:
    """Every byte arrives, in one request or in parts, and nothing half-done stays."""
    backup = make(size)

    stored = place.storage.store(backup)

    with backup.open_zip() as zip_file:
        assert zip_file.read() == place.content(backup.key)
    assert (backup.key, size, False) == (stored.key, stored.bytes, stored.existed)
    assert backup.package.sha256 == place.metadata(backup.key)["sha256"]
    assert place.unfinished_uploads() == 0


@pytest.mark.parametrize("size", [20_000, PART + 1])
def test_storing_twice_is_once(place: Place, make: Callable[..., Backup], size: int) -> None:
    """An object that is there whole is kept, and said to have been there."""
    backup = make(size)
    first = place.storage.store(backup)

    assert replace(first, existed=True) == place.storage.store(backup)


def test_a_half_or_foreign_object_is_replaced(place: Place, make: Callable[..., Backup]) -> None:
    """An object under our key with other bytes is not taken for the backup."""
    backup = make(20_000)
    place.plant(backup.key, b"someone else's", {"sha256": "0" * 64})

    assert not place.storage.store(backup).existed

    with backup.open_zip() as zip_file:
        assert zip_file.read() == place.content(backup.key)


def test_an_object_that_only_claims_to_be_it_is_replaced(place: Place, make: Callable[..., Backup]) -> None:
    """Right size and right metadata prove nothing when the bytes are wrong."""
    backup = make(20_000)
    place.plant(backup.key, b"x" * 20_000, {"sha256": backup.package.sha256})

    assert not place.storage.store(backup).existed

    with backup.open_zip() as zip_file:
        assert zip_file.read() == place.content(backup.key)


@pytest.mark.parametrize("size", [20_000, PART + 1])
def test_changed_bytes_are_never_kept(place: Place, make: Callable[..., Backup], size: int) -> None:
    """Bytes that are not the ones inspected void the backup and leave nothing behind."""
    backup = make(size)
    changed = replace(backup, open_zip=lambda: io.BytesIO(b"!" * size))

    with pytest.raises(ContentChanged):
        place.storage.store(changed)

    assert place.content(backup.key) is None
    assert place.unfinished_uploads() == 0


@pytest.mark.parametrize("size", [20_000, PART + 1])
def test_a_file_cut_short_is_never_kept(place: Place, make: Callable[..., Backup], size: int) -> None:
    """A file that ends early voids the backup."""
    backup = make(size)
    with backup.open_zip() as zip_file:
        content = zip_file.read()

    with pytest.raises(ContentChanged):
        place.storage.store(replace(backup, open_zip=lambda: io.BytesIO(content[:-1])))

    assert place.content(backup.key) is None
    assert place.unfinished_uploads() == 0


@pytest.mark.parametrize("size", [PART, 2 * PART])
def test_stopping_cuts_a_store_short(place: Place, make: Callable[..., Backup], size: int) -> None:
    """Once the daemon stops, even in the middle of a part, nothing is stored and nothing half-done stays."""
    sent: list[int] = []
    backup = replace(make(size), stopping=lambda: bool(sent and sent[-1] > size // 2), progress=sent.append)

    with pytest.raises(Stopping):
        place.storage.store(backup)

    assert place.content(backup.key) is None
    assert place.unfinished_uploads() == 0
    assert sent[-1] < size // 2 + MIB


@pytest.mark.parametrize("size", [20_000, PART + 1])
def test_progress_tells_the_bytes_sent(place: Place, make: Callable[..., Backup], size: int) -> None:
    """Progress only grows, and ends at the whole."""
    sent: list[int] = []

    place.storage.store(replace(make(size), progress=sent.append))

    assert sorted(sent) == sent
    assert size == sent[-1]


@pytest.mark.parametrize("name", ["Grava\u00e7\u00e3o #1 100% (a+b)&c=\u65e5\u672c.zip", "a\udcff\n.zip", "\\.zip"])
def test_any_name_is_stored_once(place: Place, make: Callable[..., Backup], name: str) -> None:
    """Whatever a stranger called the file, its object is stored, found again and can be presigned."""
    backup = make(100, name)

    place.storage.store(backup)

    assert place.storage.store(backup).existed
    assert place.content(backup.key) is not None


def test_abandoned_uploads_are_aborted_under_our_prefix_only(place: Place) -> None:
    """What a crash left is cleared; the rest of the bucket is not ours to touch."""
    place.begin_upload(f"{PREFIX}2025/11/13/a.zip")
    place.begin_upload(f"{PREFIX}2025/11/14/b.zip")

    assert place.storage.abort_abandoned(older_than_seconds=-60) == 2
    assert place.unfinished_uploads() == 0
    assert place.storage.abort_abandoned(older_than_seconds=-60) == 0


@pytest.mark.parametrize("size", [20_000, PART + 1])
def test_a_look_tells_found_missing_and_differs(place: Place, make: Callable[..., Backup], size: int) -> None:
    """What was stored is found; another size, another content, or nothing there is told apart."""
    backup = make(size)
    sha256 = backup.package.sha256
    assert "missing" == place.storage.verify(backup.key, sha256, size)

    place.storage.store(backup)

    assert "found" == place.storage.verify(backup.key, sha256, size)
    assert "differs" == place.storage.verify(backup.key, sha256, size + 1)
    assert "differs" == place.storage.verify(backup.key, Sha256("0" * 64), size)
    place.plant(backup.key, b"x" * size, {})
    assert "differs" == place.storage.verify(backup.key, sha256, size)


@pytest.mark.parametrize("size", [22, 20_000, PART + 1])
def test_what_is_fetched_is_what_was_stored(place: Place, make: Callable[..., Backup], size: int) -> None:
    """Every byte comes back, in order and in pieces of at most a MiB, and is found to be it."""
    backup = make(size)
    place.storage.store(backup)
    pieces: list[bytes] = []

    kept = place.storage.fetch(
        backup.key, backup.package.sha256, size, write=pieces.append, stopping=lambda: False
    )  # fmt: skip

    assert "found" == kept
    with backup.open_zip() as zip_file:
        assert zip_file.read() == b"".join(pieces)
    assert max(map(len, pieces)) <= MIB


def test_a_fetch_tells_missing_and_differs(place: Place, make: Callable[..., Backup]) -> None:
    """Nothing there, another size, other bytes of that size: none of them is taken for the package."""
    backup = make(20_000)
    wanted = (backup.key, backup.package.sha256)
    got: list[bytes] = []
    assert "missing" == place.storage.fetch(*wanted, 20_000, write=got.append, stopping=lambda: False)
    assert [] == got

    place.plant(backup.key, b"x" * 20_000, {"sha256": backup.package.sha256})

    assert "differs" == place.storage.fetch(*wanted, 20_001, write=got.append, stopping=lambda: False)
    assert [] == got
    assert "differs" == place.storage.fetch(*wanted, 20_000, write=got.append, stopping=lambda: False)


def test_stopping_cuts_a_fetch_short(place: Place, make: Callable[..., Backup]) -> None:
    """Who is told to stop reads no further."""
    backup = make(2 * PART)
    place.storage.store(backup)
    got: list[bytes] = []

    with pytest.raises(Stopping):
        place.storage.fetch(
            backup.key, backup.package.sha256, 2 * PART, write=got.append, stopping=lambda: bool(got)
        )  # fmt: skip

    assert sum(map(len, got)) <= MIB


def test_what_the_writer_raises_comes_out(place: Place, make: Callable[..., Backup]) -> None:
    """A full disk is no failure of the storage's: whoever writes says what it is."""
    backup = make(20_000)
    place.storage.store(backup)

    def full(piece: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as raised:
        place.storage.fetch(backup.key, backup.package.sha256, 20_000, write=full, stopping=lambda: False)
    assert errno.ENOSPC == raised.value.errno


def test_fakes_failures_are_raised_once() -> None:
    """The fake can be told to fail, one call at a time."""
    fake = FakeStorage(failures=[TransientError("no")])
    backup = backup_of(Path(__file__))

    with pytest.raises(TransientError):
        fake.store(backup)

    assert not fake.store(backup).existed


def test_a_presigned_url_gives_the_bytes(place: Place, make: Callable[..., Backup]) -> None:
    """Whoever holds the URL can read the object, with no key of ours."""
    backup = make(100, "a b+\u00e7%.zip")
    place.storage.store(backup)

    url = place.storage.presign(backup.key, expires_seconds=60)

    assert place.content(backup.key) == place.fetch(url)


def test_a_probe_leaves_nothing(place: Place) -> None:
    """A storage that works is proven to, tells its clock, and keeps neither object nor upload of it."""
    reach = place.storage.probe()

    assert reach.failure is None
    assert reach.proven
    assert reach.date is not None
    assert 0 == place.unfinished_uploads()
