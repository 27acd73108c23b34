"""The whole house in one scene: portal, sheet, S3 server, one spool; and what must be true whatever has died.

Success is judged by what the services hold and where the files lie; tfwatch's own log is only held against that.
"""

from __future__ import annotations

import csv
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.daemon import PATIENCE, STAGES, Spool, merge, wait_until, zip_bytes
from tests.support.looking import told
from tests.support.portal import digest, ordered
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings, SheetsSettings

PREFIX = "tf/"


@dataclass
class Scene:
    """One spool, the services it is configured for, and the packages dropped into it (SHA-256 → content)."""

    spool: Spool
    sandbox: Sandbox
    server: S3Server
    bucket: str
    dropped: dict[str, bytes] = field(default_factory=dict)

    def drop(self, name: str, *, seed: int = 0, size: int = 2000) -> str:
        """Drop a sound package by a rename; gives its SHA-256."""
        self.spool.drop(name, seed=seed, size=size)
        content = zip_bytes(seed=seed, size=size)
        self.dropped[digest(content)] = content
        return digest(content)

    # --- what is to be seen ------------------------------------------------------------------------------------------

    def lying(self) -> list[tuple[str, str, str]]:
        """Every package file in the spool: stage, name, SHA-256 of what lies there."""
        found = [(stage, self.spool.root / stage / name) for stage in STAGES for name in self.spool.names(stage)]
        claimed = self.spool.root / ".tfwatch" / "claimed"
        found += [("claimed", path) for path in (claimed.iterdir() if claimed.is_dir() else ())]
        return [(stage, path.name, digest(path.read_bytes())) for stage, path in found]

    def objects(self) -> list[tuple[str, str]]:
        """Every object in the bucket: key, and the SHA-256 of what it holds."""
        client = self.server.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return [(key, digest(client.get_object(Bucket=self.bucket, Key=key)["Body"].read())) for key in keys]

    def uploads(self) -> list[str]:
        """Multipart uploads that nobody finished or aborted."""
        found = self.server.client().list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return [upload["Key"] for upload in found]

    def shown(self) -> list[list[str]]:
        """What a person sees in the sheet, the empty rows below left out."""
        sheets: Any = self.sandbox.sheets()["worksheets"]
        values = next((one["values"] for one in sheets if one["properties"]["title"] == "log"), [])
        rows = [[str(cell) for cell in row] for row in values]
        while rows and not any(rows[-1]):
            rows.pop()
        return rows

    def logged(self) -> list[list[str]]:
        """log.csv with its header, as a spreadsheet program reads it; empty when there is none."""
        try:
            with (self.spool.root / "log.csv").open(newline="") as file:
                return list(csv.reader(file))
        except FileNotFoundError:
            return []

    # --- the end -----------------------------------------------------------------------------------------------------

    def is_settled(self) -> bool:
        """Whether every dropped package lies in delivered/, is logged as backed up, and the sheet shows the log."""
        if len(self.spool.names("delivered")) < len(self.dropped):
            return False
        rows = self.logged()
        backed_up = {row[6] for row in rows if row[4] == "BACKED_UP"}
        return set(self.dropped) <= backed_up and rows == self.shown()

    def wait_until_settled(self, seconds: float = 2 * PATIENCE) -> None:
        """Wait for that; fails with everything that may explain why not, at once when the daemon has ended."""
        process = self.spool.process
        try:
            wait_until(
                lambda: self.is_settled() or (process is not None and process.poll() is not None),
                "all packages are delivered, backed up and shown in the sheet",
                seconds,
            )
            assert self.is_settled(), f"the daemon ended, exit code {process and process.poll()}"
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.picture()}") from None

    def assert_invariants(self, *, orders: int = 1) -> None:
        """Once all is settled and the daemon stopped: nothing lost, nothing twice, and everybody says the same.

        `orders`: how many orders of each content the portal must hold.
        """
        everything = dict.fromkeys(self.dropped, 1)
        assert everything == Counter(digest for _, _, digest in self.lying()), self.picture()
        assert {"delivered"} == {stage for stage, _, _ in self.lying()}, self.picture()
        assert dict.fromkeys(self.dropped, orders) == ordered(self.sandbox), self.picture()
        assert everything == Counter(digest for _, digest in self.objects()), self.picture()
        assert [] == self.uploads(), self.picture()
        assert self.logged() == self.shown(), self.picture()
        self.spool.assert_sound()
        known = {str(order["id"]): str(order["sha256"]) for order in self.sandbox.orders()}
        accepted = {row[11]: row[6] for row in self.logged()[1:] if row[11]}
        assert accepted.items() <= known.items(), self.picture()
        assert set(self.dropped) == set(accepted.values()), self.picture()
        for sha256 in self.dropped:
            self.assert_why_tells_the_truth(sha256)

    def assert_why_tells_the_truth(self, sha256: str) -> None:
        """`tfwatch why` names the portal's own order of that content, the folder it lies in and its backup."""
        packages = told(self.spool, sha256)["packages"]
        lying = {(stage, name) for stage, name, found in self.lying() if found == sha256}
        orders = {str(order["id"]) for order in self.sandbox.orders() if order["sha256"] == sha256}
        keys = {key for key, found in self.objects() if found == sha256}
        assert lying == {(one["stage"], one["package"]) for one in packages if one["stage"]}, self.picture()
        named = {one["order_id"] for one in packages if one["order_id"]}
        assert named == orders if len(orders) == 1 else named <= orders and named, self.picture()
        assert keys == {one["backup_key"] for one in packages if one["backup_key"]}, self.picture()

    def picture(self) -> str:
        """Everything that may explain a failure, the services' own books first."""
        return (
            f"orders: {self.sandbox.orders()}\nobjects: {self.objects()}\nsheet: {len(self.shown())} rows\n"
            f"{self.spool.picture()}"
        )


