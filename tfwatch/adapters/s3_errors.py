"""What boto3 raises, in the house's words: translated once, here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from tfwatch.adapters.secrecy import blot, holds
from tfwatch.errors import ContentChanged, ServiceError, ServiceFailure, Stopping, TransientError
from tfwatch.language import tr

_MAX_MESSAGE: Final = 300

_TRANSIENT_CODES: Final = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InvalidPart",
        "NoSuchKey",
        "NoSuchUpload",
        "OperationAborted",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    }
)
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429})


def hints() -> Mapping[str, str]:
    """What a person can do, for each of S3's error codes that a person must do something about.

    Source: Amazon S3 API reference, "List of error codes".
    """
    keys = _keys_hint()
    region = tr("check integrations.s3.region and endpoint_url: the bucket is kept elsewhere")
    rights = tr(
        "let this key use s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload, s3:ListBucket "
        "and s3:ListBucketMultipartUploads on the bucket"
    )
    return {
        "403": rights,
        "AccessDenied": rights,
        "AccountProblem": tr("ask whoever pays for the storage: the account is blocked"),
        "AuthorizationHeaderMalformed": region,
        "ExpiredToken": keys,
        "IllegalLocationConstraintException": region,
        "InvalidAccessKeyId": keys,
        "InvalidToken": keys,
        "NoSuchBucket": tr("create the bucket, or check integrations.s3.bucket"),
        "PermanentRedirect": region,
        "RequestTimeTooSkewed": tr("set this machine's clock: timedatectl set-ntp true"),
        "SignatureDoesNotMatch": keys,
    }


def _keys_hint() -> str:
    return tr("check integrations.s3.access_key and secret_key")


@contextmanager
def translated(secrets: Sequence[str]) -> Iterator[None]:
    """Raise `TransientError` or `ServiceError` for what boto3 raises.

    `secrets` are blotted out of messages: some servers repeat the access key. `Stopping` and `ContentChanged`,
    raised while the body was read, come out as they went in. Anything else is a bug and passes.
    """
    try:
        yield
    except ClientError as error:
        failure = _from_answer(error, secrets)
        raise failure from _harmless(error, secrets)
    except (BotoCoreError, ResponseParserError) as error:
        inner = getattr(error, "kwargs", {}).get("error")
        if isinstance(inner, (Stopping, ContentChanged)):
            raise inner from None
        silence = _from_silence(error, secrets)
        if silence is None:
            raise
        raise silence from _harmless(error, secrets)


def _from_answer(error: ClientError, secrets: Sequence[str]) -> ServiceFailure:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    details = error.response.get("Error", {})
    code = details.get("Code", "") or str(status)
    words = details.get("Message", "")
    message = _clean(f"S3 {error.operation_name}: {code}: {words}", secrets)
    if _passes(code, status):
        return TransientError(message, code=status, retry_after=_retry_after(error))
    return ServiceError(message, code=status, hint=hints().get(code, tr("check integrations.s3")))


def _passes(code: str, status: int | None) -> bool:
    """Whether waiting is enough. 501 is a server that lacks the feature: it will lack it tomorrow."""
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUSES:
        return True
    return code not in hints() and (status is None or (status >= 500 and status != 501))


def _retry_after(error: ClientError) -> float | None:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    value = headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _from_silence(error: Exception, secrets: Sequence[str]) -> ServiceFailure | None:
    message = _clean(f"S3: {error}", secrets)
    if "CERTIFICATE_VERIFY_FAILED" in message:
        hint = tr("the server's certificate is not known here: add its CA to this machine, or check endpoint_url")
        return ServiceError(message, hint=hint)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError)):
        return ServiceError(message, hint=_keys_hint())
    if isinstance(error, (BotoConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError)):
        return TransientError(message)
    return None


def _clean(message: str, secrets: Sequence[str]) -> str:
    return " ".join(blot(message, secrets, "[secret]").split())[:_MAX_MESSAGE]


def _harmless(error: Exception, secrets: Sequence[str]) -> Exception | None:
    """The cause to show in a traceback; None when its own words hold a secret."""
    return None if holds(str(error), secrets) else error
