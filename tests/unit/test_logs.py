"""What the log records look like where people read them. Each test runs in a process of its own: logging is global."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

HEAD = """
import logging, os, sys, types
from loguru import logger
from tfwatch.observe.logs import set_up
"""


def run(script: str, form: str = "auto", level: str = "INFO", **environ: str) -> list[str]:
    """The lines on stderr of a process that has set up its logging and then ran a script."""
    setting = f"set_up({level!r}, {form!r}, exec_id='X1', environ=os.environ)\n"
    code = HEAD + textwrap.dedent(environ.pop("before", "")) + setting + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, env=os.environ | environ, check=True
    )
    assert b"" == done.stdout
    return done.stderr.decode("utf-8").splitlines()


def run_json(script: str, **words: str) -> list[dict[str, Any]]:
    """The same as JSON, one object a line."""
    return [json.loads(line) for line in run(script, form="json", **words)]


def test_text_is_one_plain_line() -> None:
    """Moment, level, message, then the fields a journal would have; no colour where no terminal is."""
    (line,) = run("logger.bind(EVENT='ACCEPTED', TRACE_ID='t1', ORDER_ID='').info('{}: {}', 'a.zip', 'accepted')")

    assert line.endswith(" INFO     a.zip: accepted  EVENT=ACCEPTED TRACE_ID=t1 EXEC_ID=X1")
    assert "\x1b" not in line


def test_no_name_passes_for_a_field_in_text() -> None:
    """`grep TRACE_ID=…` finds one package: a name with spaces or `=` in it is quoted, a line's end in it escaped."""
    (line,) = run("logger.bind(PACKAGE='a TRACE_ID=t1 \\n\"b\".zip').info('look')")

    assert line.endswith(r"""look  EVENT=NOTE PACKAGE="a TRACE_ID=t1 \n\"b\".zip" EXEC_ID=X1""")


def test_a_traceback_follows_the_line_with_the_fields() -> None:
    """Whoever greps for a field finds the message; what comes after it is the traceback alone."""
    lines = run(
        """
        try:
            1 / 0
        except ZeroDivisionError:
            logger.bind(PACKAGE='a.zip').exception('oh')
        """
    )
    assert lines[0].endswith("oh  EVENT=NOTE PACKAGE=a.zip EXEC_ID=X1")
    assert "Traceback (most recent call last):" == lines[1]
    assert "ZeroDivisionError: division by zero" == lines[-1]


def test_what_is_said_of_a_package_has_an_event() -> None:
    """Fact, alert or note: a filter by EVENT misses no record about a package. Records about nothing have none."""
    told, other = run_json("logger.bind(PACKAGE='a.zip').info('look'); logger.info('look')")

    assert "NOTE" == told["EVENT"]
    assert "EVENT" not in other


def test_json_has_the_fields() -> None:
    """One object a line: moment in UTC, level, message and the fields a journal would have; empty ones are left out."""
    (line,) = run_json(
        "logger.bind(EVENT='ALERT', PACKAGE='a.zip', SHA256='ab', TRACE_ID='t', ORDER_ID='', INTEGRATION='s3', other=1)"
        ".warning('look')"
    )
    assert line.pop("at").endswith("Z")
    expected = {
        "EVENT": "ALERT",
        "PACKAGE": "a.zip",
        "SHA256": "ab",
        "TRACE_ID": "t",
        "INTEGRATION": "s3",
        "EXEC_ID": "X1",
    }
    assert {"level": "WARNING", "message": "look"} | expected == line


def test_the_level_is_obeyed() -> None:
    """What is below it is not shown."""
    assert ["WARNING"] == [line["level"] for line in run_json("logger.info('a'); logger.warning('b')", level="WARNING")]
    assert ["DEBUG"] == [line["level"] for line in run_json("logger.debug('a')", level="DEBUG")]


