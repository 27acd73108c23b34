"""The daemon that holds the spool, if one does: is it alive, and does its web server answer?"""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, ok, skipped, warning

_LATE_SECONDS: Final = 120.0
"""Idle, the loop shows itself twice a minute; busy, each second."""

_WEB_SECONDS: Final = 5.0
_START: Final = "sudo systemctl start tfwatch"


def daemon(case: Case) -> Iterator[Finding]:
    """Whether one holds the lock, and whether its loop goes round."""
    if not case.is_running:
        yield warning("daemon", "no daemon runs here; packages wait", _START)
        return
    process = f"process {case.pid}" if case.pid else "a process that hides its number"
    try:
        age = time.time() - os.stat(case.folders.state).st_mtime
        with open(case.folders.state, encoding="utf-8") as file:
            shown: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        seen = f"{process} holds {case.folders.root} and shows nothing of itself: it is starting, or it can't write"
        yield warning("daemon", seen, "wait a moment; then: journalctl -u tfwatch -n 50")
        return
    except ValueError:
        yield warning("daemon", f"{case.folders.state} can't be read", "journalctl -u tfwatch -n 50")
        return
    if age > _LATE_SECONDS:
        seen = f"{process} holds {case.folders.root}, but its loop has finished no pass for {age:.0f} s"
        yield failure("daemon", seen, "journalctl -u tfwatch -n 50; then: sudo systemctl restart tfwatch")
        return
    problems = shown.get("problems") or []
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        yield warning("daemon", f"{process} runs and says: {problems[0]}{more}", "tfwatch status")
        return
    yield ok("daemon", f"{process} runs ({shown.get('exec_id', '')}); it showed itself {max(0.0, age):.0f} s ago")


# --- the web server -------------------------------------------------------------------------------------------------


def web(case: Case) -> Iterator[Finding]:
    """With a daemon: it answers. Without: the port is free for it."""
    section = case.config.web
    where = f"{section.host}:{section.port}"
    if not section.enabled:
        yield skipped("web", "web.enabled is false")
    elif case.is_running:
        yield _answer(section.host, section.port, where)
    else:
        yield _bindable(section.host, section.port, where)


def _answer(host: str, port: int, where: str) -> Finding:
    # A server that listens on every address is asked on loopback.
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    connection = http.client.HTTPConnection(target, port, timeout=_WEB_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return failure("web", f"nothing answers at {where}: {words}", "journalctl -u tfwatch -n 50")
    finally:
        connection.close()
    if status == 200:
        return ok("web", f"http://{where}/ answers and says that all is well")
    if status == 503:
        return warning("web", f"http://{where}/healthz answers 503: the daemon is not well", "tfwatch status")
    return failure("web", f"another program answers at {where} (HTTP {status})", "give web.port another number")


def _bindable(host: str, port: int, where: str) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        # As the server itself does: what a stopped one left in TIME_WAIT is in nobody's way.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            return _taken(error, where)
    return ok("web", f"{where} is free for the daemon")


def _taken(error: OSError, where: str) -> Finding:
    if error.errno == errno.EADDRINUSE:
        do = "see who: sudo ss -ltnp; stop it, or give web.port another number"
        return failure("web", f"{where} is taken by another program", do)
    if error.errno == errno.EACCES:
        return failure("web", f"{where} may not be listened at", "give web.port a number above 1023")
    return failure("web", f"{where} can't be listened at: {error.strerror}", "mend web.host: it is no address of ours")
