"""What can be made to go wrong, on which requests, how often and how many times."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from tfwatch.sandbox.wire import JSON, Drip, Hang, Reset, Truncated, drain

Endpoint = Callable[[Request], Awaitable[Response]]
ErrorShape = Callable[[int, str, dict[str, str]], Response]
"""Builds a service's own error reply from status, message and headers."""


class Target(StrEnum):
    """Which requests a fault is for."""

    SUBMIT = "submit"
    STATUS = "status"
    LOOKUP = "lookup"
    SHEETS = "sheets"
    TOKEN = "token"  # noqa: S105 - the token endpoint's name


class FaultKind(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"  # `seconds` pass before the request is served as usual
    STATUS = "status"  # an error reply of `status`, with `retry_after` if given
    HANG = "hang"  # no reply until the client gives up, 120 s at most
    RESET = "reset"  # the request takes effect, then the connection is reset
    RESET_EARLY = "reset-early"  # the connection is reset before the body is read
    GARBAGE = "garbage"  # 200 with a body that is not JSON
    NO_ID = "no-id"  # the reply lacks the order's id
    DRIP = "drip"  # the reply's body comes one byte every `seconds`
    TRUNCATED = "truncated"  # the reply breaks off in the middle of its body


_SILENT_EFFECT = {FaultKind.STATUS, FaultKind.HANG}
_ID_KEYS = ("id", "order_id", "delivery_id", "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    `probability` (0 to 1) is drawn for each request; after `times` hits the fault is over (None: never). `accept` says
    whether the request takes effect first (an order is made); None: as the kind has it, which is no for `status`
    and `hang`, yes for spoilt replies and `reset`. `seconds`: of latency, or between dripped bytes. `retry_after`:
    that header's value, seconds or a date.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    kind: FaultKind
    target: Target = Target.SUBMIT
    probability: float = 1.0
    times: int | None = None
    accept: bool | None = None
    status: int = 503
    seconds: float = 0.1
    retry_after: str | int | None = None
    message: str = "The sandbox was told to fail."

    @property
    def takes_effect(self) -> bool:
        """Whether the request is served before its reply is spoilt."""
        return self.kind not in _SILENT_EFFECT if self.accept is None else self.accept


def parse_faults(text: str | bytes) -> tuple[Fault, ...]:
    """Read a JSON list of faults; raises `pydantic.ValidationError`."""
    return TypeAdapter(tuple[Fault, ...]).validate_json(text)


class Faults:
    """The faults in force. `rng` decides about probabilities, so a seed makes a run repeatable."""

    def __init__(self, faults: Sequence[Fault], rng: random.Random) -> None:
        self._rng = rng
        self._faults: tuple[Fault, ...] = ()
        self._hits: Counter[int] = Counter()
        self.replace(faults)

    def replace(self, faults: Sequence[Fault]) -> None:
        """Put these faults in force instead, their counts at zero."""
        self._faults = tuple(faults)
        self._hits.clear()

    def listing(self) -> list[tuple[Fault, int]]:
        """The faults in force and how often each has hit, spent ones included."""
        return [(fault, self._hits[number]) for number, fault in enumerate(self._faults)]

    def draw(self, target: Target) -> list[Fault]:
        """What goes wrong with this request: every latency that hits, and then the first other fault that does."""
        drawn: list[Fault] = []
        for number, fault in enumerate(self._faults):
            if fault.target is target and self._is_hit(number, fault):
                self._hits[number] += 1
                drawn.append(fault)
                if fault.kind is not FaultKind.LATENCY:
                    break
        return drawn

    def _is_hit(self, number: int, fault: Fault) -> bool:
        if fault.times is not None and self._hits[number] >= fault.times:
            return False
        return fault.probability >= 1.0 or self._rng.random() < fault.probability

    def guard(self, target: Target, endpoint: Endpoint, error: ErrorShape) -> Endpoint:
        """The endpoint, made to fail as told."""

        async def guarded(request: Request) -> Response:
            for fault in self.draw(target) if self._faults else ():
                if fault.kind is not FaultKind.LATENCY:
                    return await _spoil(fault, request, endpoint, error)
                await asyncio.sleep(fault.seconds)
            return await endpoint(request)

        return guarded


async def _spoil(fault: Fault, request: Request, endpoint: Endpoint, error: ErrorShape) -> Response:
    if fault.kind is FaultKind.RESET_EARLY:
        return Reset()
    if fault.takes_effect:
        reply = await endpoint(request)
    else:
        await drain(request)
        reply = JSON({"id": "never-made", "status": "received"}, status_code=201)
    match fault.kind:
        case FaultKind.STATUS:
            headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
            return error(fault.status, fault.message, headers)
        case FaultKind.HANG:
            return Hang()
        case FaultKind.RESET:
            return Reset()
        case FaultKind.GARBAGE:
            return Response(b"<html>\xff\xfe Welcome to the hotel Wi-Fi", 200, media_type="text/html")
        case FaultKind.NO_ID:
            return _without_id(reply)
        case FaultKind.DRIP:
            return Drip(reply, fault.seconds)
        case _:
            return Truncated(reply)


def _without_id(reply: Response) -> Response:
    content = json.loads(bytes(reply.body))
    return JSON({key: value for key, value in content.items() if key not in _ID_KEYS}, status_code=reply.status_code)
