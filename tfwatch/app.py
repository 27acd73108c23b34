"""The composition root: one run of the daemon, from its configuration to its exit code."""

from __future__ import annotations

import os
import secrets
import socket
import string
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Final

from loguru import logger

from tfwatch import __version__, disk, language
from tfwatch.config import Config
from tfwatch.connections import LiveConfiguration, alert_settings, connect_alerts, serving, speak, terms
from tfwatch.daemon import Companion, Daemon
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.retention import Retention
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.webhooks import TakeWebhook
from tfwatch.errors import ServiceError
from tfwatch.housekeeping import Housekeeping
from tfwatch.language import tr
from tfwatch.ledger.index import Index, IndexUnwritable
from tfwatch.ledger.log import Log, LogDamaged, Position, read_log
from tfwatch.model import Actor, DeliveryRecord, Event, Fact, Integration, write_detail
from tfwatch.observe.alerting import Alerts
from tfwatch.observe.alerts import Condition
from tfwatch.observe.conditions import Conditions, no_room_to_start, of_room
from tfwatch.observe.conditions_beside import of_lanes, of_retention, of_web_server, of_webhooks
from tfwatch.observe.figures_file import FiguresFile
from tfwatch.observe.health import Health
from tfwatch.observe.logs import set_up
from tfwatch.observe.metrics import snapshot_metrics
from tfwatch.observe.notice import notifier, status, watchdog_seconds
from tfwatch.observe.present import Inside
from tfwatch.settings_file import Loaded, language_of, load
from tfwatch.settings_problems import ConfigError
from tfwatch.spool import lock
from tfwatch.spool.folders import Folders, SpoolUnusable
from tfwatch.web.callers import Callers
from tfwatch.web.server import WebServer
from tfwatch.web.sight import Sight
from tfwatch.web.site import Site

EXIT_FINE: Final = 0
EXIT_PROBLEM: Final = 1
EXIT_LOCKED: Final = 75
EXIT_CONFIG: Final = 78

_REPLAY_ROWS: Final = 5000
_LONG_BYTES: Final = 1 << 20
_ROOM_SECONDS: Final = 1.0


def run(config_path: str, environ: Mapping[str, str]) -> int:
    """Run the daemon in the foreground until it is told to stop; returns the exit code."""
    exec_id = new_exec_id(datetime.now(UTC))
    language.use(language_of(config_path))
    try:
        loaded = load(config_path, environ=environ)
    except ConfigError as error:
        set_up("INFO", "auto", exec_id=exec_id, environ=environ)
        for problem in error.problems:
            logger.error("{}", problem)
        logger.error("nothing was started: {} problem(s) in the configuration", len(error.problems))
        more = f" (+{len(error.problems) - 1})" if len(error.problems) > 1 else ""
        return _ended(EXIT_CONFIG, f"{error.problems[0]}{more}", environ)
    config = loaded.config
    speak(config)
    set_up(config.logging.level, config.logging.format, exec_id=exec_id, environ=environ)
    for warning in loaded.warnings:
        logger.warning("{}", warning)
    folders = Folders(config.spool.root)
    health = Health(
        folders, exec_id=exec_id, version=__version__, notify=notifier(environ),
        watchdog_seconds=watchdog_seconds(environ),
    )  # fmt: skip
    try:
        with closing(_alerts(folders, config)) as alerts:
            _wait_for_room(folders, health, alerts)
            folders.prepare()
            with lock.hold(folders.lock):
                folders.tidy()
                folders.prove()
                return _run_locked(folders, loaded, exec_id, environ, health, alerts)
    except SpoolUnusable as error:
        logger.error("{}", error)
        return _ended(EXIT_CONFIG, error, environ)
    except ServiceError as error:
        logger.error("{}; {}", error, error.hint)
        return _ended(EXIT_CONFIG, f"{error}; {error.hint}", environ)
    except lock.Locked as error:
        logger.error("{}", error)
        return _ended(EXIT_LOCKED, error, environ)
    except LogDamaged as error:
        logger.critical("{}", error)
        return _ended(EXIT_PROBLEM, error, environ)
    except Exception as error:
        words = disk.told(error)
        if words is None:
            raise
        logger.critical("stopping: {}", words)
        logger.opt(exception=error).debug("it happened here")
        return _ended(EXIT_PROBLEM, words, environ)


