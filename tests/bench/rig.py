"""What every benchmark stands on: a folder on a real disk, services in processes of their own, a real daemon."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support import s3_servers
from tests.support.daemon import Spool, spool, wait_until

API_KEY = "bench-key"
HOMES = Path("/var/tmp")
"""On a disk, where /tmp may be memory: there, making something durable costs nothing."""


class Portal:
    """A sandbox in its own process, seen through its control API."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self._client = client

    def orders(self, first: int = 0) -> list[dict[str, Any]]:
        """The orders it has opened, in that sequence, from the `first` on."""
        answer = self._client.get("/_sandbox/orders", params={"offset": first}).raise_for_status()
        orders: list[dict[str, Any]] = answer.json()["orders"]
        return orders

    def sheets(self, *, values: bool = False) -> dict[str, Any]:
        """Its spreadsheet, and how many reads, writes and refused calls there were; `values`: with the cells."""
        answer = self._client.get("/_sandbox/sheets", params={"values": "true" if values else "false"})
        shown: dict[str, Any] = answer.raise_for_status().json()
        return shown

    def service_account(self) -> dict[str, str]:
        """A login that its Sheets service takes."""
        account: dict[str, str] = self._client.get("/_sandbox/service-account").raise_for_status().json()
        return account

    def reset(self) -> None:
        """Forget all orders."""
        self._client.post("/_sandbox/reset").raise_for_status()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """Where a benchmark works, and how long it may take: `quick` asks for a short run."""

    home: Path
    quick: bool

    @property
    def repeats(self) -> int:
        """How often a measurement is made; its median counts."""
        return 1 if self.quick else 3

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A new folder of that name, gone afterwards."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.home))
        try:
            yield path
        finally:
            shutil.rmtree(path)

    @contextmanager
    def portal(self, **settings: Any) -> Iterator[Portal]:
        """A portal in a process of its own; `settings` as in the sandbox's `PortalSettings`."""
        with self.folder("portal") as folder:
            ready = folder / "ready.json"
            (folder / "settings.json").write_text(json.dumps({"portal": {"api_key": API_KEY} | settings}))
            command = ["--settings", str(folder / "settings.json"), "--ready-file", str(ready)]
            with (folder / "portal.log").open("wb") as log:
                process = subprocess.Popen([sys.executable, "-m", "tfwatch.sandbox", *command], stdout=log, stderr=log)
            try:
                wait_until(ready.exists, "the portal serves")
                url = json.loads(ready.read_text())["url"]
                with httpx.Client(base_url=url, timeout=60) as client:
                    yield Portal(url, client)
            finally:
                process.kill()
                process.wait()

    @contextmanager
    def spool(self, portal: Portal, **sections: Any) -> Iterator[Spool]:
        """A spool with the defaults that a user gets, unless `sections` say otherwise; its daemon is not started."""
        defaults: dict[str, Any] = {
            "spool": {"rescan_seconds": 60},
            "integrations": {"gotranscript": {"poll_seconds": 30, "timeout_seconds": 60}},
        }
        with self.folder("spool") as home, spool(home, portal.url, API_KEY, **defaults) as made:
            made.configure(**sections)
            yield made

    @contextmanager
    def bucket(self, name: str) -> Iterator[Mapping[str, Any]]:
        """An empty bucket in a real S3 server: the settings of `integrations.s3`. Its objects are gone afterwards."""
        server = s3_servers.seaweed("http")
        client = server.client()
        client.create_bucket(Bucket=name)
        try:
            yield {
                "enabled": True,
                "endpoint_url": server.url,
                "bucket": name,
                "access_key": s3_servers.ACCESS_KEY,
                "secret_key": s3_servers.SECRET_KEY,
            }
        finally:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
                for found in page.get("Contents", ()):
                    client.delete_object(Bucket=name, Key=found["Key"])
            client.delete_bucket(Bucket=name)
            client.close()