@contextmanager
def scene(
    home: Path,
    server: S3Server,
    *,
    portal: PortalSettings | None = None,
    faults: Sequence[Any] = (),
    seed: int = 0,
    **sections: Any,
) -> Iterator[Scene]:
    """A scene with everything on: a sandbox of its own, a bucket of its own on `server`, the sheet at once.

    `seed`: for the faults' probabilities. `sections` change the configuration. The daemon is not started; it is gone at
    the end.
    """
    settings = SandboxSettings(
        portal=portal or PortalSettings(verdict_delay=0.1),
        sheets=SheetsSettings(writes_per_minute=1_000_000, reads_per_minute=1_000_000),
        faults=tuple(faults),
        seed=seed,
    )
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    server.client().create_bucket(Bucket=bucket)
    with Sandbox(settings) as sandbox:
        integrations: dict[str, Any] = {
            "s3": {
                "enabled": True,
                "endpoint_url": server.url,
                "bucket": bucket,
                "prefix": PREFIX,
                "access_key": ACCESS_KEY,
                "secret_key": SECRET_KEY,
            },
            "sheets": {
                "enabled": True,
                "spreadsheet_id": sandbox.spreadsheet_id,
                "service_account_json": json.dumps(sandbox.service_account()),
                "api_base_url": sandbox.url,
                "batch_seconds": 0.2,
            },
        }
        changed: dict[str, Any] = {"integrations": integrations}
        merge(changed, sections)
        made = Scene(Spool(home, sandbox.url, sandbox.api_key, **changed), sandbox, server, bucket)
        try:
            yield made
        finally:
            made.spool.kill()
            _remove_bucket(server, bucket)


def _remove_bucket(server: S3Server, bucket: str) -> None:
    """Hundreds of scenes share a server: each bucket left there would keep volumes of its own."""
    client = server.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])
    client.delete_bucket(Bucket=bucket)