def _ended(code: int, why: object, environ: Mapping[str, str]) -> int:
    """The exit code. What it is for stays in the status line, which people may read who may not read the journal."""
    notifier(environ)(status(str(why)))
    return code


def _alerts(folders: Folders, config: Config) -> Alerts:
    """Whoever tells people what goes wrong; begins as soon as there may be anything to tell."""
    return Alerts(folders, lambda: alert_settings(config), connect_alerts, host=socket.gethostname())


def _wait_for_room(folders: Folders, health: Health, alerts: Alerts) -> None:
    """Begin only when there is room for the log and its projection.

    Waiting is the way back to work: systemd gives up a service that fails at each of a few starts.
    """
    told = False
    while os.path.isdir(folders.root) and (shortage := folders.shortage(0)):
        health.starting(shortage)
        if not told:
            told = True
            # Of this start; the alert goes on if an earlier one met the same.
            logger.info("{}", tr("starting: {what}", what=shortage))
            alerts.watch(lambda going_on: no_room_to_start(folders), sees_all=False)
        time.sleep(_ROOM_SECONDS)


def new_exec_id(now: datetime) -> str:
    """The name of one run: `20251113T103533Z_MSJTU6`."""
    letters = "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(6))
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}_{letters}"


def _run_locked(
    folders: Folders, loaded: Loaded, exec_id: str, environ: Mapping[str, str], health: Health, alerts: Alerts
) -> int:
    stop = threading.Event()
    with closing(open_index(folders)) as index, closing(_open_log(folders, index, exec_id, stop, health)) as log:
        desk = Desk(folders, log, index, stopping=stop.is_set)
        alerts.watch(lambda going_on: of_room(desk), sees_all=False)
        _record_repairs(desk, cut_bytes=log.cut, torn_path=folders.torn(exec_id))
        switches = {integration: Switch(integration, index) for integration in Integration}
        threshold = loaded.config.integrations.gotranscript.rollback_after
        rollback = Rollback(desk, switches[Integration.GOTRANSCRIPT], threshold=threshold)
        with closing(LiveConfiguration(loaded, environ, exec_id, stop)) as configuration:
            daemon = Daemon(
                folders=folders,
                log=log,
                desk=desk,
                configuration=configuration,
                health=health,
                exec_id=exec_id,
                stop=stop,
                switches=switches,
                rollback=rollback,
                config_folder=os.path.dirname(loaded.path),
            )
            daemon.alerting = alerts
            figures = FiguresFile(folders, Inside(daemon), failed=daemon.fail)
            index.changed = figures.tell
            take = TakeWebhook(
                desk, log, daemon.workshop.told, apply=daemon.workshop.apply_told, failed=daemon.fail
            )  # fmt: skip
            daemon.companions = _accompany(
                daemon, configuration, figures, take, stop, alerts, is_watched=watchdog_seconds(environ) is not None
            )
            code = daemon.run()
            if code == EXIT_FINE:
                figures.write_now()  # what was put down at the stop
            return code


