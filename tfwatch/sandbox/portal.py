"""The transcription portal, profile `deliveries`: multipart in, order out, verdict later."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfwatch.sandbox.callbacks import Courier
from tfwatch.sandbox.faults import Endpoint, Faults, Target
from tfwatch.sandbox.orders import (
    BooksFull,
    IdempotencyKeys,
    Order,
    OrderBook,
    SavedAnswer,
    StillRunning,
    new_order_id,
)
from tfwatch.sandbox.upload import BadUpload, Upload, UploadedFile, read_upload
from tfwatch.sandbox.wire import JSON, arrival_of, drain, problem

REQUIRED_FIELDS = ("job_id", "version", "sha256", "client_reference", "meta[trace_id]")


class Refused(Exception):
    """The portal's answer is an error. `drained`: the request's body has been read already."""

    def __init__(self, status: int, detail: str, *, drained: bool = False, headers: dict[str, str] | None = None):
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.drained = drained
        self.headers = headers


class Portal:
    """Profile `deliveries`: POST /deliveries, GET /deliveries/{id}, GET /deliveries?client_reference=…"""

    def __init__(self, book: OrderBook, courier: Courier) -> None:
        self.book = book
        self.keys = IdempotencyKeys()
        self._courier = courier

    def routes(self, faults: Faults) -> list[Route]:
        """The endpoints, made to fail as told."""

        def guarded(target: Target, endpoint: Callable[[Request], Awaitable[Response]]) -> Endpoint:
            return faults.guard(target, _answering(endpoint), problem)

        return [
            Route("/deliveries", guarded(Target.SUBMIT, self._submit), methods=["POST"]),
            Route("/deliveries", guarded(Target.LOOKUP, self._lookup), methods=["GET"]),
            Route("/deliveries/{order_id}", guarded(Target.STATUS, self._status), methods=["GET"]),
        ]

    async def _submit(self, request: Request) -> Response:
        self._authorize(request)
        if not self.book.settings.idempotency:
            return self._created(await self._open(request, ""))
        key = _idempotency_key(request)
        try:
            saved = self.keys.begin(key)
        except StillRunning as error:
            raise Refused(409, str(error)) from error
        if saved is not None:
            return await self._replay(request, saved)
        answer = None
        try:
            order = await self._open(request, key)
            answer = self._created(order)
            saved = SavedAnswer(sha256=order.sha256, order=order, status=answer.status_code, body=bytes(answer.body))
            self.keys.finish(key, saved)
        finally:
            if answer is None:
                self.keys.abandon(key)
        return answer

    async def _open(self, request: Request, key: str) -> Order:
        upload = await _read(request)
        file = _checked_file(upload)
        try:
            self.book.make_room()
        except BooksFull as error:
            raise Refused(507, str(error), drained=True) from error
        if self.book.settings.work_seconds:
            await asyncio.sleep(self.book.settings.work_seconds)
        order = self.book.open(_order(request, upload, file, key))
        self._courier.watch(order)
        return order

    def _created(self, order: Order) -> Response:
        body = {"id": order.id, "status": order.word, "message": order.message}
        return JSON(body, status_code=self.book.settings.accepted_status)

    async def _replay(self, request: Request, saved: SavedAnswer) -> Response:
        upload = await _read(request)
        if upload.file is None or upload.file.sha256 != saved.sha256:
            raise Refused(422, "this Idempotency-Key was used before with another payload", drained=True)
        saved.order.requests += 1
        return Response(saved.body, saved.status, media_type="application/json")

    async def _status(self, request: Request) -> Response:
        self._authorize(request)
        order = self.book.get(request.path_params["order_id"])
        if order is None:
            raise Refused(404, "there is no such delivery")
        return JSON(_shown(order))

    async def _lookup(self, request: Request) -> Response:
        self._authorize(request)
        if not self.book.settings.lookup:
            raise Refused(404, "this portal has no lookup")
        reference = request.query_params.get("client_reference")
        if not reference:
            raise Refused(400, "client_reference is missing")
        return JSON({"items": [_shown(order) for order in self.book.by_reference(reference)]})

    def _authorize(self, request: Request) -> None:
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self.book.settings.api_key}".encode()):
            raise Refused(401, "the API key is missing or wrong", headers={"www-authenticate": "Bearer"})


def _answering(endpoint: Callable[[Request], Awaitable[Response]]) -> Endpoint:
    async def answering(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused as refused:
            if not refused.drained:
                await drain(request)
            return problem(refused.status, refused.detail, refused.headers)

    return answering


async def _read(request: Request) -> Upload:
    try:
        return await read_upload(request)
    except BadUpload as error:
        raise Refused(400, str(error), drained=True) from error


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if not key:
        raise Refused(400, "the Idempotency-Key header is missing")
    if len(key) < 3 or key[0] != '"' or key[-1] != '"':
        raise Refused(400, 'the Idempotency-Key header must be a quoted string, such as "8e03978e"')
    return key


def _checked_file(upload: Upload) -> UploadedFile:
    missing = [name for name in REQUIRED_FIELDS if not upload.fields.get(name)]
    if upload.file is None or upload.file.field_name != "package":
        missing.append("package")
    if upload.file is None or missing:
        raise Refused(422, f"missing: {', '.join(missing)}", drained=True)
    if upload.file.sha256 != upload.fields["sha256"]:
        detail = f"the package's SHA-256 is {upload.file.sha256}, not {upload.fields['sha256']}"
        raise Refused(422, detail, drained=True)
    return upload.file


def _order(request: Request, upload: Upload, file: UploadedFile, key: str) -> Order:
    arrival = arrival_of(request.scope)
    reference = upload.fields["client_reference"]
    return Order(
        id=new_order_id(),
        client_reference=file.sha256 if reference == file.sha256 else reference,  # one string, not two
        sha256=file.sha256,
        bytes=file.bytes,
        job_id=upload.fields["job_id"],
        version=upload.fields["version"],
        filename=file.filename,
        trace_id=upload.fields["meta[trace_id]"],
        idempotency_key=key,
        traceparent=request.headers.get("traceparent", ""),
        created_at=time.time(),
        first_byte_at=arrival.at,
        first_byte_monotonic=arrival.monotonic,
    )


def _shown(order: Order) -> dict[str, str]:
    return {
        "id": order.id,
        "status": order.word,
        "message": order.message,
        "client_reference": order.client_reference,
    }
