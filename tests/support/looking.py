"""What `tfwatch why` and `tfwatch fsck --deep` say of a spool, without a process for each question."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.support.daemon import Spool
from tfwatch import look, why
from tfwatch.fsck.survey import Scope, Survey
from tfwatch.model import rfc3339


def told(spool: Spool, word: str) -> dict[str, Any]:
    """The document that `tfwatch why WORD --json` prints."""
    with _view(spool) as view:
        return why.assemble(view, word, rfc3339)


def differences(spool: Spool, *, local: bool = False) -> list[str]:
    """All that `tfwatch fsck --deep` finds wrong; `local`: without asking S3 and the sheet."""
    with _view(spool) as view, closing(Survey(view, Scope(deep=True, local=local), _Quiet())) as survey:
        return [f"{found.kind}: {found.what} ({found.where})" for found in survey.find().differences]


class _Quiet:
    def begin(self, what: str, total: int) -> None:
        pass

    def advance(self, steps: int = 1) -> None:
        pass


@contextmanager
def _view(spool: Spool) -> Iterator[look.View]:
    with closing(look.open_view(look.settings(str(spool.config), {}))) as view:
        yield view
