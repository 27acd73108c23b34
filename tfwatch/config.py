"""What an operator can set, as frozen types with every default; `load` in `settings_file` fills them. No I/O.

A value that is wrong by itself is refused by its field. Values that only contradict each other are listed by
`conflicts`, so that a file with a wrong value still shows these too. Messages never quote a value: it may be a
secret in the wrong place.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from tfwatch import settings_values as values
from tfwatch.language import tr
from tfwatch.model import Profile

Seconds = Annotated[float, Field(gt=0, le=31_536_000)]
Workers = Annotated[int, Field(ge=1, le=64)]
Rate = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=1, le=36_500)]
Size = Annotated[int, BeforeValidator(values.size), Field(ge=0, le=2**63 - 1)]
Url = Annotated[str, AfterValidator(values.url)]
Line = Annotated[str, AfterValidator(values.line)]
Secret = Annotated[
    SecretStr | None, BeforeValidator(values.empty_is_none), AfterValidator(values.secret(values.secret_token))
]
ServiceAccount = Annotated[
    SecretStr | None, BeforeValidator(values.empty_is_none), AfterValidator(values.secret(values.service_account))
]
SecretUrl = Annotated[
    SecretStr | None, BeforeValidator(values.empty_is_none), AfterValidator(values.secret(values.callback_url))
]
WebToken = Annotated[
    SecretStr | None, BeforeValidator(values.empty_is_none), AfterValidator(values.secret(values.web_token))
]
HostName = Annotated[str, AfterValidator(values.host_name)]
AlertUrl = Annotated[SecretStr, AfterValidator(values.secret(values.alert_url))]


class Section(BaseModel):
    """One section of config.yaml: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False, validate_default=False
    )

    @model_validator(mode="before")
    @classmethod
    def _all_lines_commented_out(cls, value: Any) -> Any:
        return {} if value is None else value


class SpoolSettings(Section):
    """Where the folders are and when a file in them counts as finished. Sizes in bytes."""

    root: Annotated[str, AfterValidator(values.absolute_path)] = "/var/lib/tfwatch"
    settle_seconds: Annotated[float, Field(ge=0, le=86_400)] = 5
    rescan_seconds: Seconds = 60
    incomplete_timeout_seconds: Seconds = 900
    min_free_bytes: Size = 1024**3
    watch: Literal["auto", "inotify", "polling"] = "auto"


class IntakeSettings(Section):
    """What a ZIP must be like to be sent. Sizes in bytes."""

    verify: Literal["full", "structure"] = "full"
    duplicates: Literal["reject", "deliver"] = "reject"
    max_bytes: Annotated[Size, Field(ge=1)] = 50 * 1024**3
    max_entries: Annotated[int, Field(ge=1, le=2**32)] = 100_000
    max_uncompressed_bytes: Annotated[Size, Field(ge=1)] = 500 * 1024**3


class RetrySettings(Section):
    """HTTP tries within one delivery attempt, and the seconds between them."""

    attempts: Annotated[int, Field(ge=1, le=20)] = 4
    initial_seconds: Seconds = 0.5
    max_seconds: Seconds = 15


