"""The configuration in force, connected: config.yaml → adapters and policy. The only importer of adapters."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loguru import logger

from tfwatch import language, local_time
from tfwatch.config import Config, WebhookSettings, WebSettings, changed_sections, needs_restart
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Setting, Switch
from tfwatch.delivery.wiring import Policy, Wiring
from tfwatch.errors import ServiceError
from tfwatch.look import Settings
from tfwatch.model import Integration
from tfwatch.observe.alerting import Settings as AlertSettings
from tfwatch.observe.limits import Limits as AlertLimits
from tfwatch.observe.logs import set_up
from tfwatch.ports import AlertPort, BackupStoragePort, SheetPort, TranscriptionPort
from tfwatch.settings_file import Loaded, load
from tfwatch.settings_problems import ConfigError
from tfwatch.spool.intake import Limits
from tfwatch.web.callers import Terms
from tfwatch.web.site import Serving


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ports:
    transcription: TranscriptionPort | None
    storage: BackupStoragePort | None
    sheet: SheetPort | None


class LiveConfiguration:
    """config.yaml as it is now, connected. A changed file is taken over as a whole, or not at all.

    Making one raises `ServiceError` for credentials that can't be read.
    """

    def __init__(self, loaded: Loaded, environ: Mapping[str, str], exec_id: str, stop: threading.Event) -> None:
        self._stop = stop
        self._environ = environ
        self._exec_id = exec_id
        self._loaded = loaded
        self._seen = {file: _look(file) for file in loaded.files}
        if self._changed_meanwhile():
            # Since it was loaded the daemon may have waited for room on the disk: the first pass reads it again.
            self._seen = dict.fromkeys(loaded.files)
        self._ports = _connect(loaded.config, frozenset(), None, stop)
        self._wiring = _wire(loaded.config, self._ports)
        self.problems: tuple[str, ...] = ()

    @property
    def wiring(self) -> Wiring:
        """The services and settings in force."""
        return self._wiring

    @property
    def config(self) -> Config:
        """The settings in force, for whoever is composed with a section of them."""
        return self._loaded.config

    def seen(self) -> Settings:
        """The same as commands see it."""
        return Settings(path=self._loaded.path, config=self._loaded.config, sources=self._loaded.sources)

    @property
    def workers(self) -> int:
        """Submissions in flight."""
        return self._loaded.config.integrations.gotranscript.workers

    @property
    def backup_workers(self) -> int:
        """Backups in flight."""
        return self._loaded.config.integrations.s3.workers

    def changed(self) -> bool:
        """Whether a file the configuration was read from has changed since it was last read."""
        return any(_look(file) != seen for file, seen in self._seen.items())

    def reload(self) -> bool:
        """Read it again; false when it has problems: they are logged, and the old one stays in force."""
        # Looked at before they are read: what is written meanwhile must count as changed.
        looks = {file: _look(file) for file in self._seen}
        try:
            loaded = load(self._loaded.path, environ=self._environ)
        except ConfigError as error:
            self._remember(looks, error.files or tuple(looks))
            self._refuse(tuple(str(problem) for problem in error.problems))
            return False
        self._remember(looks, loaded.files)
        if fixed := needs_restart(self._loaded.config, loaded.config):
            self._refuse(fixed)
            return False
        for warning in loaded.warnings:
            logger.warning("{}", warning)
        before, now = self._loaded.config, loaded.config
        if before.logging != now.logging:
            set_up(now.logging.level, now.logging.format, exec_id=self._exec_id, environ=self._environ)
        # The old clients are not closed: lanes may be in the middle of a call. They go when the last call does.
        try:
            self._ports = _connect(now, changed_sections(before, now), self._ports, self._stop)
        except ServiceError as error:
            self._refuse((f"{error}; {error.hint}",))
            return False
        self._loaded, self._wiring = loaded, _wire(now, self._ports)
        speak(now)
        self.problems = ()
        return True

    def configure(self, switches: dict[Integration, Switch], desk: Desk, rollback: Rollback) -> None:
        """Tell each switch and the rollback what the configuration says."""
        integrations, sources = self._loaded.config.integrations, self._loaded.sources
        rollback.configure(integrations.gotranscript.rollback_after)
        for integration, switch in switches.items():
            section = getattr(integrations, integration.value)
            missing = integrations.gotranscript.held_because if integration is Integration.GOTRANSCRIPT else None
            setting = Setting(
                enabled=section.enabled,
                source=sources.get(f"integrations.{integration.value}.enabled", "default"),
                missing=missing or "",
            )
            probing = integration is Integration.GOTRANSCRIPT and integrations.gotranscript.resume == "probe"
            switch.configure(setting, desk, probing=probing)

    def close(self) -> None:
        """Let go of all connections."""
        for port in (self._ports.transcription, self._ports.storage, self._ports.sheet):
            if port is not None:
                port.close()

    def _changed_meanwhile(self) -> bool:
        try:
            return load(self._loaded.path, environ=self._environ).config != self._loaded.config
        except ConfigError:
            return True

    def _remember(self, looks: Mapping[str, object], files: tuple[str, ...]) -> None:
        self._seen = {file: looks[file] if file in looks else _look(file) for file in files}

    def _refuse(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        for problem in problems:
            logger.error("{}", problem)


def speak(config: Config) -> None:
    """Texts for people, made from now on, are in the language and the time zone that the settings name."""
    language.use(config.language)
    local_time.use(config.timezone)


def _look(file: str) -> object:
    """What changes whenever the file does; None while there is none."""
    try:
        info = os.stat(file)
    except OSError:
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _connect(config: Config, changed: frozenset[str], before: _Ports | None, stop: threading.Event) -> _Ports:
    """Clients for what is on; those whose section didn't change are kept."""

    def keep(section: str) -> bool:
        return before is not None and f"integrations.{section}" not in changed

    return _Ports(
        transcription=before.transcription if before and keep("gotranscript") else connect_gotranscript(config),
        storage=before.storage if before and keep("s3") else connect_s3(config),
        sheet=before.sheet if before and keep("sheets") else connect_sheets(config, stop),
    )


