"""The status page: what `tfwatch status` and `tfwatch why` know, for a browser. Reads; changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from tfwatch import __version__, report, why
from tfwatch.language import tr
from tfwatch.look import View
from tfwatch.model import parse_rfc3339
from tfwatch.spool.names import printable
from tfwatch.story_lines import When
from tfwatch.web import wording
from tfwatch.web.sight import Sight

_LONGEST_WORD: Final = 300
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, nothing inline: a file name that got into the page as markup would still do nothing."""


def routes(sight: Sight) -> list[BaseRoute]:
    """`/`, `/why?q=…`, and the files these need."""
    templates = Environment(
        loader=PackageLoader("tfwatch.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )

    def page(name: str, view: View, values: dict[str, Any], asked: str = "") -> Response:
        common = {
            "asked": asked, "live": name == "page.html", "language": sight.language, "tr": tr,
            "spool": printable(view.folders.root), "version": __version__,
        }  # fmt: skip
        headers = {"content-security-policy": CONTENT_SECURITY_POLICY}
        return HTMLResponse(templates.get_template(name).render(common | values), headers=headers)

    # Not async: they read the disk, so Starlette runs them in its threads.

    def show_status(request: Request) -> Response:
        view = sight.view()
        return page("page.html", view, _status(view, sight))

    def show_story(request: Request) -> Response:
        asked = request.query_params.get("q", "").strip()[:_LONGEST_WORD]
        view = sight.view()
        return page("why.html", view, _story(view, asked, sight.when), printable(asked))

    return [
        Route("/", show_status),
        Route("/why", show_story),
        Mount("/static", StaticFiles(packages=[("tfwatch.web", "static")])),
    ]


def _status(view: View, sight: Sight) -> dict[str, Any]:
    metrics, when = sight.metrics(), sight.when
    document = report.assemble(view, datetime.now(UTC), when)
    return {
        "line": document["daemon"]["line"],
        "needs": document["needs_a_person"],
        "stages": [wording.stage(name, there) for name, there in document["stages"].items()],
        "in_flight": [_linked(wording.flight(work)) for work in document["in_flight"]],
        "figures": wording.figures(metrics, document),
        "hours": [wording.hour(hour) for hour in metrics.hourly],
        "rejected": [_linked({**each, "at": _at(each["at"], when)}) for each in document["last_problems"]],
        "integrations": [wording.integration(name, stand) for name, stand in document["integrations"].items()],
    }


def _story(view: View, asked: str, when: When) -> dict[str, Any]:
    document = why.assemble(view, asked, when)
    packages = [
        {**package, "story": [{**line, "at": _at(line["at"], when)} for line in package["story"]]}
        for package in document["packages"]
    ]
    near = [{"text": name, "link": _link(name)} for name in document["near"]]
    return {**document, "packages": packages, "near": near}


def _linked(each: dict[str, Any]) -> dict[str, Any]:
    return {**each, "link": _link(each.get("sha256") or each["package"])}


def _link(word: str) -> str:
    return f"/why?{urlencode({'q': word}, errors='surrogateescape')}"


def _at(moment: str, when: When) -> str:
    return when(parse_rfc3339(moment))
