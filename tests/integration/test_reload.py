"""A changed configuration is taken over while running, as a whole or not at all."""

from __future__ import annotations

import signal

from tests.support.daemon import Spool, wait_until
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

TAKEN = "configuration taken over"
LASTS = 0.8
"""Seconds of each request: long enough for all lanes to have one open together, also on a loaded machine."""


def taken(spool: Spool, count: int = 1) -> None:
    wait_until(lambda: spool.output.read_text().count(TAKEN) >= count, f"taken over {count} times")


def gate(spool: Spool) -> dict[str, str]:
    return spool.state()["integrations"]["gotranscript"]  # type: ignore[no-any-return]


def in_place(spool: Spool, text: str) -> None:
    """Write the file as `cat > config.yaml` does."""
    with spool.config.open("r+") as file:
        file.truncate(0)
        file.write(text)


def test_an_integration_is_switched_off_and_on(sandbox: Sandbox, spool: Spool) -> None:
    """`enabled: false` makes packages wait in the outbox; `true` sends them; both stand in the log."""
    spool.start()
    spool.configure(integrations={"gotranscript": {"enabled": False}})
    spool.wait_for_event("DISABLED")
    spool.drop("p.zip")
    wait_until(lambda: spool.state()["stages"]["outbox"] == 1, "it waits in the outbox")
    assert "config.yaml" in gate(spool)["source"]
    assert [] == sandbox.orders()
    spool.configure(integrations={"gotranscript": {"enabled": True}})
    spool.wait_for("delivered", "p.zip")
    assert ["DISABLED", "ENABLED"] == spool.events()[:2]
    assert 1 == len(sandbox.orders())


def test_switched_while_the_daemon_was_stopped(sandbox: Sandbox, spool: Spool) -> None:
    """A switch that was turned while nobody ran is noticed at the start."""
    spool.configure(integrations={"gotranscript": {"enabled": False}})
    spool.drop("p.zip")
    spool.start()
    assert ["DISABLED"] == spool.events()
    spool.stop()
    spool.configure(integrations={"gotranscript": {"enabled": True}})
    spool.start()
    spool.wait_for("delivered", "p.zip")


def test_a_file_written_in_place_is_taken_over(sandbox: Sandbox, spool: Spool) -> None:
    """An editor that writes into the file is heard like one that replaces it."""
    spool.start()
    text = spool.config.read_text()
    in_place(spool, text.replace("timeout_seconds: 20", "enabled: false\n    timeout_seconds: 20"))
    spool.wait_for_event("DISABLED")
    in_place(spool, text)
    spool.wait_for_event("ENABLED")


def test_workers_change_at_once(sandbox: Sandbox, spool: Spool) -> None:
    """More lanes send more packages at a time, fewer send fewer, without a restart."""
    sandbox.set_faults(Fault(kind=FaultKind.LATENCY, seconds=LASTS))
    spool.configure(integrations={"gotranscript": {"workers": 1}})
    spool.start()
    assert 1 == most_at_once(sandbox, spool, "one", 3)
    spool.configure(integrations={"gotranscript": {"workers": 6}})
    taken(spool, 1)
    assert 4 <= most_at_once(sandbox, spool, "six", 12)
    spool.configure(integrations={"gotranscript": {"workers": 2}})
    taken(spool, 2)
    most_at_once(sandbox, spool, "last", 6)  # lanes too many end with the package they do next
    assert 2 >= most_at_once(sandbox, spool, "two", 8)


def most_at_once(sandbox: Sandbox, spool: Spool, prefix: str, count: int) -> int:
    """Deliver some; gives how many requests the portal had open together at most, each lasting so long."""
    before = len(sandbox.orders())
    names = [f"{prefix}{number}.zip" for number in range(count)]
    for number, name in enumerate(names):
        spool.drop(name, seed=before + number)
    spool.wait_for("delivered", *names)
    begun = [float(str(order["first_byte_monotonic"])) for order in sandbox.orders()[before:]]
    return max(sum(moment <= other < moment + LASTS for other in begun) for moment in begun)


