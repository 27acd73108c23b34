"""The figures over HTTP: what Prometheus reads, and the same document as in the file, to the last row of the log."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import Spool, wait_until
from tests.support.recount import of_the_log, recount
from tests.support.web import serve, wait_until_served


def delivered(spool: Spool, **settings: Any) -> str:
    """A daemon that serves and has delivered and refused something; gives its address."""
    url = serve(spool, **settings)
    spool.start()
    wait_until_served(url)
    spool.drop("a_v1.zip", seed=1)
    spool.drop("b_v1.zip", seed=2)
    spool.wait_for("delivered", "a_v1.zip", "b_v1.zip")
    spool.drop("again_v1.zip", seed=1)
    spool.wait_for("rejected", "again_v1.zip")
    return url


def samples(url: str) -> dict[tuple[str, ...], float]:
    """What Prometheus makes of the text: each value by its name and its labels."""
    answer = httpx.get(f"{url}/metrics")
    assert 200 == answer.status_code
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4; charset=utf-8")
    families = text_string_to_metric_families(answer.text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_endpoint_file_and_log_say_the_same(spool: Spool) -> None:
    """Every figure that the log adds up to is a recount of it, in both answers and in the file; of the same row."""
    url = delivered(spool)
    file = spool.root / "logs" / "observability.json"
    rows = len(spool.rows())
    wait_until(lambda: json.loads(file.read_text())["log_seq"] == rows, "the file shows the last row")
    shown, written = httpx.get(f"{url}/metrics/webhooks").json(), json.loads(file.read_text())

    assert rows == shown["log_seq"]
    assert written.keys() == shown.keys()
    for one in (shown, written):
        assert recount(spool.root / "log.csv", one) == of_the_log(one), spool.picture()

    read = samples(url)
    assert {"accepted": 2, "completed": 2, "refused_here": 1} == {
        outcome: count for outcome, count in shown["deliveries"].items() if count
    }
    assert shown["deliveries"] == {name: read["tfwatch_deliveries_total", name] for name in shown["deliveries"]}
    assert shown["packages"] == {name: read["tfwatch_packages", name] for name in shown["packages"]}
    assert 2 == read["tfwatch_delivery_latency_seconds_count",] == shown["delivery_latency_seconds"]["count"]
    assert 1 == read["tfwatch_integration_enabled", "gotranscript"]


def test_many_who_ask_at_once_are_all_answered(spool: Spool) -> None:
    """One look after the other is taken, and each is after the last row that was there when it was asked for."""
    url = delivered(spool, requests_per_second=10_000)
    rows = len(spool.rows())
    seen: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            seen.extend(client.get("/metrics/webhooks").json()["log_seq"] for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [rows] * 40 == seen
