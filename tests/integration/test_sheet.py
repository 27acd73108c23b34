"""The team's sheet mirrors the log, row for row; what people do to it is noticed; it delays nothing."""

from __future__ import annotations

import csv
import json
import signal
from typing import Any

import pytest

from tests.support.daemon import Spool, wait_until
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox


@pytest.fixture(autouse=True)
def configured(sandbox: Sandbox, spool: Spool) -> None:
    """The spool writes to the sandbox's spreadsheet, through the real login."""
    configure(sandbox, spool)


def configure(sandbox: Sandbox, spool: Spool, **more: object) -> None:
    settings = {
        "enabled": True,
        "spreadsheet_id": sandbox.spreadsheet_id,
        "service_account_json": json.dumps(sandbox.service_account()),
        "api_base_url": sandbox.url,
        "batch_seconds": 0.2,
    }
    spool.configure(integrations={"sheets": settings | more})


def worksheet(sandbox: Sandbox, title: str = "log") -> dict[str, Any]:
    sheets: Any = sandbox.sheets()["worksheets"]
    return next((sheet for sheet in sheets if sheet["properties"]["title"] == title), {"values": []})


def shown(sandbox: Sandbox, title: str = "log") -> list[list[str]]:
    """What a person sees in the worksheet, without the empty rows below."""
    rows = [[str(cell) for cell in row] for row in worksheet(sandbox, title)["values"]]
    while rows and not any(rows[-1]):
        rows.pop()
    return rows


def log_rows(spool: Spool) -> list[list[str]]:
    with (spool.root / "log.csv").open(newline="") as file:
        return list(csv.reader(file))


def is_mirror(sandbox: Sandbox, spool: Spool) -> bool:
    return log_rows(spool) == shown(sandbox)


def wait_for_mirror(sandbox: Sandbox, spool: Spool) -> None:
    try:
        wait_until(lambda: is_mirror(sandbox, spool), "the sheet shows the log")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{shown(sandbox)}\n{spool.picture()}") from None


def trouble(spool: Spool) -> str:
    return spool.state()["integrations"]["sheets"]["trouble"]  # type: ignore[no-any-return]


def deliver(spool: Spool, *names: str, seed: int = 0) -> None:
    for number, name in enumerate(names):
        spool.drop(name, seed=seed + number)
    spool.wait_for("delivered", *names)


def test_every_row_of_the_log_is_a_row_of_the_sheet(sandbox: Sandbox, spool: Spool) -> None:
    """Header and rows are those of log.csv, in its order, as text; the header row is frozen."""
    spool.start()
    deliver(spool, "a.zip", "b.zip", "c_v2.zip")
    wait_for_mirror(sandbox, spool)
    sheet = worksheet(sandbox)
    assert 1 == sheet["properties"]["gridProperties"]["frozenRowCount"]
    assert sheet["conditionalFormats"]
    assert [] == sheet["formulas"]


