"""Cancel packages for people who asked with a command.

It is their own `mv` into rejected/, done by the daemon: in a sticky outbox/ nobody else may move what another has
dropped. As with a `mv` the file goes first; `Moves` sees it there and logs it, by its content. A crash in between
leaves what a person's `mv` leaves: a ZIP in rejected/ that the log has elsewhere.
"""

from __future__ import annotations

import os

from loguru import logger

from tfwatch.delivery.cancelled import Cancelled
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.journal import fields_of
from tfwatch.model import Stage
from tfwatch.spool.listing import NotAPackage
from tfwatch.spool.names import printable


def cancel(desk: Desk, name: str, *, user: str, accepted_too: bool) -> bool:
    """Bring the file of that name into rejected/; its name is held. True when it was brought there.

    `accepted_too`: also out of submitted/, where its order goes on at the service and is not followed any more.
    """
    places = (Stage.OUTBOX, Stage.SUBMITTED) if accepted_too else (Stage.OUTBOX,)
    stage = next((place for place in places if desk.folders.look(place, name) is not None), None)
    tell = logger.bind(**fields_of(desk.index, name))
    if stage is None:
        if (found := desk.folders.find(name)) is not Stage.REJECTED:
            lies = f"it lies in {found}/ by now" if found else "no such file lies in outbox/"
            tell.warning(
                "cancel {}: it came too late, nothing was done: {}; see: tfwatch why {}",
                printable(name), lies, printable(name),
            )  # fmt: skip
        return False
    try:
        os.close(desk.folders.open(stage, name))
    except PermissionError:
        mend = desk.folders.how_to_let_read(stage, name)
        tell.warning(
            "cancel {}: it can't be read, so the log could not say what was cancelled; nothing was done: {}",
            printable(name), mend,
        )  # fmt: skip
        return False
    except (OSError, NotAPackage):
        pass  # whoever logs the move says so, and looks again
    target = desk.next_name(name, leaving=stage) if desk.folders.is_taken(Stage.REJECTED, name) else name
    desk.cancelled.note(target, Cancelled(was=name, user=user))
    try:
        desk.move(stage, name, Stage.REJECTED, target)
    except BaseException as error:
        desk.cancelled.forget(target)
        if isinstance(error, FileNotFoundError | FileExistsError):
            tell.warning("cancel {}: somebody moved it in the same moment; nothing was done", printable(name))
            return False
        raise
    return True
