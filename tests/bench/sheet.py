"""A sheet that is far behind: calls and time until it shows all rows, under Google's own quota."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

from tests.bench import proc
from tests.bench.figures import Figure, at_most
from tests.bench.past import ROWS_EACH, Past, write_past
from tests.bench.rig import Rig
from tests.support.daemon import Spool, wait_until

_ROWS = 100_000
_ROWS_QUICK = 20_000
_PATIENCE_SECONDS = 900.0
_MIB = 2**20


def measure(rig: Rig) -> list[Figure]:
    """A log that no sheet has seen yet. The sandbox counts calls, and refuses those beyond 60 a minute."""
    rows = _ROWS_QUICK if rig.quick else _ROWS
    calls, refused, seconds, cpu, peaks = [], [], [], [], []
    for _ in range(rig.repeats):
        with rig.portal() as portal, rig.spool(portal) as spool:
            account = spool.home / "account.json"
            account.write_text(json.dumps(portal.service_account()))
            account.chmod(0o600)
            write_past(spool.root, Past(delivered=rows // ROWS_EACH))
            sheets = {
                "enabled": True,
                "spreadsheet_id": portal.sheets()["spreadsheet_id"],
                "service_account_json": str(account),
                "api_base_url": portal.url,
            }
            spool.configure(integrations={"sheets": sheets})
            spool.start(seconds=_PATIENCE_SECONDS)
            assert spool.process is not None
            before, began = proc.look(spool.process.pid), time.monotonic()
            wait_until(lambda: _shown(spool) >= rows, f"the sheet shows {rows:,} rows", _PATIENCE_SECONDS)
            seconds.append(time.monotonic() - began)
            after, counts = proc.look(spool.process.pid), portal.sheets()
            calls.append(counts["reads"] + counts["writes"])
            refused.append(counts["throttled"])
            cpu.append(after.cpu - before.cpu)
            peaks.append(after.peak_rss / _MIB)
            (worksheet,) = (sheet for sheet in portal.sheets(values=True)["worksheets"] if len(sheet["values"]) > 1)
            assert [str(row) for row in range(1, rows + 1)] == [row[0] for row in worksheet["values"][1 : rows + 1]]
    return [
        Figure(name=f"calls for {rows:,} rows", unit="", runs=tuple(calls), limit=at_most(60)),
        Figure(name="calls refused for the quota", unit="", runs=tuple(refused), limit=at_most(0)),
        Figure(name="time until all are shown", unit="s", runs=tuple(seconds)),
        Figure(name="CPU", unit="s", runs=tuple(cpu)),
        Figure(name="peak memory", unit="MiB", runs=tuple(peaks)),
    ]


def _shown(spool: Spool) -> int:
    """Up to which row the sheet shows the log, as the daemon has noted it."""
    with closing(sqlite3.connect(f"file:{spool.root}/.tfwatch/index.sqlite?mode=ro", uri=True)) as index:
        found = index.execute("SELECT value FROM meta WHERE key LIKE 'sheet:%'").fetchone()
    return int(found[0].split()[1]) if found else 0
