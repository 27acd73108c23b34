"""The portal's own books: the orders it opened and the answers it saved by idempotency key."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tfwatch.sandbox.settings import PortalSettings, VerdictWhen


class BooksFull(Exception):
    """The portal holds as many orders as it may."""


class StillRunning(Exception):
    """The first request with this idempotency key has not been answered yet."""


@dataclass(slots=True, kw_only=True)
class Order:
    """One order. `word`: its status now; `final`: what it will become at `due` (monotonic seconds; None: decided).

    `first_byte_at`, `first_byte_monotonic`: when the first byte of the request that made it arrived. `requests`: how
    many POSTs were answered with it. `told`: its verdict was on its way to the client; `callbacks`: how often it was
    sent; `callback_taken`: the client took it.
    """

    id: str
    client_reference: str
    sha256: str
    bytes: int
    job_id: str
    version: str
    filename: str
    trace_id: str
    idempotency_key: str
    traceparent: str
    created_at: float
    first_byte_at: float
    first_byte_monotonic: float
    callback_url: str | None = None
    mode: str = ""
    language: str = ""
    word: str = ""
    message: str = ""
    final: str = ""
    due: float | None = None
    requests: int = 1
    told: bool = False
    callbacks: int = 0
    callback_taken: bool = False

    def as_json(self) -> dict[str, object]:
        """Everything, under the field names; `status` is the word."""
        shown = asdict(self)
        shown["status"] = shown.pop("word")
        return shown


class OrderBook:
    """All orders, each with its verdict planned when it was opened. `clock`: monotonic seconds."""

    def __init__(self, settings: PortalSettings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self._clock = clock
        self._orders: dict[str, Order] = {}
        self._by_reference: dict[str, list[Order]] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def make_room(self) -> None:
        """Raise `BooksFull` when no further order may be opened."""
        if len(self._orders) >= self.settings.max_orders:
            raise BooksFull(f"the sandbox holds {self.settings.max_orders} orders and takes no more")

    def open(self, order: Order) -> Order:
        """Enter a new order and plan its verdict. Raises `BooksFull`."""
        self.make_room()
        settings = self.settings
        refused = bool(settings.reject_pattern and re.search(settings.reject_pattern, order.job_id))
        order.word = settings.accepted_word
        order.final = settings.rejected_word if refused else settings.completed_word
        if settings.verdict is VerdictWhen.IMMEDIATE:
            self._decide(order, order.final, "")
        elif settings.verdict is VerdictWhen.DELAYED:
            order.due = self._clock() + settings.verdict_delay
        self._orders[order.id] = order
        self._by_reference.setdefault(order.client_reference, []).append(order)
        return order

    def get(self, order_id: str) -> Order | None:
        """The order as it stands now, None if there is none."""
        order = self._orders.get(order_id)
        return self._current(order) if order else None

    def by_reference(self, reference: str) -> list[Order]:
        """The orders opened under this client reference, oldest first."""
        return [self._current(order) for order in self._by_reference.get(reference, ())]

    def listing(self, offset: int, limit: int) -> list[Order]:
        """Orders in the sequence they were opened."""
        return [self._current(order) for order in list(self._orders.values())[offset : offset + limit]]

    def give_verdict(self, order_id: str, word: str, message: str) -> Order | None:
        """Settle an order now, in these words; None if there is no such order."""
        order = self._orders.get(order_id)
        if order is not None:
            self._decide(order, word, message)
        return order

    def clear(self) -> None:
        """Forget every order."""
        self._orders.clear()
        self._by_reference.clear()

    def is_refusal(self, order: Order) -> bool:
        """Whether the order's status is the portal's word for a refusal."""
        return order.word == self.settings.rejected_word

    def _current(self, order: Order) -> Order:
        if order.due is not None and self._clock() >= order.due:
            self._decide(order, order.final, "")
        return order

    def _decide(self, order: Order, word: str, message: str) -> None:
        order.word, order.due = word, None
        order.message = message or ("The audio could not be used." if word == self.settings.rejected_word else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAnswer:
    """What the first request with a key was answered: replayed to later ones with the same payload."""

    sha256: str
    order: Order
    status: int
    body: bytes


class IdempotencyKeys:
    """Answers by idempotency key (IETF draft-ietf-httpapi-idempotency-key-header-07)."""

    def __init__(self) -> None:
        self._answers: dict[str, SavedAnswer | None] = {}  # None: the first request is still running

    def begin(self, key: str) -> SavedAnswer | None:
        """The saved answer, or None for a key that is new and now running. Raises `StillRunning`."""
        if key not in self._answers:
            self._answers[key] = None
            return None
        saved = self._answers[key]
        if saved is None:
            raise StillRunning("the first request with this Idempotency-Key is still running; try again shortly")
        return saved

    def finish(self, key: str, answer: SavedAnswer) -> None:
        """Keep the answer to a key that was running."""
        self._answers[key] = answer

    def abandon(self, key: str) -> None:
        """Nothing came of it: the key is new again."""
        self._answers.pop(key, None)

    def clear(self) -> None:
        """Forget every key."""
        self._answers.clear()


def new_order_id() -> str:
    """An id never given before, also after a restart."""
    return f"dlv_{secrets.token_hex(8)}"