def connect_gotranscript(config: Config, *, most_seconds: float = math.inf) -> TranscriptionPort | None:
    """The transcription service; None when it is off or has no API key. Makes no request.

    `most_seconds`: no single answer is waited for longer, here and below, whatever the settings allow.
    """
    section = config.integrations.gotranscript
    if not section.enabled or section.base_url is None or section.api_key is None:
        return None
    # An integration that is off is not even imported: an idle daemon stays small.
    from tfwatch.adapters import gotranscript

    return gotranscript.connect(
        gotranscript.GotranscriptSettings(
            profile=section.profile,
            base_url=section.base_url,
            api_key=section.api_key.get_secret_value(),
            timeout_seconds=min(section.timeout_seconds, most_seconds),
            attempts=section.retry.attempts,
            initial_seconds=section.retry.initial_seconds,
            max_seconds=section.retry.max_seconds,
            on_unknown=section.on_unknown_outcome,
            max_connections=section.workers + 4,
            mode=section.mode,
            language=section.language,
            callback_url=section.callback_url.get_secret_value() if section.callback_url else None,
        )
    )


def connect_s3(config: Config, *, most_seconds: float = 30.0) -> BackupStoragePort | None:
    """The storage for backups; None when it is off. Makes no request."""
    section = config.integrations.s3
    if not section.enabled:
        return None
    from tfwatch.adapters import s3
    from tfwatch.adapters.s3_client import S3Settings

    return s3.connect(
        S3Settings(
            endpoint_url=section.endpoint_url,
            region=section.region,
            bucket=section.bucket,
            prefix=section.prefix,
            access_key=section.access_key.get_secret_value() if section.access_key else None,
            secret_key=section.secret_key.get_secret_value() if section.secret_key else None,
            part_size_mib=section.part_size_mib,
            workers=section.workers,
            timeout_seconds=most_seconds,
        )
    )


