"""An operator who asks for Portuguese is answered in it, everywhere; programs read the same words as ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.support.daemon import Spool, wait_until, zip_bytes
from tests.support.daemon import spool as make_spool
from tfwatch import local_time, report
from tfwatch.cli_view import opened
from tfwatch.local_time import to_the_second
from tfwatch.model import parse_rfc3339, read_detail
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox


def where_it_is_noon() -> str:
    """A zone in which midnight is far away, so that no test begins on one day and ends on the next."""
    ahead = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-ahead:+d}"  # POSIX counts westwards


@pytest.fixture
def brazilian(tmp_path: Path, sandbox: Sandbox) -> Iterator[Spool]:
    """A spool whose operator reads Portuguese."""
    gotranscript = {"workers": 1, "rollback_after": 1}
    with make_spool(
        tmp_path, sandbox.url, sandbox.api_key, language="pt-BR", timezone=where_it_is_noon(),
        integrations={"gotranscript": gotranscript}, intake={"max_entries": 2},
    ) as made:  # fmt: skip
        yield made


def line(spool: Spool) -> str:
    return str(spool.state()["line"])


def test_a_reason_file_the_log_and_the_status_line(sandbox: Sandbox, brazilian: Spool) -> None:
    """What people read is Portuguese; columns, states and facts of the log are what they always were."""
    brazilian.start()
    brazilian.drop("certo_v1.zip", seed=1)
    brazilian.wait_for("delivered", "certo_v1.zip")
    brazilian.drop("errado_v1.zip", members={f"job/{n}.txt": b"x" for n in range(3)})
    brazilian.wait_for("rejected", "errado_v1.zip")
    assert brazilian.reason("errado_v1.zip") == (
        "errado_v1.zip foi recusado e não foi enviado.\n\n"
        "Motivo: Contém 3 entradas; intake.max_entries permite 2.\n"
        "O que fazer: divida-o, ou aumente o limite em config.yaml e mova-o de volta para outbox/.\n"
    )
    row = brazilian.row("REFUSED")
    facts, message = read_detail(row["detail"])
    assert ("rejected", "rejected", "tfwatch") == (row["to_stage"], row["status"], row["actor"])
    assert ("intake", "too_many_entries") == (facts["by"], facts["flaw"])
    assert "Contém 3 entradas; intake.max_entries permite 2." == message
    shown = f"observando {brazilian.root}/outbox · 0 aguardando resposta · 1 entregue hoje"
    wait_until(lambda: line(brazilian) == shown, f"the status line says: {shown}")
    brazilian.assert_sound()


def test_a_duplicate_is_told_with_the_operators_time(sandbox: Sandbox, brazilian: Spool) -> None:
    """The moment in a reason is in the zone and the notation of its reader; the log's is UTC."""
    brazilian.start()
    brazilian.drop("a_v1.zip", seed=1)
    brazilian.wait_for("delivered", "a_v1.zip")
    brazilian.drop("b_v1.zip", seed=1)
    brazilian.wait_for("rejected", "b_v1.zip")
    accepted = parse_rfc3339(brazilian.row("ACCEPTED")["at"])
    zone = ZoneInfo(brazilian.settings["timezone"])
    assert f"já foi aceito em {accepted.astimezone(zone):%d/%m/%Y %H:%M} com o nome a_v1.zip" in (
        brazilian.reason("b_v1.zip")
    )


def test_a_rollback_its_document_and_the_commands(sandbox: Sandbox, brazilian: Spool) -> None:
    """The document, the alert, `status` and `why` are Portuguese; their JSON keeps its keys and state words."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503, message="Down for maintenance."))
    brazilian.start()
    brazilian.drop("p_v1.zip")
    brazilian.wait_for("rejected", "p_v1.zip")
    wait_until(lambda: "Para desfazer" in brazilian.document(), "the document is written")
    document = brazilian.document()
    for expected in (
        "# Rollbacks e pausas da execução ",
        "## Rollback de gotranscript em ",
        "- **Por quê:** as entregas falharam uma após a outra; a última: Down for maintenance.\n",
        "- **Para desfazer:** resolva a causa e depois: tfwatch enable gotranscript\n",
    ):
        assert expected in document
    assert "p_v1.zip não foi entregue.\n" in brazilian.reason("p_v1.zip")
    wait_until(lambda: "GoTranscript em rollback: as entregas falharam" in line(brazilian), "the line says so")
    assert "rollback de gotranscript: as entregas falharam uma após a outra" in brazilian.output.read_text()

    status = json.loads(brazilian.cli("status", "--json").stdout)
    gate = status["integrations"]["gotranscript"]
    assert (False, "rolled back") == (gate["enabled"], gate["state"])
    assert gate["reason"].startswith("as entregas falharam")
    assert "tfwatch: em funcionamento" in brazilian.cli("status").stdout
    told = brazilian.cli("why", "p_v1.zip").stdout
    assert "provocou o rollback de gotranscript" in told
    assert "O que fazer: resolva o que fez as entregas falharem" in told


def test_the_language_changes_with_the_file(sandbox: Sandbox, brazilian: Spool) -> None:
    """A reload switches what is said from now on; what was said before stays."""
    brazilian.start()
    wait_until(lambda: line(brazilian).startswith("observando "), "Portuguese")
    brazilian.configure(language="en")
    wait_until(lambda: line(brazilian).startswith("watching "), "English")
    truncated = brazilian.root / "outbox" / "t_v1.zip"
    truncated.write_bytes(zip_bytes(seed=1, members={"job/x.txt": b"x", "job/y.txt": b"y", "job/z.txt": b"z"}))
    brazilian.wait_for("rejected", "t_v1.zip")
    assert "t_v1.zip was refused and not sent." in brazilian.reason("t_v1.zip")
    brazilian.configure(language="pt-BR")
    wait_until(lambda: line(brazilian).startswith("observando "), "Portuguese again")
    assert "t_v1.zip was refused and not sent." in brazilian.reason("t_v1.zip")


def test_a_bad_configuration_is_told_in_its_language(sandbox: Sandbox, brazilian: Spool) -> None:
    """What is wrong with a changed file, and with one that nothing can be started with, is said in Portuguese."""
    brazilian.start()
    brazilian.configure(intake={"max_entries": -1})
    said = "intake.max_entries: deve ser 1 ou mais"
    wait_until(lambda: "config.yaml não foi aplicado: " in line(brazilian) and said in line(brazilian), "it is told")
    alert = "não foi aplicado; continua valendo a configuração anterior"
    wait_until(lambda: alert in brazilian.output.read_text(), "the alert comes after it")
    brazilian.stop()
    assert said in brazilian.cli("check-config").stderr
    brazilian.start(ready=False)
    assert brazilian.process is not None
    assert 78 == brazilian.process.wait(30)
    assert said in brazilian.output.read_text().rpartition("observando")[2]


def test_today_begins_at_the_operators_midnight(sandbox: Sandbox, spool: Spool) -> None:
    """Where it is noon, what was delivered now counts ten hours later, and not fourteen hours later."""
    spool.start()
    spool.drop("p.zip")
    spool.wait_for("delivered", "p.zip")
    spool.stop()
    spool.configure(timezone=where_it_is_noon())
    at = parse_rfc3339(spool.row("COMPLETED")["at"])
    try:
        with opened(str(spool.config)) as view:
            later = [report.assemble(view, at + timedelta(hours=hours), to_the_second) for hours in (10, 14)]
    finally:
        local_time.use("local")
    assert [1, 0] == [document["delivered_today"] for document in later]
