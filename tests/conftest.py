"""What all tests share: at the end, what was skipped for want of a program, and the one command that allows it."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.support import require


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """Told last, so that nobody takes a skipped test for a passed one."""
    yield
    skipped = terminalreporter.stats.get("skipped", ())
    if not skipped:
        return
    terminalreporter.section("not everything was tried", sep="-")
    terminalreporter.line(f"{len(skipped)} tests were skipped, each with its reason above.")
    if require.missing:
        terminalreporter.line(f"For want of programs: sudo apt install {' '.join(sorted(require.missing))}")
    if os.geteuid() != 0 and any("root" in str(report.longrepr) for report in skipped):
        terminalreporter.line("For want of root: sudo make test")
