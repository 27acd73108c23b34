"""`tfwatch sandbox`: a portal and a Sheets service to try tfwatch against, with faults on demand."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tfwatch import terminal
from tfwatch.model import Profile

if TYPE_CHECKING:
    from tfwatch.sandbox.faults import Fault
    from tfwatch.sandbox.server import Sandbox

PORT: Final = 8899


def sandbox(
    *,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, metavar="PORT", help="Port on 127.0.0.1; 0 takes a free one.")
    ] = PORT,
    sheets: Annotated[
        bool, typer.Option("--sheets/--no-sheets", help="Also let tfwatch mirror its log into a sheet here.")
    ] = False,
    service_account: Annotated[
        str, typer.Option(metavar="FILE", help="With --sheets: its login; made if it is not there.")
    ] = "sandbox-service-account.json",
    profile: Annotated[
        Profile, typer.Option(metavar="|".join(Profile), help="Which profile the printed settings use.")
    ] = Profile.DELIVERIES,
    api_key: Annotated[str, typer.Option(metavar="KEY", help="The key the portal takes.")] = "sandbox-key",
    verdict_delay: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Seconds from an order to its verdict.")
    ] = 2.0,
    idempotency: Annotated[
        bool, typer.Option("--idempotency/--no-idempotency", help="Whether the portal honours Idempotency-Key.")
    ] = True,
    faults: Annotated[
        list[str] | None,
        typer.Option(
            "--fault", metavar="KIND[:KEY=VALUE,...]",
            help="What goes wrong; can be given several times. KIND: latency, status, hang, reset, reset-early, "
            "garbage, no-id, drip, truncated. KEY: target (submit, status, lookup, sheets, token), probability, "
            "times, status, seconds, retry_after, accept.",
        ),
    ] = None,
) -> None:  # fmt: skip
    """Serve a portal to try tfwatch against.

    A transcription portal (and a Sheets service) on this machine, until Ctrl-C; prints settings that use it.

    \b
    tfwatch sandbox --verdict-delay 5
    tfwatch sandbox --fault status:status=503,times=3 --fault latency:seconds=2,probability=0.1
    """
    # A server is what no other command needs.
    from tfwatch.sandbox.server import config_snippet, serve
    from tfwatch.sandbox.settings import PortalSettings, SandboxSettings

    wrong = [_read_fault(text) for text in faults or ()]
    account = _read_account(service_account) if sheets else None
    settings = SandboxSettings(
        port=port,
        portal=replace(PortalSettings(), api_key=api_key, verdict_delay=verdict_delay, idempotency=idempotency),
        faults=tuple(wrong),
        service_account=account,
    )

    def on_ready(server: Sandbox) -> None:
        if sheets and account is None:
            _write_account(service_account, server.service_account())
        file = os.path.abspath(service_account) if sheets else None
        terminal.say(f"serving on {server.url} until Ctrl-C; put this into config.yaml:", "head", err=True)
        print(config_snippet(server, profile, service_account_file=file), end="", flush=True)

    try:
        serve(settings, on_ready=on_ready)
    except OSError as error:
        terminal.fail(f"port {port}: can't be used: {error.strerror}; try --port 0")


def _read_fault(text: str) -> Fault:
    """`status:status=503,times=3` as a fault; raises `typer.BadParameter`."""
    from pydantic import TypeAdapter, ValidationError

    from tfwatch.sandbox.faults import Fault

    kind, _, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    try:
        fault: Fault = TypeAdapter(Fault).validate_python({"kind": kind, **{key: value for key, _, value in pairs}})
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise typer.BadParameter(f"{text!r}: {said}", param_hint="--fault") from None
    return fault


def _read_account(path: str) -> dict[str, str] | None:
    try:
        with open(path, encoding="utf-8") as file:
            account = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        terminal.fail(f"{path}: can't be read as a service account: {error}; name another file")
    if not isinstance(account, dict) or "private_key" not in account:
        terminal.fail(f"{path}: is no service account; name another file")
    return account


def _write_account(path: str, account: dict[str, str]) -> None:
    from tfwatch.spool.durable import write_file

    write_file(os.path.abspath(path), json.dumps(account), mode=0o600)