def test_a_bad_file_keeps_the_old_settings(sandbox: Sandbox, spool: Spool) -> None:
    """All problems of a bad file are shown at once, with their lines; deliveries go on as before; mending it helps."""
    spool.start()
    good = spool.config.read_text()
    bad = good.replace("timeout_seconds: 20", "timeout_seconds: never").replace("rescan_seconds: 2", "rescan_secs: 2")
    in_place(spool, bad)
    wait_until(lambda: len(spool.state()["problems"]) >= 2, "the state names both problems")
    shown = "\n".join(spool.state()["problems"])
    for word in ("timeout_seconds", "rescan_secs"):
        line = next(number for number, text in enumerate(bad.splitlines(), start=1) if word in text)
        assert f"config.yaml:{line}" in shown
        assert f"config.yaml:{line}" in spool.output.read_text()
    assert "config.yaml" in spool.state()["line"]
    spool.drop("p.zip")
    spool.wait_for("delivered", "p.zip")
    in_place(spool, good)
    wait_until(lambda: spool.state()["problems"] == [], "no problems are left")


def test_no_yaml_at_all_keeps_the_old_settings(sandbox: Sandbox, spool: Spool) -> None:
    """Garbage, an empty file and no file at all are problems, not a new configuration."""
    spool.start()
    good = spool.config.read_text()
    in_place(spool, "{[\x00")
    wait_until(lambda: spool.state()["problems"], "the state names it")
    spool.config.unlink()
    wait_until(lambda: "no such file" in str(spool.state()["problems"]), "the state says that it is gone")
    spool.drop("p.zip")
    spool.wait_for("delivered", "p.zip")
    spool.config.write_text(good)
    wait_until(lambda: spool.state()["problems"] == [], "no problems are left")


def test_the_spool_cannot_move(sandbox: Sandbox, spool: Spool) -> None:
    """`spool.root` stays what it is while running: the change is refused as a whole, and said so."""
    spool.start()
    spool.configure(spool={"root": str(spool.home)}, integrations={"gotranscript": {"enabled": False}})
    wait_until(lambda: spool.state()["problems"], "the state names it")
    (problem,) = spool.state()["problems"]
    assert "spool.root" in problem
    assert "restart" in problem
    assert 1 == problem.count("restart"), problem
    assert "DISABLED" not in spool.events()
    spool.drop("p.zip")
    spool.wait_for("delivered", "p.zip")


def test_dotenv_wins_over_the_file(sandbox: Sandbox, spool: Spool) -> None:
    """A `.env` beside config.yaml that appears, changes or goes is taken over, and `status` names it."""
    spool.start()
    dotenv = spool.home / ".env"
    dotenv.write_text("GOTRANSCRIPT_ENABLED=false\n")
    spool.wait_for_event("DISABLED")
    wait_until(lambda: ".env:1" in gate(spool)["source"], "the state names the source")
    dotenv.unlink()
    spool.wait_for_event("ENABLED")


def test_sighup_reads_it_again(sandbox: Sandbox, spool: Spool) -> None:
    """SIGHUP reloads though no file has changed, and ends nothing."""
    spool.start()
    assert spool.process is not None
    spool.process.send_signal(signal.SIGHUP)
    taken(spool)
    spool.drop("p.zip")
    spool.wait_for("delivered", "p.zip")


def test_an_api_key_that_comes_later(sandbox: Sandbox, spool: Spool) -> None:
    """Without an API key packages wait in the outbox; once its credential is there they are sent."""
    credentials = spool.home / "credentials"
    credentials.mkdir()
    spool.configure(integrations={"gotranscript": {"api_key": None}})
    spool.start(env={"CREDENTIALS_DIRECTORY": str(credentials)})
    spool.drop("p.zip")
    wait_until(lambda: gate(spool)["state"] == "held", "the state says so")
    assert "no API key" in gate(spool)["reason"]
    assert {"p.zip"} == spool.names("outbox")
    assert {} == sandbox.requests()["by_method"]
    secret = spool.home / "key.new"
    secret.write_text(f"{sandbox.api_key}\n")
    secret.chmod(0o600)
    secret.rename(credentials / "gotranscript_api_key")
    spool.wait_for("delivered", "p.zip")
    assert sandbox.api_key not in spool.output.read_text() + (spool.root / "log.csv").read_text()


def test_a_new_base_url_is_used_for_what_comes(sandbox: Sandbox, spool: Spool) -> None:
    """After a new base_url the next package goes there, under way or not."""
    with Sandbox() as other:
        spool.start()
        spool.drop("first.zip", seed=1)
        spool.wait_for("delivered", "first.zip")
        spool.configure(integrations={"gotranscript": {"base_url": other.url}})
        taken(spool)
        spool.drop("second.zip", seed=2)
        spool.wait_for("submitted", "second.zip")
        assert ["first.zip"] == [order["filename"] for order in sandbox.orders()]
        assert ["second.zip"] == [order["filename"] for order in other.orders()]
