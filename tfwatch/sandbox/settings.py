"""How the sandbox behaves when nothing is wrong. All times are seconds, all sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter

from tfwatch.sandbox.faults import Fault

_FORBID = ConfigDict(extra="forbid")


class VerdictWhen(StrEnum):
    """When the portal makes up its mind about an order."""

    DELAYED = "delayed"
    IMMEDIATE = "immediate"
    NEVER = "never"


class CallbackScheme(StrEnum):
    """How the portal signs its callbacks: Standard Webhooks 1.0, or the older `X-Signature` headers."""

    STANDARD = "standard"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalSettings:
    """The transcription portal, both profiles.

    `work_seconds`: between the last byte of a POST and its order. `reject_pattern`: a regular expression looked for
    in the job id; empty rejects nothing. `callback_url`, `callback_secret`: where the verdicts of profile
    `deliveries` go (loopback only); a v4 order brings its own URL. `wallet`: what live v4 orders are paid from.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    api_key: str = field(default="sandbox-key", repr=False)
    idempotency: bool = True
    lookup: bool = True
    verdict: VerdictWhen = VerdictWhen.DELAYED
    verdict_delay: float = 2.0
    work_seconds: float = 0.0
    accepted_status: int = 201
    accepted_word: str = "received"
    completed_word: str = "completed"
    rejected_word: str = "rejected"
    reject_pattern: str = "reject"
    max_orders: int = 500_000
    callback_url: str | None = None
    callback_secret: str | None = field(default=None, repr=False)
    callback_scheme: CallbackScheme = CallbackScheme.STANDARD
    callback_attempts: int = 5
    v4_callback_attempts: int = 10
    callback_retry_seconds: float = 0.5
    integration_id: str = "gotranscript"
    fetch_max_bytes: int = 50 * 2**30
    fetch_timeout: float = 120.0
    wallet: float = 1_000_000.0
    price: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetsSettings:
    """The Sheets service and its token endpoint.

    Quotas are requests a minute and user; Google's own are 60 and 60 (developers.google.com/sheets/api/limits).
    """

    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    spreadsheet_id: str = "sandbox-spreadsheet"
    title: str = "tfwatch sandbox"
    writes_per_minute: int = 60
    reads_per_minute: int = 60
    token_expires_in: int = 3600
    max_cells: int = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSettings:
    """One sandbox: where it listens (loopback only; port 0 takes a free one) and how it behaves at first.

    `service_account`: a service account's JSON to trust, as `make_service_account` builds it; None makes a new one
    when it is first asked for. `seed`: for the faults' probabilities.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 0
    portal: PortalSettings = PortalSettings()
    sheets: SheetsSettings = SheetsSettings()
    faults: tuple[Fault, ...] = ()
    service_account: dict[str, str] | None = field(default=None, repr=False)


_Settings = TypeVar("_Settings", PortalSettings, SheetsSettings)


def changed(settings: _Settings, changes: Mapping[str, object]) -> _Settings:
    """The same settings with some values changed; raises `pydantic.ValidationError` for unknown keys and bad values."""
    return TypeAdapter(type(settings)).validate_python({**asdict(settings), **changes})


def parse_settings(text: str | bytes) -> SandboxSettings:
    """Read whole settings from JSON; what isn't named keeps its default. Raises `pydantic.ValidationError`."""
    return TypeAdapter(SandboxSettings).validate_json(text)