class GotranscriptSettings(Section):
    """The transcription service. `base_url` ends without a slash; None only while the integration is off."""

    enabled: bool = True
    profile: Annotated[Profile, Field(strict=False)] = Profile.DELIVERIES
    base_url: Url | None = None
    api_key: Secret = None
    api_key_file: Line | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    workers: Workers = 4
    poll_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    retry: RetrySettings = RetrySettings()
    rollback_after: Annotated[int, Field(ge=1, le=1000)] = 3
    resume: Literal["manual", "probe"] = "manual"
    when_disabled: Literal["hold", "backup"] = "hold"
    mode: Literal["test", "live"] = "test"
    language: Line | None = None
    callback_url: SecretUrl = None
    callback_url_file: Line | None = None
    on_unknown_outcome: Literal["retry", "lookup", "ask"] = "retry"

    @model_validator(mode="before")
    @classmethod
    def _ask_before_ordering_twice(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("profile") == Profile.GOTRANSCRIPT_V4:
            return {"on_unknown_outcome": "ask", **value}
        return value

    @property
    def held_because(self) -> str | None:
        """Why nothing can be sent though the settings are valid: no API key yet. None when one is there."""
        if self.api_key is not None:
            return None
        return tr(
            "no API key: set integrations.gotranscript.api_key_file, the variable GOTRANSCRIPT_API_KEY "
            "or the systemd credential gotranscript_api_key"
        )


class S3Settings(Section):
    """Where backups go. Both keys None: boto3 finds credentials by itself (a role, a profile)."""

    enabled: bool = False
    endpoint_url: Url | None = None
    region: Line = "us-east-1"
    bucket: Annotated[str, AfterValidator(values.bucket)] = ""
    prefix: Annotated[str, AfterValidator(values.key_prefix)] = ""
    access_key: Secret = None
    access_key_file: Line | None = None
    secret_key: Secret = None
    secret_key_file: Line | None = None
    part_size_mib: Annotated[int, Field(ge=5, le=5120)] = 16
    workers: Workers = 2


class SheetsSettings(Section):
    """The spreadsheet that shows the log. `service_account_json` holds the JSON itself, whatever way it came."""

    enabled: bool = False
    spreadsheet_id: Annotated[str, AfterValidator(values.spreadsheet_id)] = ""
    worksheet: Annotated[Line, Field(max_length=90)] = "log"
    service_account_json: ServiceAccount = None
    service_account_json_file: Line | None = None
    batch_seconds: Annotated[float, Field(gt=0, le=3600)] = 5
    batch_rows: Annotated[int, Field(ge=1, le=10_000)] = 2000
    api_base_url: Url | None = None

    @property
    def cursor_name(self) -> str:
        """What the index calls this sheet, to remember how far it shows the log."""
        place = "\n".join((self.spreadsheet_id, self.worksheet, self.api_base_url or ""))
        return hashlib.sha256(place.encode()).hexdigest()[:16]


class Integrations(Section):
    """The services outside."""

    gotranscript: GotranscriptSettings = GotranscriptSettings()
    s3: S3Settings = S3Settings()
    sheets: SheetsSettings = SheetsSettings()


class RetentionSettings(Section):
    """Days until a settled ZIP is removed; None keeps it for ever."""

    delivered_days: Days | None = None
    rejected_days: Days | None = None


class WebSettings(Section):
    """Where the status page, health, metrics and webhooks listen, and whom they answer."""

    enabled: bool = True
    host: Annotated[Line, AfterValidator(values.host)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8787
    expose: bool = False
    token: WebToken = None
    token_file: Line | None = None
    hosts: Annotated[tuple[HostName, ...], Field(strict=False)] = ()
    requests_per_second: Annotated[float, Field(ge=1, le=10_000)] = 50


class WebhookSettings(Section):
    """Who may call in. After `load`, `secrets_file` is an absolute path."""

    secrets_file: Line = "webhook_integrations.json"
    max_secret_age_days: Days = 90
    tolerance_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300


class AlertSettings(Section):
    """Whom to tell, and from which figures on. `urls` hold tokens, so they are secrets."""

    urls: Annotated[tuple[AlertUrl, ...], Field(strict=False)] = ()
    urls_file: Line | None = None
    backup_success_rate_min: Rate = 0.95
    delivery_success_rate_min: Rate = 0.99
    avg_delivery_latency_ms_max: Annotated[float, Field(gt=0, le=86_400_000)] = 2000
    oldest_package_minutes: Annotated[float, Field(gt=0, le=525_600)] = 60
    include_names: bool = True


class LoggingSettings(Section):
    """How much is said, and in which shape: `auto` is the journal under systemd, else readable text."""

    level: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(values.upper)
    ] = "INFO"
    format: Literal["auto", "json"] = "auto"


class Config(Section):
    """Everything an operator can set: one immutable, valid whole. Two of them compare by value."""

    spool: SpoolSettings = SpoolSettings()
    intake: IntakeSettings = IntakeSettings()
    integrations: Integrations = Integrations()
    retention: RetentionSettings = RetentionSettings()
    web: WebSettings = WebSettings()
    webhooks: WebhookSettings = WebhookSettings()
    alerts: AlertSettings = AlertSettings()
    language: Literal["en", "pt-BR"] = "en"
    timezone: Annotated[str, AfterValidator(values.timezone)] = "local"
    logging: LoggingSettings = LoggingSettings()


# --- what a reload means --------------------------------------------------------------------------------------------


def changed_sections(old: Config, new: Config) -> frozenset[str]:
    """Names of the sections that differ: `spool`, `integrations.s3`, `language`, …"""
    top = {name for name in Config.model_fields if name != "integrations" and getattr(old, name) != getattr(new, name)}
    inner = {
        f"integrations.{name}"
        for name in Integrations.model_fields
        if getattr(old.integrations, name) != getattr(new.integrations, name)
    }
    return frozenset(top | inner)


def needs_restart(old: Config, new: Config) -> tuple[str, ...]:
    """Sentences on changes that a running daemon can't take up; empty when `new` can be applied at once."""
    if old.spool.root == new.spool.root:
        return ()
    return (
        tr(
            "spool.root: can't change from {before} to {after} while running; systemctl restart tfwatch, or put the "
            "old value back",
            before=old.spool.root,
            after=new.spool.root,
        ),
    )
