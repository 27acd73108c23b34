"""Those who call in: who may, and what they are answered. Knows nothing of HTTP but status codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tfwatch.delivery.webhooks import Answer, Call, TakeWebhook
from tfwatch.ledger.log import LogUnwritable
from tfwatch.web.signatures import prove
from tfwatch.webhook_secrets import SecretsFile, SecretsUnusable, Trouble, too_old

UNAUTHORIZED: Final = 401
UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The section `webhooks` of config.yaml."""

    secrets_file: str
    max_secret_age_days: int
    tolerance_seconds: float


class Callers:
    """Webhooks, but for their HTTP. `configure` is the loop's; all else may be called by any thread."""

    def __init__(
        self,
        take: TakeWebhook,
        terms: Callable[[], Terms],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._take = take
        self._read = terms
        self._clock = clock
        self._terms = terms()
        self._file = SecretsFile(self._terms.secrets_file)

    def configure(self) -> None:
        """Take over the section `webhooks`."""
        self._terms = self._read()
        if self._file.path != self._terms.secrets_file:
            self._file = SecretsFile(self._terms.secrets_file)

    def start(self) -> None:
        """There is nothing to begin: others have the threads."""

    def stop(self, deadline: float) -> None:
        """Nor to end."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person should look at, for `status`."""
        return tuple(trouble.message for trouble in self.troubles())

    def troubles(self) -> tuple[Trouble, ...]:
        """The same for alerts: secrets that can't be used, and those that are too old."""
        try:
            keys = self._file.keys()
        except SecretsUnusable as error:
            return (error.trouble,)
        return too_old(keys, now=self._clock(), max_age_days=self._terms.max_secret_age_days)

    def answer(
        self, integration: str, token: str | None, headers: Mapping[str, str], body: bytes, client_reference: str
    ) -> Answer | int:
        """Take a call, or the HTTP status that refuses it. `headers`: lower-case names.

        `client_reference`: what the query of the address says; only a token vouches for it, no signature does.
        """
        file = self._file
        try:
            keys = file.keys()
        except SecretsUnusable:
            return UNAVAILABLE
        proof = prove(
            keys.get(integration), integration=integration, token=token, headers=headers, body=body, now=self._clock(),
            tolerance=timedelta(seconds=self._terms.tolerance_seconds),
        )  # fmt: skip
        if proof is None:
            return UNAUTHORIZED
        call = Call(
            integration=integration, via=proof.via, message_id=proof.message_id, body=body,
            client_reference=client_reference if proof.via == "token" else "",
        )  # fmt: skip
        try:
            return self._take.take(call)
        except LogUnwritable:
            return UNAVAILABLE
