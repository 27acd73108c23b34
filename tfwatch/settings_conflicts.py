"""Values that are valid alone and contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tfwatch import settings_values as values
from tfwatch.config import Config, Integrations, S3Settings, SheetsSettings, WebSettings
from tfwatch.language import tr
from tfwatch.model import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Valid values that can't stand together. `about`: every dotted key it was concluded from."""

    key: str
    message: str
    hint: str
    about: tuple[str, ...]


def conflicts(config: Config) -> Iterator[Conflict]:
    """Every contradiction between sections or keys, in the order of the file."""
    if config.integrations.gotranscript.enabled:
        yield from _gotranscript_conflicts(config.integrations)
    if config.integrations.s3.enabled:
        yield from _s3_conflicts(config.integrations.s3)
    if config.integrations.sheets.enabled:
        yield from _sheets_conflicts(config.integrations.sheets)
    if config.web.enabled:
        yield from _web_conflicts(config.web)


def _gotranscript_conflicts(integrations: Integrations) -> Iterator[Conflict]:
    section, gotranscript = "integrations.gotranscript", integrations.gotranscript

    def conflict(key: str, message: str, hint: str, *about: str) -> Conflict:
        keys = (f"{section}.enabled", f"{section}.{key}", *about)
        return Conflict(key=f"{section}.{key}", message=message, hint=hint, about=keys)

    if gotranscript.base_url is None:
        yield conflict("base_url", tr("needed while the integration is enabled"), tr("set it or enabled: false"))
    if gotranscript.retry.max_seconds < gotranscript.retry.initial_seconds:
        yield conflict(
            "retry.max_seconds", tr("must not be less than initial_seconds"), tr("raise it"), f"{section}.retry"
        )
    if gotranscript.when_disabled == "backup" and not integrations.s3.enabled:
        hint = tr("set up integrations.s3 with enabled: true, or when_disabled: hold")
        yield conflict("when_disabled", tr("backup needs integrations.s3"), hint, "integrations.s3.enabled")
    if gotranscript.profile is not Profile.GOTRANSCRIPT_V4:
        return
    profile = f"{section}.profile"
    if not integrations.s3.enabled:
        hint = tr("set up integrations.s3 with enabled: true, or profile: deliveries")
        message = tr("gotranscript-v4 needs integrations.s3: the service fetches the package from there")
        yield conflict("profile", message, hint, "integrations.s3.enabled")
    if gotranscript.language is None:
        yield conflict(
            "language", tr("needed by profile gotranscript-v4"), tr("set the language of the recordings"), profile
        )
    if gotranscript.on_unknown_outcome != "ask":
        message = tr(
            "{value} can't be used with profile gotranscript-v4: the service has neither idempotency keys nor a "
            "lookup, and a second order costs money",
            value=gotranscript.on_unknown_outcome,
        )
        yield conflict("on_unknown_outcome", message, tr("set it to ask, or remove the line"), profile)


def _s3_conflicts(s3: S3Settings) -> Iterator[Conflict]:
    section = "integrations.s3"
    if not s3.bucket:
        yield Conflict(
            key=f"{section}.bucket",
            message=tr("needed while s3 is enabled"),
            hint=tr("set it or enabled: false"),
            about=(f"{section}.enabled", f"{section}.bucket"),
        )
    if (s3.access_key is None) != (s3.secret_key is None):
        missing, given = ("secret_key", "access_key") if s3.secret_key is None else ("access_key", "secret_key")
        yield Conflict(
            key=f"{section}.{missing}",
            message=tr("needed beside {key}", key=given),
            hint=tr("set both, or neither to use the machine's own credentials"),
            about=tuple(f"{section}.{key}{suffix}" for key in (missing, given) for suffix in ("", "_file")),
        )


def _sheets_conflicts(sheets: SheetsSettings) -> Iterator[Conflict]:
    section = "integrations.sheets"
    for key, missing in (
        ("spreadsheet_id", not sheets.spreadsheet_id),
        ("service_account_json", sheets.service_account_json is None),
    ):
        if missing:
            yield Conflict(
                key=f"{section}.{key}",
                message=tr("needed while sheets is enabled"),
                hint=tr("set it or enabled: false"),
                about=(f"{section}.enabled", f"{section}.{key}", f"{section}.{key}_file"),
            )


def _web_conflicts(web: WebSettings) -> Iterator[Conflict]:
    needed = {"expose: true": web.expose, "token_file": web.token is not None}
    missing = [key for key, is_set in needed.items() if not is_set]
    if missing and not values.is_loopback(web.host):
        yield Conflict(
            key="web.host",
            message=tr("other machines could read the page, so it needs both web.expose: true and web.token"),
            hint=tr("set {keys}, or host: 127.0.0.1", keys=tr(" and ").join(f"web.{key}" for key in missing)),
            about=("web.enabled", "web.host", "web.expose", "web.token", "web.token_file"),
        )
