"""loguru to where people look: the journal with its fields under systemd, else stderr as text or JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from loguru import logger

from tfwatch.model import rfc3339

if TYPE_CHECKING:
    from loguru import Message, Record

FIELDS = ("EVENT", "ALERT", "PACKAGE", "SHA256", "TRACE_ID", "ORDER_ID", "INTEGRATION", "EXEC_ID")
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN = re.compile(r"[^\s\"'=]+")
_PRIORITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7, "TRACE": 7}


def set_up(level: str, form: Literal["auto", "json"], *, exec_id: str, environ: Mapping[str, str]) -> None:
    """Send all log records, other libraries' too, to one place. `form` json: one object a line on stderr."""
    logger.remove()
    logger.configure(extra={"EXEC_ID": exec_id})
    journal = _journal(environ) if form == "auto" else None
    if journal is not None:
        logger.add(journal, level=level, format="{message}", catch=True, diagnose=False)
    elif form == "json":
        logger.add(_to_json, level=level, format="{message}", catch=True, diagnose=False)
    else:
        logger.add(sys.stderr, level=level, format=_as_text, colorize=sys.stderr.isatty(), diagnose=False)
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)


def _journal(environ: Mapping[str, str]) -> Callable[[Message], None] | None:
    """systemd's journal, when our stderr is connected to it (`$JOURNAL_STREAM` holds its device and inode)."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        info = os.fstat(sys.stderr.fileno())
        from systemd import journal
    except (OSError, ImportError):
        return None
    if (device, inode) != (str(info.st_dev), str(info.st_ino)):
        return None

    def send(message: Message) -> None:
        record = message.record
        priority = str(_PRIORITY.get(record["level"].name, 6))
        # Else it is the interpreter's name.
        journal.send(_line(record), SYSLOG_IDENTIFIER="tfwatch", PRIORITY=priority, **_fields(record))

    return send


def _to_json(message: Message) -> None:
    record = message.record
    line = {"at": rfc3339(record["time"]), "level": record["level"].name, "message": _line(record)}
    sys.stderr.write(json.dumps(line | _fields(record)) + "\n")


def _as_text(record: Record) -> str:
    """The words first, then the same fields as in the journal: `grep TRACE_ID=…` is one package's story here."""
    first, newline, rest = _line(record).partition("\n")
    record["extra"]["line"], record["extra"]["rest"] = first, newline + rest
    record["extra"]["fields"] = " ".join(f"{field}={_quoted(value)}" for field, value in _fields(record).items())
    when, level = "<dim>{time:YYYY-MM-DD HH:mm:ss.SSS}</dim>", "<level>{level: <8}</level>"
    return f"{when} {level} {{extra[line]}}  <dim>{{extra[fields]}}</dim>{{extra[rest]}}\n"


def _fields(record: Record) -> dict[str, str]:
    extra = record["extra"]
    found = {field: _printable(str(extra[field])) for field in FIELDS if extra.get(field)}
    return {"EVENT": "NOTE", **found} if "PACKAGE" in found else found


def _quoted(value: str) -> str:
    """A value with spaces or quotes in it, so that no file name passes for a field."""
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def _line(record: Record) -> str:
    """The message and, where a library logged an exception, its traceback."""
    error = record["exception"]
    if error is None or error.value is None:
        return _printable(record["message"])
    return _printable(record["message"] + "\n" + "".join(traceback.format_exception(error.value)).rstrip())


def _printable(text: str) -> str:
    """Nothing that a terminal would obey; no lone surrogate either, which no stream takes."""
    return _UNSAFE.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


class _Forward(logging.Handler):
    """Other libraries log through the standard library; their warnings belong with ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # A record whose arguments don't fit its words must not take the library's call down with it.
            message = str(record.msg)
        logger.opt(exception=record.exc_info).log(_level(record.levelno), "{}: {}", record.name, message)


def _level(number: int) -> Any:
    return logging.getLevelName(number) if number in (10, 20, 30, 40, 50) else number
