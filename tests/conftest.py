"""What all tests share: at the end, what was skipped for want of a program, and the one command that allows it."""

from __future__ import annotations

import os

import pytest

from tests.support import require


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Told last, so that nobody takes a skipped test for a passed one."""
    if require.missing:
        count = len(terminalreporter.stats.get("skipped", ()))
        terminalreporter.section("not everything was tried", sep="-")
        terminalreporter.line(f"{count} tests were skipped. To have those run that need Debian packages:")
        terminalreporter.line(f"  sudo apt install {' '.join(sorted(require.missing))} && make test")
    if os.geteuid() != 0 and any(
        "root" in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())
    ):
        terminalreporter.line("Some tests need root: sudo make test")
