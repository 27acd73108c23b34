"""What can go wrong with a service, sorted by whom it concerns. Adapters translate once, at their edge."""

from __future__ import annotations

from tfwatch.language import tr


class ServiceFailure(Exception):
    """A call to a service did not give what was asked for.

    `message`: the service's own words, or ours, without secrets. `code`: its HTTP status, if it answered.
    `tries`: HTTP requests made in this attempt. `hint`: what a person can do next; empty when waiting is enough.
    `retry_after`: seconds the service asked us to wait, if it did.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        tries: int = 1,
        hint: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.tries = tries
        self.hint = hint
        self.retry_after = retry_after

    @property
    def in_words(self) -> str:
        """What happened, and what a person can do about it."""
        return f"{self.message}; {self.hint}" if self.hint else self.message


class TransientError(ServiceFailure):
    """Try later: not delivered, and nobody is to blame for long."""


class PermanentError(ServiceFailure):
    """This package, never: the service looked at it and refused it."""


class ServiceError(ServiceFailure):
    """Nobody, now: the service can't serve any package until a person acts (credentials, balance, address)."""


class OutcomeUnknown(ServiceFailure):
    """Can't know: the package may have been accepted, though no receipt came back."""


class Stopping(Exception):
    """The daemon is stopping and the call was cut before it could take effect: nothing was sent or stored."""


class StoppedInDoubt(Stopping):
    """The same, after everything had been sent once: it may have been accepted. The next start finds out."""


class StoppedBehind(Stopping):
    """The same, with a fact logged whose rename could not be done: the next start finishes it. Touch nothing."""


class ContentChanged(Exception):
    """The bytes sent were not the bytes inspected: the attempt is void and nothing was delivered."""


class Unreadable(ContentChanged):
    """A package's file can't be read now: no byte after that point was sent. `message`: the system's own words."""

    def __init__(self, message: str) -> None:
        super().__init__(tr("can't be read: {error}", error=message))
        self.message = message


class SheetDrift(ServiceFailure):
    """A person sorted or edited the sheet: rows there are not the rows of the log. `rows`: their seq numbers."""

    def __init__(self, message: str, *, rows: tuple[int, ...], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.rows = rows
