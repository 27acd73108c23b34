"""What the web server is given: where it listens and whom it answers, and the parts of the daemon it shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from tfwatch.observe.metrics import Source
from tfwatch.observe.state import Running
from tfwatch.web.callers import Callers
from tfwatch.web.sight import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The section `web` of config.yaml, as one immutable whole.

    `is_exposed`: more than this machine's own addresses may be listened on; only with a
    `token`, which is empty where none is asked for. `hosts`: names by which callers may call it, lower case.
    `requests_per_second`: what one caller may ask.
    """

    enabled: bool
    host: str
    port: int
    is_exposed: bool
    token: str = field(repr=False)
    hosts: frozenset[str]
    requests_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the routes show and take: parts of the daemon, each module's own. Nothing of it belongs to the web."""

    running: Running
    figures: Source
    sight: Sight
    callers: Callers
