"""The script that people write next: watchfiles, httpx, boto3. One ZIP at a time, nothing synced or tried again."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import boto3
import httpx
from botocore.config import Config
from watchfiles import watch

_OUTBOX, _SUBMITTED, _DELIVERED = (Path(os.environ[name]) for name in ("OUTBOX", "SUBMITTED", "DELIVERED"))
_BUCKET = os.environ["BUCKET"]


def main() -> None:
    """Deliver what comes, until killed."""
    storage = boto3.client(
        "s3",
        endpoint_url=os.environ["ENDPOINT"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
    with httpx.Client(base_url=os.environ["PORTAL"], headers=headers, timeout=30) as portal:
        is_ready = False
        for changes in watch(_OUTBOX, yield_on_timeout=True, rust_timeout=50):
            if not is_ready:
                print("ready", file=sys.stderr, flush=True)
                is_ready = True
            for path in sorted({Path(path) for _, path in changes}):
                if path.suffix == ".zip" and path.exists():
                    _deliver(path, portal, storage)
                    print(path.name, flush=True)


def _deliver(path: Path, portal: httpx.Client, storage: boto3.client) -> None:
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    fields = {"job_id": path.stem, "version": "1", "sha256": sha256, "client_reference": sha256}
    fields["meta[trace_id]"] = sha256[:32]
    files = {"package": (path.name, content, "application/zip")}
    headers = {"Idempotency-Key": f'"{sha256}"'}
    order = portal.post("/deliveries", headers=headers, data=fields, files=files).raise_for_status().json()["id"]
    submitted = path.rename(_SUBMITTED / path.name)
    assert portal.get(f"/deliveries/{order}").raise_for_status().json()["status"] == "completed"
    submitted.rename(_DELIVERED / path.name)
    storage.put_object(Bucket=_BUCKET, Key=f"watchfiles/{path.name}", Body=content)


if __name__ == "__main__":
    main()