def test_a_name_like_a_formula_is_text(sandbox: Sandbox, spool: Spool) -> None:
    """Names and service words that a spreadsheet would run are neutralised, in the log and in the sheet."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=422, message='=HYPERLINK("http://evil","x")', times=1))
    spool.start()
    spool.drop("=1+1.zip", seed=1)
    spool.wait_for("rejected", "=1+1.zip")
    deliver(spool, "@SUM(A1).zip", "-2+3.zip", "+cmd.zip", seed=2)
    wait_for_mirror(sandbox, spool)
    assert [] == worksheet(sandbox)["formulas"]
    assert {"'=1+1.zip", "'@SUM(A1).zip", "'-2+3.zip", "'+cmd.zip", ""} == {row[5] for row in shown(sandbox)[1:]}


def test_a_sorted_sheet_is_noticed_and_left_alone(sandbox: Sandbox, spool: Spool) -> None:
    """After a person sorted it nothing is written, and the state says so; sorted back, it goes on without a gap."""
    spool.start()
    deliver(spool, "a.zip")
    wait_for_mirror(sandbox, spool)
    sandbox.edit_sheet(worksheet="log", action="sort", column=1, descending=True)
    as_sorted = shown(sandbox)
    deliver(spool, "b.zip", seed=1)
    wait_until(lambda: "sorted or edited" in trouble(spool), "the state says so")
    assert as_sorted == shown(sandbox)
    sandbox.edit_sheet(worksheet="log", action="sort", column=1)
    assert spool.process is not None
    spool.process.send_signal(signal.SIGHUP)
    wait_for_mirror(sandbox, spool)
    wait_until(lambda: trouble(spool) == "", "the state says that all is well")


def test_an_edited_cell_is_noticed_and_kept(sandbox: Sandbox, spool: Spool) -> None:
    """What a person wrote into the sheet stays there, and the next start says which row it is."""
    spool.start()
    deliver(spool, "a.zip")
    wait_for_mirror(sandbox, spool)
    spool.stop()
    sandbox.edit_sheet(worksheet="log", action="set", range="F3", value="my note")
    spool.start()
    deliver(spool, "b.zip", seed=1)
    wait_until(lambda: "seq 2" in trouble(spool), "the state names the row")
    assert "my note" == shown(sandbox)[2][5]


def test_a_renamed_worksheet_is_kept_and_a_new_one_filled(sandbox: Sandbox, spool: Spool) -> None:
    """Renaming is the way out of any drift: the old sheet stays as it is, and a new one shows the whole log."""
    spool.start()
    deliver(spool, "a.zip")
    wait_for_mirror(sandbox, spool)
    before = shown(sandbox)
    sandbox.edit_sheet(worksheet="log", action="rename", title="log of May")
    deliver(spool, "b.zip", seed=1)
    wait_for_mirror(sandbox, spool)
    assert before == shown(sandbox, "log of May")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=FaultKind.STATUS, status=503, target=Target.SHEETS),
        Fault(kind=FaultKind.STATUS, status=403, target=Target.SHEETS),
        Fault(kind=FaultKind.HANG, target=Target.SHEETS),
        Fault(kind=FaultKind.STATUS, status=503, target=Target.TOKEN),
    ],
    ids=["503", "403", "hang", "no token"],
)
def test_a_sheet_that_is_down_delays_no_delivery(sandbox: Sandbox, spool: Spool, fault: Fault) -> None:
    """Whatever the sheet does, packages are delivered at once, and a stop comes in time."""
    sandbox.set_faults(fault)
    spool.start()
    deliver(spool, *(f"n{number}.zip" for number in range(5)))
    assert [] == shown(sandbox)
    assert 0 == spool.stop(seconds=10)
    assert 5 == len(sandbox.orders())


def test_back_again_it_catches_up_in_few_calls(sandbox: Sandbox, spool: Spool) -> None:
    """After an outage the sheet shows every row, each once; the backlog goes up in far fewer writes than rows."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503, target=Target.SHEETS))
    spool.start()
    deliver(spool, *(f"n{number}.zip" for number in range(40)))
    wait_until(lambda: trouble(spool), "the state says so")
    sandbox.set_faults()
    before = int(str(sandbox.sheets()["writes"]))
    wait_for_mirror(sandbox, spool)
    assert int(str(sandbox.sheets()["writes"])) - before < 12


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.GARBAGE, FaultKind.TRUNCATED])
def test_a_lost_answer_makes_no_second_row(sandbox: Sandbox, spool: Spool, kind: FaultKind) -> None:
    """Writes that took effect though their answer was lost are repeated to the same places."""
    sandbox.set_faults(Fault(kind=kind, target=Target.SHEETS, probability=0.3, times=6))
    spool.start()
    deliver(spool, "a.zip", "b.zip", "c.zip")
    wait_for_mirror(sandbox, spool)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_lost_index_makes_no_second_row(sandbox: Sandbox, spool: Spool, end: str) -> None:
    """Where the mirror was is found in the sheet itself."""
    spool.start()
    deliver(spool, "a.zip", "b.zip")
    wait_for_mirror(sandbox, spool)
    getattr(spool, end)()
    for path in (spool.root / ".tfwatch").glob("index.sqlite*"):
        path.unlink()
    spool.start()
    deliver(spool, "c.zip", seed=5)
    wait_for_mirror(sandbox, spool)


def test_a_revoked_login_is_renewed(sandbox: Sandbox, spool: Spool) -> None:
    """When the access token is worthless all of a sudden, a new one is fetched and the mirror goes on."""
    spool.start()
    deliver(spool, "a.zip")
    wait_for_mirror(sandbox, spool)
    sandbox.revoke_tokens()
    deliver(spool, "b.zip", seed=1)
    wait_for_mirror(sandbox, spool)


def test_switched_on_later_it_shows_all(sandbox: Sandbox, spool: Spool) -> None:
    """Rows logged before the sheet was switched on are shown, too."""
    configure(sandbox, spool, enabled=False)
    spool.start()
    deliver(spool, "a.zip")
    configure(sandbox, spool)
    wait_for_mirror(sandbox, spool)
