"""Profile `deliveries`: a package goes up as a file, under an idempotency key, and its order can be looked up."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from urllib.parse import quote

from tfwatch.adapters.gotranscript_http import Door, Outgoing, PackageBody
from tfwatch.adapters.gotranscript_replies import Reply, read_lookup, read_receipt
from tfwatch.errors import ServiceError
from tfwatch.language import tr
from tfwatch.model import Profile, Receipt, Submission

_NOBODYS = "0" * 64
"""A client reference that no package has: no content is known whose SHA-256 is this."""

_ONE_WORD = re.compile(r"[\x21-\x7e]+")


class Deliveries:
    """How a service of profile `deliveries` is spoken to."""

    profile = Profile.DELIVERIES
    needs_source_url = False

    def __init__(self, door: Door, base_url: str, api_key: str) -> None:
        self._door = door
        self._url = f"{base_url}/deliveries"
        self._api_key = api_key

    def post(self, submission: Submission) -> Receipt:
        """`POST /deliveries`: the package itself, streamed."""
        package = submission.package
        fields = {
            "job_id": package.job_id,
            "version": package.version,
            "sha256": package.sha256,
            "client_reference": package.sha256,
            "meta[trace_id]": package.trace_id,
        }
        headers = {
            **authorization(self._api_key),
            "Idempotency-Key": f'"{submission.idempotency_key}"',
            "traceparent": traceparent(package.trace_id),
        }
        body = PackageBody(submission, fields)
        return read_receipt(self._door.exchange(Outgoing(method="POST", url=self._url, headers=headers, body=body)))

    def look_up(self, submission: Submission) -> Receipt | None:
        """`GET /deliveries?client_reference=…`: the order the service holds for this package, if any."""
        package = submission.package
        reply = self._door.exchange(self._lookup(package.sha256, traceparent=traceparent(package.trace_id)))
        return read_lookup(reply, client_reference=package.sha256, known_order=submission.known_order)

    def harmless(self) -> Outgoing:
        """A lookup of what nobody has sent."""
        return self._lookup(_NOBODYS)

    def proven_by(self, reply: Reply) -> str:
        """A list, and the key is known; raises as `read_lookup` does."""
        read_lookup(reply, client_reference=_NOBODYS, known_order=lambda order_id: False)
        return "it knows the API key and answers a lookup"

    def _lookup(self, client_reference: str, **headers: str) -> Outgoing:
        url = f"{self._url}?client_reference={quote(client_reference, safe='')}"
        return Outgoing(method="GET", url=url, headers={**authorization(self._api_key), **headers})


def ask_status(base_url: str, order_id: str, api_key: str) -> Outgoing:
    """`GET /deliveries/{id}`, whatever characters the id holds."""
    segment = quote(order_id, safe="", errors="replace")
    if not segment.strip("."):
        segment = segment.replace(".", "%2E")  # `.` and `..` would walk up the path
    return Outgoing(method="GET", url=f"{base_url}/deliveries/{segment}", headers=authorization(api_key))


def authorization(api_key: str) -> Mapping[str, str]:
    """The bearer header. Raises `ServiceError` for a key that can't stand in one, without quoting it."""
    if not _ONE_WORD.fullmatch(api_key):
        raise ServiceError(
            tr("the API key is empty or holds characters that can't be sent"),
            hint=tr("set integrations.gotranscript.api_key anew, without spaces or line breaks"),
        )
    return {"Authorization": f"Bearer {api_key}"}


def traceparent(trace_id: str) -> str:
    """W3C Trace Context: the trace id as 32 hex digits (its SHA-256 if it isn't such), with a new span each time."""
    trace = trace_id.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", trace) or not trace.strip("0"):
        trace = hashlib.sha256(trace_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"00-{trace}-{os.urandom(8).hex()}-01"