@pytest.mark.parametrize("form", ["auto", "json"])
def test_no_name_crashes_it(form: str) -> None:
    """Undecodable bytes, half characters, braces, colour tags and line ends of strangers: written, never obeyed."""
    lines = run(
        r"""
        for name in ("\udcff.zip", "\ud800", "{0}{x!r}", "<red>a</red>", "\x1b[2Ja", "\x00\x9b"):
            logger.bind(PACKAGE=name).info("{}: {}", name, "it's {here}")
        """,
        form,
    )
    assert 6 == len(lines)
    shown = "\n".join(json.loads(line)["message"] if form == "json" else line for line in lines)
    for expected in (r"\udcff.zip", r"\ud800", "{0}{x!r}", "<red>a</red>", r"\x1b[2Ja", r"\x00\x9b", "it's {here}"):
        assert expected in shown


def test_other_libraries_warnings_arrive() -> None:
    """Their warnings belong with ours, their chatter doesn't."""
    lines = run_json(
        """
        logging.getLogger("urllib3").info("chatter")
        logging.getLogger("urllib3").warning("lost %s of %d", "one", 2)
        logging.getLogger("botocore").log(35, "between")
        """
    )
    assert [("WARNING", "urllib3: lost one of 2"), ("Level 35", "botocore: between")] == [
        (line["level"], line["message"]) for line in lines
    ]


@pytest.mark.parametrize("form", ["auto", "json"])
def test_a_librarys_exception_is_shown_whole(form: str) -> None:
    """What a server caught for us is a bug to find: its traceback is there, once."""
    lines = run(
        """
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("server").exception("in the application")
        logging.getLogger("server").error("without one", exc_info=(None, None, None))
        """,
        form,
    )
    text = "\n".join(json.loads(line)["message"] if form == "json" else line for line in lines)
    assert 1 == text.count("Traceback (most recent call last)")
    assert "server: in the application" in text
    assert "ZeroDivisionError: division by zero" in text
    assert "server: without one" in text


def test_a_record_that_does_not_fit_its_words_harms_nobody() -> None:
    """A library's slip in a log call never reaches its caller."""
    (line,) = run_json("logging.getLogger('slip').warning('%d of %d', 'one')")

    assert "slip: %d of %d" == line["message"]


def test_setting_up_twice_is_once() -> None:
    """A reload doesn't double the lines; the last form counts."""
    script = "set_up('INFO', 'json', exec_id='X2', environ={}); logger.info('a'); logging.getLogger('x').warning('b')"

    assert ["X2", "X2"] == [json.loads(line)["EXEC_ID"] for line in run(script)]


JOURNAL = """
sent = []
def send(message, **fields):
    print(message, fields, file=sys.stderr)
journal = types.ModuleType("systemd.journal")
journal.send = send
package = types.ModuleType("systemd")
package.journal = journal
sys.modules |= {"systemd": package, "systemd.journal": journal}
info = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{info.st_dev}:{info.st_ino + %d}"
"""


def test_under_systemd_the_journal_gets_fields() -> None:
    """stderr is the journal: records go there with priority and fields, as `journalctl EVENT=…` finds them."""
    (line,) = run("logger.bind(EVENT='ALERT', PACKAGE='\\udcff').warning('look')", before=JOURNAL % 0)

    expected = {
        "SYSLOG_IDENTIFIER": "tfwatch",
        "PRIORITY": "4",
        "EVENT": "ALERT",
        "PACKAGE": "\\udcff",
        "EXEC_ID": "X1",
    }
    assert f"look {expected}" == line


@pytest.mark.parametrize(("offset", "form"), [(1, "auto"), (0, "json")])
def test_elsewhere_the_journal_is_left_alone(offset: int, form: str) -> None:
    """stderr was redirected, or JSON was asked for: records go where stderr goes."""
    (line,) = run("logger.warning('look')", form, before=JOURNAL % offset)

    assert "PRIORITY" not in line
    assert "look" in line


def test_a_process_without_stderr_can_log() -> None:
    """A closed stderr is no reason to die."""
    assert [] == run("os.close(2); logger.warning('look'); sys.stderr = None; os._exit(0)")