def connect_sheets(config: Config, stop: threading.Event, *, most_seconds: float = 60.0) -> SheetPort | None:
    """The sheet; None when it is off. Makes no request; raises `ServiceError` for an unreadable service account."""
    section = config.integrations.sheets
    if not section.enabled or section.service_account_json is None:
        return None
    from tfwatch.adapters import sheets
    from tfwatch.ledger.rows import COLUMNS

    settings = sheets.SheetsSettings(
        spreadsheet_id=section.spreadsheet_id,
        worksheet=section.worksheet,
        service_account_json=section.service_account_json.get_secret_value(),
        api_base_url=section.api_base_url,
        timeout_seconds=most_seconds,
    )
    return sheets.connect(settings, header=COLUMNS, clock=time.monotonic, sleep=stop.wait)


def serving(web: WebSettings) -> Serving:
    """Where the web server listens and whom it answers."""
    return Serving(
        enabled=web.enabled,
        host=web.host,
        port=web.port,
        is_exposed=web.expose and web.token is not None,
        token=web.token.get_secret_value() if web.token else "",
        hosts=frozenset(web.hosts),
        requests_per_second=web.requests_per_second,
    )


def terms(webhooks: WebhookSettings) -> Terms:
    """Who may call in, and with secrets how old."""
    return Terms(
        secrets_file=webhooks.secrets_file,
        max_secret_age_days=webhooks.max_secret_age_days,
        tolerance_seconds=webhooks.tolerance_seconds,
    )


def _wire(config: Config, ports: _Ports) -> Wiring:
    gotranscript, sheets = config.integrations.gotranscript, config.integrations.sheets
    return Wiring(
        policy=Policy(
            verify=config.intake.verify,
            duplicates=config.intake.duplicates,
            limits=Limits(
                max_bytes=config.intake.max_bytes,
                max_entries=config.intake.max_entries,
                max_uncompressed_bytes=config.intake.max_uncompressed_bytes,
            ),
            on_unknown=gotranscript.on_unknown_outcome,
            when_disabled=gotranscript.when_disabled,
            timeout_seconds=gotranscript.timeout_seconds,
            poll_seconds=gotranscript.poll_seconds,
            s3_prefix=config.integrations.s3.prefix,
            batch_seconds=sheets.batch_seconds,
            batch_rows=sheets.batch_rows,
            settle_seconds=config.spool.settle_seconds,
            rescan_seconds=config.spool.rescan_seconds,
            incomplete_timeout_seconds=config.spool.incomplete_timeout_seconds,
            min_free_bytes=config.spool.min_free_bytes,
            watch=config.spool.watch,
            delivered_days=config.retention.delivered_days,
            rejected_days=config.retention.rejected_days,
        ),
        transcription=ports.transcription,
        storage=ports.storage,
        sheet=ports.sheet,
        sheet_name=sheets.cursor_name,
    )


def alert_settings(config: Config) -> AlertSettings:
    """Whom to tell of what goes wrong, and from which figures on."""
    alerts = config.alerts
    return AlertSettings(
        urls=tuple(url.get_secret_value() for url in alerts.urls),
        include_names=alerts.include_names,
        limits=AlertLimits(
            backup_success_rate_min=alerts.backup_success_rate_min,
            delivery_success_rate_min=alerts.delivery_success_rate_min,
            avg_delivery_latency_ms_max=alerts.avg_delivery_latency_ms_max,
            oldest_package_minutes=alerts.oldest_package_minutes,
        ),
    )


def connect_alerts(urls: tuple[str, ...]) -> tuple[Sequence[AlertPort], Sequence[str]]:
    """A port for each address, and a sentence on each that can't be used. Makes no request.

    Raises `ServiceError` when what speaks to them is not installed.
    """
    try:
        from tfwatch.adapters import alerts
    except ImportError as error:
        hint = "install it, then restart tfwatch: pip install 'tfwatch[alerts]'"
        raise ServiceError("alerts.urls is set, but apprise is not installed", hint=hint) from error
    return alerts.connect(urls)
