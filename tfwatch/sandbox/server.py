"""Runs the sandbox: in a background thread for tests and the demo, in the foreground for `tfwatch sandbox`."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

import uvicorn

from tfwatch.model import Profile
from tfwatch.sandbox.control import Control, edit, sheets_as_json
from tfwatch.sandbox.faults import Fault
from tfwatch.sandbox.outbound import require_loopback
from tfwatch.sandbox.services import Application, Services
from tfwatch.sandbox.settings import SandboxSettings
from tfwatch.sandbox.wire import SandboxProtocol

_START_SECONDS = 10.0
_GRACE_SECONDS = 0.05
_BACKLOG = 1024

_T = TypeVar("_T")


class _Server(uvicorn.Server):
    """uvicorn, telling when it is ready, and stopping at once: a hung request must not hold it up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        await self.on_tick(0)
        self.ready.set()

    async def main_loop(self) -> None:
        # uvicorn's tick writes the Date header anew.
        while not self._ended.is_set():
            await self.on_tick(0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 1)

    def end(self) -> None:
        """Stop, from any thread; nothing happens if it never started or has ended."""
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._ended.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        tasks = set(self.server_state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
        for connection in list(self.server_state.connections):
            assert isinstance(connection, SandboxProtocol)
            connection.transport.abort()
        await asyncio.sleep(0)  # connections learn that they are lost before their tasks are cancelled
        for task in self.server_state.tasks:
            task.cancel()


class Sandbox:
    """A running sandbox: `with Sandbox(settings) as sandbox: … sandbox.url …`

    Its methods may be called from any thread; each is carried out on the sandbox's own.
    """

    def __init__(
        self, settings: SandboxSettings | None = None, *, sheets_clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Bind the port; raises `NotLoopback` for any address but this machine's own, and OSError.

        `sheets_clock`: the seconds that the Sheets quota and the tokens' lives are measured in.
        """
        self._settings = settings or SandboxSettings()
        host = require_loopback(self._settings.host)
        self._socket = _listen(host, self._settings.port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        self._services = Services(self._settings, self.url, sheets_clock)
        routes = [*self._services.routes(), *Control(self._services).routes()]
        config = uvicorn.Config(
            Application(routes, self._services.journal),
            http=SandboxProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            loop="asyncio",
            proxy_headers=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=60,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def __enter__(self) -> Self:
        """Start serving; returns once requests are answered."""
        self._thread.start()
        if not self._server.ready.wait(_START_SECONDS):
            raise RuntimeError("the sandbox did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving; requests under way are cut."""
        self.stop()

    def stop(self) -> None:
        """Stop serving, within 0.3 s whatever hangs. Calling twice is once."""
        self._server.end()
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()

    @property
    def api_key(self) -> str:
        """The key the portal takes now."""
        return self._services.book.settings.api_key

    @property
    def spreadsheet_id(self) -> str:
        """The id of its one spreadsheet."""
        return self._services.spreadsheet().id

    def service_account(self) -> dict[str, str]:
        """The service account that may log in; its key is made on first use."""
        return self._on_loop(self._services.tokens.account)

    def orders(self, offset: int = 0, limit: int = 1_000_000) -> list[dict[str, object]]:
        """The portal's own list of orders, as `GET /_sandbox/orders` shows it."""
        return self._on_loop(lambda: self._services.orders(offset, limit))

    def requests(self) -> dict[str, object]:
        """The last requests and the counters, as `GET /_sandbox/requests` shows them."""
        return self._on_loop(self._services.journal.as_json)

    def sheets(self) -> dict[str, object]:
        """The spreadsheet's content and counters, as `GET /_sandbox/sheets` shows them."""
        return self._on_loop(lambda: sheets_as_json(self._services))

    def edit_sheet(self, **what: object) -> None:
        """Do what a person does by hand; see `control.edit`."""
        self._on_loop(lambda: edit(self._services.spreadsheet(), what))

    def set_faults(self, *faults: Fault) -> None:
        """Put these faults in force instead of the ones before; none at all heals it."""
        self._on_loop(lambda: self._services.set_faults(faults))

    def faults(self) -> list[tuple[Fault, int]]:
        """The faults in force and how often each has hit, as `GET /_sandbox/faults` shows them."""
        return self._on_loop(self._services.faults.listing)

    def set_settings(self, **changes: Mapping[str, object]) -> None:
        """Change settings: `portal={…}`, `sheets={…}`. Raises `pydantic.ValidationError`."""
        self._on_loop(lambda: self._services.set_settings(changes))

    def give_verdict(self, order_id: str, word: str, message: str = "") -> None:
        """Settle an order now and call back; raises KeyError if there is no such order."""
        if self._on_loop(lambda: self._services.give_verdict(order_id, word, message)) is None:
            raise KeyError(order_id)

    def revoke_tokens(self) -> None:
        """Make every access token given out so far worthless."""
        self._on_loop(self._services.tokens.revoke)

    def reset(self) -> None:
        """Back to how it was at the start."""
        self._on_loop(self._services.reset)

    def _on_loop(self, act: Callable[[], _T]) -> _T:
        async def acting() -> _T:
            return act()

        assert self._server.loop is not None, "the sandbox is not running"
        return asyncio.run_coroutine_threadsafe(acting(), self._server.loop).result()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every reply waits 40 ms for an ACK
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def serve(settings: SandboxSettings, *, on_ready: Callable[[Sandbox], None]) -> None:
    """Run a sandbox until SIGINT or SIGTERM; call from the main thread. Raises as `Sandbox` does."""
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
    # blocked before the thread starts, so that it inherits the mask and only sigwait ever takes them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with Sandbox(settings) as sandbox:
            on_ready(sandbox)
            signal.sigwait(signals)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def config_snippet(
    sandbox: Sandbox, profile: Profile = Profile.DELIVERIES, *, service_account_file: str | None = None
) -> str:
    """The part of config.yaml that makes tfwatch use this sandbox; Sheets too if its account lies in a file."""
    portal = {"enabled": True, "profile": str(profile), "base_url": sandbox.url, "api_key": sandbox.api_key}
    sheets: dict[str, object] = {"enabled": service_account_file is not None}
    if service_account_file is not None:
        sheets |= {
            "spreadsheet_id": sandbox.spreadsheet_id,
            "service_account_json": service_account_file,
            "api_base_url": sandbox.url,
        }
    lines = ["integrations:", f"  gotranscript: {_flow(portal)}", f"  sheets: {_flow(sheets)}"]
    return "\n".join(lines) + "\n"


def _flow(values: Mapping[str, object]) -> str:
    """A YAML flow mapping; JSON scalars are YAML scalars."""
    return "{" + ", ".join(f"{name}: {json.dumps(value)}" for name, value in values.items()) + "}"