def _accompany(
    daemon: Daemon,
    configuration: LiveConfiguration,
    figures: FiguresFile,
    take: TakeWebhook,
    stop: threading.Event,
    alerts: Alerts,
    *,
    is_watched: bool,
) -> tuple[Companion, ...]:
    """What runs beside the loop."""
    desk, workshop, present = daemon.desk, daemon.workshop, Inside(daemon)
    callers = Callers(take, lambda: terms(configuration.config.webhooks))
    sight = Sight(daemon, present, configuration.seen)
    site = Site(running=daemon, figures=present, sight=sight, callers=callers)
    web = WebServer(site, lambda: serving(configuration.config.web))
    retention = Retention(desk, workshop.board, stopping=stop.is_set, wait=stop.wait, back_up=workshop.back_up)
    s3 = daemon.switches[Integration.S3]
    housekeeping = Housekeeping(
        desk, retention, wiring=lambda: configuration.wiring, s3=s3, stop=stop, failed=daemon.fail
    )
    look = Conditions(
        daemon,
        lambda: alert_settings(configuration.config).limits,
        partial(snapshot_metrics, present),
        (
            lambda: of_lanes(workshop.board, desk.index, is_watched=is_watched),
            lambda: _of_webhooks(callers, take),
            lambda: of_retention(housekeeping.outlook, housekeeping.held, retention.problems),
            lambda: of_web_server(web.problems),
        ),
    )
    alerts.follow(lambda: alert_settings(configuration.config))
    alerts.watch(look, sees_all=True)
    return (alerts, figures, callers, web, housekeeping)


def _of_webhooks(callers: Callers, take: TakeWebhook) -> Iterator[Condition]:
    troubles = callers.troubles()
    off = " | ".join(trouble.message for trouble in troubles if trouble.kind != "old")
    old = {trouble.integration: trouble.message for trouble in troubles if trouble.kind == "old"}
    return of_webhooks(off, old, take.contradicted)


# --- the ledger -----------------------------------------------------------------------------------------------------


def open_index(folders: Folders) -> Index:
    """The projection beside the log; made when it is missing."""
    return Index(folders.index)


def _open_log(folders: Folders, index: Index, exec_id: str, stop: threading.Event, health: Health) -> Log:
    """Open the log, repair its tail, and bring the projection up to its last row. Raises `LogDamaged`."""

    def found(records: Sequence[DeliveryRecord], position: Position) -> None:
        index.apply(records, position)
        health.starting(tr("log.csv is read into the index, {done} MiB so far", done=position.offset // 2**20))

    with anew_if_long(folders, index):
        log = Log.open(
            folders.log,
            torn_path=folders.torn(exec_id),
            exec_id=exec_id,
            clock=lambda: datetime.now(UTC),
            start=index.position,
            on_commit=partial(_apply_when_there_is_room, index, stop),
            found=found,
        )
        index.apply((), log.position)
    return log


def anew_if_long(folders: Folders, index: Index) -> AbstractContextManager[None]:
    """Where an index that knows nothing reads a long log from its first row."""
    is_long = os.path.exists(folders.log) and os.path.getsize(folders.log) > _LONG_BYTES
    return index.made_anew() if index.position is None and is_long else nullcontext()


def _apply_when_there_is_room(
    index: Index, stop: threading.Event, records: Sequence[DeliveryRecord], position: Position
) -> None:
    """Bring the projection up to rows that are on disk. A full disk is waited for: a projection with a gap would be
    believed. Raises `IndexUnusable`, and `IndexUnwritable` when told to stop."""
    while True:
        try:
            index.apply(records, position)
        except IndexUnwritable as error:
            if stop.is_set():
                raise
            index.no_room = str(error)
            stop.wait(_ROOM_SECONDS)
        else:
            index.no_room = ""
            return


def _record_repairs(desk: Desk, *, cut_bytes: int, torn_path: str) -> None:
    """Say in the log that its torn tail was cut off at this start."""
    if cut_bytes:
        message = f"the log's last {cut_bytes} bytes were torn; they are kept in {torn_path}"
        desk.record(Fact(event=Event.RECOVERED, actor=Actor.TFWATCH, detail=write_detail(message)))
        logger.bind(EVENT=Event.RECOVERED.value).warning("{}", message)


def catch_up(folders: Folders, index: Index, *, read: Callable[[int], object] = lambda count: None) -> None:
    """Read into the projection what the log has beyond it; `read` is told of every so many bytes."""
    rows, end = [], index.position
    told = (end or Position.start()).offset
    for record, position in read_log(folders.log, end):
        rows.append(record)
        end = position
        if len(rows) >= _REPLAY_ROWS:
            index.apply(rows, position)
            rows = []
            read(position.offset - told)
            told = position.offset
    if end is None:
        end = Position.start()
    index.apply(rows, end)
