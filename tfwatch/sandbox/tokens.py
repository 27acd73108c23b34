"""The OAuth token endpoint that a service account logs in at, and the tokens it gave out."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import google.auth.exceptions
import google.auth.jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfwatch.sandbox.faults import Faults, Target
from tfwatch.sandbox.wire import JSON, TooLarge, read_body

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GOOGLE_AUDIENCE = "https://oauth2.googleapis.com/token"
"""What google-auth (seen in 2.62) writes as `aud` whatever the account's `token_uri` is; Google takes both."""

_MAX_BODY = 64 * 1024
_MAX_TOKENS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one access token allows, to whom, until when (seconds on the service's clock)."""

    email: str
    scopes: frozenset[str]
    expires: float


class Refusal(Exception):
    """The login is refused: RFC 6749 `error` and its description."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


def make_service_account(base_url: str) -> dict[str, str]:
    """A service account's JSON as Google's console would give it, with a fresh RSA-2048 key.

    Its `token_uri` is the sandbox at `base_url`. Takes about 0.1 s.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    email = "tfwatch@sandbox.invalid"
    return {
        "type": "service_account",
        "project_id": "sandbox",
        "private_key_id": uuid.uuid4().hex,
        "private_key": pem.decode(),
        "client_email": email,
        "client_id": "100000000000000000000",
        "token_uri": f"{base_url}/token",
        "auth_uri": f"{base_url}/auth",
        "universe_domain": "googleapis.com",
    }


def _public_key(service_account: dict[str, str]) -> str:
    key = serialization.load_pem_private_key(service_account["private_key"].encode(), password=None)
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


class TokenService:
    """POST /token, for one service account. `lifetime` gives the seconds a new token lasts."""

    def __init__(
        self,
        base_url: str,
        service_account: dict[str, str] | None,
        lifetime: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._base_url = base_url
        self._account = service_account
        self._public: str | None = None
        self._audiences = [f"{base_url}/token", GOOGLE_AUDIENCE]
        self._lifetime = lifetime
        self._clock = clock
        self._grants: dict[str, Grant] = {}
        self.issued = 0

    def account(self) -> dict[str, str]:
        """The service account that may log in here; made on first use if none was given."""
        if self._account is None:
            self._account = make_service_account(self._base_url)
        return self._account

    def routes(self, faults: Faults) -> list[Route]:
        """The endpoint, made to fail as told."""
        return [Route("/token", faults.guard(Target.TOKEN, self._token, _fault), methods=["POST"])]

    def grant(self, authorization: str) -> Grant | None:
        """What an Authorization header allows; None when it is missing, unknown or expired."""
        scheme, _, token = authorization.partition(" ")
        grant = self._grants.get(token) if scheme == "Bearer" else None
        return grant if grant and self._clock() < grant.expires else None

    def revoke(self) -> None:
        """Make every token worthless."""
        self._grants.clear()

    async def _token(self, request: Request) -> Response:
        try:
            form = dict(parse_qsl((await read_body(request, _MAX_BODY)).decode()))
            grant = self._checked(form)
        except Refusal as refusal:
            return _error(400, refusal.error, refusal.description)
        except (TooLarge, ValueError) as error:
            return _error(400, "invalid_request", str(error))
        token = f"sandbox.{secrets.token_urlsafe(32)}"
        while len(self._grants) >= _MAX_TOKENS:
            del self._grants[next(iter(self._grants))]
        self._grants[token] = grant
        self.issued += 1
        return JSON({"access_token": token, "expires_in": self._lifetime(), "token_type": "Bearer"})

    def _checked(self, form: dict[str, str]) -> Grant:
        if form.get("grant_type") != GRANT_TYPE:
            raise Refusal("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type', '')}")
        claims = self._verified(form.get("assertion", ""))
        if claims.get("iss") != self.account()["client_email"]:
            raise Refusal("invalid_grant", "Invalid grant: account not found")
        scopes = frozenset(str(claims.get("scope", "")).split())
        if not scopes:
            raise Refusal("invalid_scope", "Empty or missing scope not allowed.")
        return Grant(email=claims["iss"], scopes=scopes, expires=self._clock() + self._lifetime())

    def _verified(self, assertion: str) -> dict[str, Any]:
        """The claims of an RS256 JWT signed with the account's key, for this endpoint, not expired."""
        if self._public is None:
            self._public = _public_key(self.account())
        try:
            claims: Mapping[str, Any] = google.auth.jwt.decode(  # type: ignore[no-untyped-call]
                assertion, certs=self._public, audience=self._audiences, clock_skew_in_seconds=10
            )
        except (google.auth.exceptions.GoogleAuthError, ValueError) as error:
            raise Refusal("invalid_grant", f"Invalid JWT: {error}") from error
        return dict(claims)


def _error(status: int, error: str, description: str, headers: dict[str, str] | None = None) -> Response:
    return JSON({"error": error, "error_description": description}, status_code=status, headers=headers)


def _fault(status: int, message: str, headers: dict[str, str]) -> Response:
    return _error(status, "internal_failure" if status >= 500 else "invalid_grant", message, headers)
