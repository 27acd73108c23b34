"""A boto3 client that tries once, reads nobody else's settings and sends what every S3-compatible server takes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import boto3
import botocore.session
from botocore.config import Config

from tfwatch import __version__
from tfwatch.adapters.s3_body import Body

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


_CONNECT_SECONDS: Final = 5.0

# $AWS_ENDPOINT_URL and the like must not send backups elsewhere; boto3-stubs lack this option.
_UNKNOWN_TO_STUBS: Final[dict[str, Any]] = {"ignore_configured_endpoint_urls": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Where backups go and with which key.

    `endpoint_url` None: Amazon. Both keys None: boto3 finds credentials by itself (a role, a profile).
    `prefix` bounds `abort_abandoned`; keys come whole from the caller. `part_size_mib`: 5 to 5120, and the largest
    object sent in one request. `workers`: threads that will call `store` at once. `verify`: a CA bundle's path,
    or True for the machine's own. `timeout_seconds`: how long to wait for each piece of an answer.
    """

    bucket: str
    endpoint_url: str | None = None
    region: str = "us-east-1"
    prefix: str = ""
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    part_size_mib: int = 16
    workers: int = 2
    verify: str | bool = True
    timeout_seconds: float = 30.0


def make_client(settings: S3Settings) -> S3Client:
    """A thread-safe client whose uploads tell their `Body` when sending begins. Makes no request."""
    plain_http = (settings.endpoint_url or "").startswith("http://")
    config = Config(
        signature_version="s3v4",
        s3={
            "addressing_style": "path" if settings.endpoint_url else "auto",
            # Over TLS the checksum header vouches for the body, as in boto3's own uploads; this saves one reading.
            "payload_signing_enabled": plain_http,
        },
        # One try: `_call` is the owner of retries.
        retries={"total_max_attempts": 1},
        # Some S3-compatible servers refuse the checksum trailers that boto3 adds by default since 1.36.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=min(_CONNECT_SECONDS, settings.timeout_seconds),
        read_timeout=settings.timeout_seconds,
        max_pool_connections=settings.workers,
        # Ours are typed; to look through them each time takes a twentieth of a small request's CPU.
        parameter_validation=False,
        # boto3's own takes a twelfth of a small request's CPU to put together, each time, and tells of this machine.
        user_agent=f"tfwatch/{__version__}",
        **_UNKNOWN_TO_STUBS,
    )
    client: S3Client = _session(settings).client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        verify=settings.verify,
        config=config,
    )
    client.meta.events.register("before-send.s3", _mark_sending)
    return client


def _session(settings: S3Settings) -> boto3.Session:
    if settings.access_key is None:
        return boto3.Session()
    # With keys of our own nothing of this user's ~/.aws may be read: a stray profile would change where we send.
    core = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    return boto3.Session(
        aws_access_key_id=settings.access_key, aws_secret_access_key=settings.secret_key, botocore_session=core
    )


def _mark_sending(request: Any, **_: object) -> None:
    """botocore calls this after signing, right before a request leaves."""
    if isinstance(request.body, Body):
        request.body.sending()
