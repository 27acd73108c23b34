"""Profile `gotranscript-v4`: the public API (gotranscript.com/api, v4, as seen in November 2025).

The service fetches the package from a presigned URL. It offers neither status, nor lookup, nor idempotency keys, and
every order costs money: its verdict comes by callback alone, and an unknown outcome is left to a person.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from tfwatch.adapters.gotranscript_http import Door, FormBody, Outgoing
from tfwatch.adapters.gotranscript_replies import Reply, document, refusal, without_receipt, words, words_of
from tfwatch.adapters.secrecy import holds
from tfwatch.errors import ServiceError
from tfwatch.foreign import find_id
from tfwatch.language import tr
from tfwatch.model import Profile, Receipt, Submission, Verdict

_ABOUT_THE_ACCOUNT = re.compile(r"token|credential|api.?key|authenticat|unauthori|balance|funds|wallet", re.IGNORECASE)


class PublicApi:
    """How the public API is spoken to."""

    profile = Profile.GOTRANSCRIPT_V4
    needs_source_url = True

    def __init__(
        self, door: Door, base_url: str, api_token: str, *, mode: str, language: str | None, callback_url: str | None
    ) -> None:
        self._door = door
        self._base_url = base_url
        self._url = f"{base_url}/api/v4/transcriptions"
        self._api_token = api_token
        self._mode = mode
        self._language = language
        self._callback_url = callback_url

    def post(self, submission: Submission) -> Receipt:
        """`POST /api/v4/transcriptions`. Raises ValueError without a source URL: a bug of the caller."""
        if submission.source_url is None:
            raise ValueError("profile gotranscript-v4 needs Submission.source_url")
        fields = {"api_token": self._api_token, "mode": self._mode, "url": submission.source_url}
        if self._language is not None:
            fields["language"] = self._language
        if self._callback_url is not None:
            fields["callback_url"] = with_reference(self._callback_url, submission.package.sha256)
        outgoing = Outgoing(method="POST", url=self._url, headers={}, body=FormBody(fields))
        return read_order(self._door.exchange(outgoing, submission.source_url))

    def look_up(self, submission: Submission) -> Receipt | None:
        """Raises `ServiceError`: the public API has no lookup."""
        raise ServiceError(
            tr("the service can't be asked for package {sha256}: it has no lookup", sha256=submission.package.sha256),
            hint=tr("look for the order in your account at the service"),
        )

    def harmless(self) -> Outgoing:
        """A look at the base URL, without the token: whatever shows that it is known may cost money."""
        return Outgoing(method="GET", url=f"{self._base_url}/", headers={})

    def proven_by(self, reply: Reply) -> str:
        """Any answer that isn't the failure of a server proves that it is reached, and no more."""
        if reply.code >= 500:
            raise refusal(reply)
        return "it is reached; this API has no harmless call, so the API key was not tried"


def read_order(reply: Reply) -> Receipt:
    """The order that was opened; always pending, since its verdict comes by callback.

    Raises as `read_receipt` does, except that a 400 may also mean bad credentials or an empty account: those concern
    every package, so they are a `ServiceError`.
    """
    if not reply.success:
        if reply.code == 400 and _ABOUT_THE_ACCOUNT.search(words(reply)):
            hint = tr("check integrations.gotranscript.api_key, and the account's balance")
            raise ServiceError(words(reply), code=reply.code, hint=hint)
        raise refusal(reply)
    answer = document(reply)
    order_id = find_id(answer, "order_id")
    if order_id is None or holds(order_id, reply.secrets):
        raise without_receipt(reply)
    word = words_of(answer.get("status"), reply)
    return Receipt(order_id=order_id, verdict=Verdict.PENDING, word=word, code=reply.code)


def with_reference(callback_url: str, sha256: str) -> str:
    """The callback URL with `client_reference=<sha256>` behind whatever query it has; a fragment is dropped."""
    parts = urlsplit(callback_url)
    query = f"{parts.query}&" if parts.query else ""
    return parts._replace(query=f"{query}client_reference={quote(sha256, safe='')}", fragment="").geturl()
