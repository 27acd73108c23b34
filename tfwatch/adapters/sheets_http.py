"""Requests to Google Sheets: within its quota, with a time limit, and with its errors in the house's words."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import requests
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.service_account import Credentials
from gspread.exceptions import APIError
from gspread.http_client import HTTPClient

from tfwatch.adapters.http_date import moment
from tfwatch.adapters.secrecy import blot
from tfwatch.errors import ServiceError, ServiceFailure, TransientError
from tfwatch.language import tr

GOOGLE: Final = "https://sheets.googleapis.com"
_CONNECT_SECONDS: Final = 5.0
_PER_MINUTE: Final = 60
_QUOTA_SECONDS: Final = 60.0
_MAX_MESSAGE: Final = 300
_TRANSIENT: Final = frozenset({408, 425, 429})


class Window:
    """At most `_PER_MINUTE` requests in any minute. Source: developers.google.com/sheets/api/limits, per user."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sent: deque[float] = deque(maxlen=_PER_MINUTE)

    def wait(self) -> float:
        """Seconds until the next request may leave."""
        if len(self._sent) < _PER_MINUTE:
            return 0.0
        return max(0.0, self._sent[0] + _QUOTA_SECONDS - self._clock())

    def take(self) -> None:
        """Count a request that leaves now."""
        self._sent.append(self._clock())


class SheetsHTTP(HTTPClient):
    """gspread's HTTP client that keeps the quota and raises `TransientError` or `ServiceError`, nothing else.

    `clock`: monotonic seconds; `sleep` waits for some. `timeout_seconds`: to wait for the next byte; a full batch takes
    Google a while. `date`: the service's clock by its last answer. No retry here: whoever mirrors tries again.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        base_url: str | None,
        timeout_seconds: float,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        super().__init__(credentials, session=AuthorizedSession(credentials))  # type: ignore[no-untyped-call]
        self.set_timeout((min(_CONNECT_SECONDS, timeout_seconds), timeout_seconds))
        self.date: datetime | None = None
        self._base_url = (base_url or GOOGLE).rstrip("/")
        self._credentials = credentials
        self._email = credentials.service_account_email
        self._reads, self._writes = Window(clock), Window(clock)
        self._sleep = sleep

    def request(self, method: str, endpoint: str, *args: Any, **kwargs: Any) -> requests.Response:
        """As gspread's, but paced, bounded and translated. A reply that isn't JSON is a `TransientError`."""
        window = self._reads if method.lower() == "get" else self._writes
        if wait := window.wait():
            self._sleep(wait)
        window.take()
        try:
            response = super().request(method, self._base_url + endpoint.removeprefix(GOOGLE), *args, **kwargs)
            self.date = moment(response.headers.get("Date"))
            response.json()
        except APIError as error:
            self.date = moment(error.response.headers.get("Date"))
            raise self._refused(error) from None  # its text is the whole answer
        except GoogleAuthError as error:
            raise _not_logged_in(error) from error
        except requests.exceptions.SSLError as error:
            hint = tr("check this machine's clock and CA certificates, and integrations.sheets.api_base_url")
            raise ServiceError(self._clean(f"Google Sheets: {error}"), hint=hint) from error
        except requests.exceptions.RequestException as error:
            raise TransientError(self._clean(f"Google Sheets: {error}")) from error
        return response

    def _refused(self, error: APIError) -> ServiceFailure:
        # Not `error.code`, which is -1 for a body that isn't JSON (gspread 6.2.1).
        status = error.response.status_code
        message = self._clean(f"Google Sheets: {status}: {error.error.get('message', '')}")
        if status == 429:
            return TransientError(message, code=status, retry_after=_retry_after(error.response) or _QUOTA_SECONDS)
        if status in _TRANSIENT or status >= 500:
            return TransientError(message, code=status, retry_after=_retry_after(error.response))
        return ServiceError(message, code=status, hint=self._hint(status))

    def _clean(self, message: str) -> str:
        """Without the access token, should it be repeated."""
        return _one_line(blot(message, (self._credentials.token,)))

    def _hint(self, status: int) -> str:
        if status == 401:
            return tr("make a new key for the service account and give it as integrations.sheets.service_account_json")
        if status in (403, 404):
            return tr(
                "share the sheet with {email} as an editor, and check integrations.sheets.spreadsheet_id",
                email=self._email,
            )
        if status == 400:
            return tr("Google's words say why; when the sheet is full, start a new spreadsheet")
        return tr("check integrations.sheets")


def _not_logged_in(error: GoogleAuthError) -> ServiceFailure:
    message = _one_line(blot(f"Google login: {error}", ()))
    if isinstance(error, TransportError) or (isinstance(error, RefreshError) and error.retryable):
        return TransientError(message)
    hint = tr("check this machine's clock; else make a new key for the service account")
    return ServiceError(message, hint=hint)


def _retry_after(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _one_line(message: str) -> str:
    return " ".join(message.split())[:_MAX_MESSAGE]
