"""What all tests share: how much of the long ones is run; at the end, what was skipped, and what would allow it."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import require
from tests.support.extent import Extent

# How fast this machine is at this moment proves nothing.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much the tests that could go on for hours do; the defaults are what CI has time for."""
    group = parser.getgroup("extent", "how much the long tests do (make test-crash, test-stress, test-power, fuzz)")
    group.addoption("--share", type=int, default=20, metavar="N", help="of each matrix one case in N; 1: all of it")
    group.addoption("--kills", type=int, default=200, metavar="N", help="random kills over a stream of packages")
    group.addoption("--hours", type=float, default=0.0, metavar="H", help="go on with random kills for so long")
    group.addoption("--packages", type=int, default=1000, metavar="N", help="packages for services that misbehave")
    group.addoption("--cuts", type=int, default=2, metavar="N", help="power cuts of a virtual machine")
    group.addoption("--fuzz-seconds", type=float, default=20.0, metavar="S", help="how long each fuzz test looks")
    group.addoption("--seed", type=int, default=None, metavar="N", help="repeat a run; without it, by the commit")


@pytest.fixture(scope="session")
def extent(pytestconfig: pytest.Config) -> Extent:
    """How much the long tests do in this run, and by which seed."""
    return Extent.of(pytestconfig)


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
