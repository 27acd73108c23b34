"""`python -m tfwatch.sandbox`: a sandbox in a process of its own, for benchmarks and crash tests."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Annotated

import typer

from tfwatch.sandbox.server import Sandbox, config_snippet, serve
from tfwatch.sandbox.settings import SandboxSettings, parse_settings


def main(
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 0,
    settings_file: Annotated[str | None, typer.Option("--settings", help="SandboxSettings as JSON.")] = None,
    ready_file: Annotated[str | None, typer.Option(help="Written once it serves: JSON with url and pid.")] = None,
    service_account_file: Annotated[str | None, typer.Option(help="Read if it exists, else written.")] = None,
) -> None:
    """Serve a portal and a Sheets service until SIGINT or SIGTERM."""
    settings = SandboxSettings()
    if settings_file is not None:
        with open(settings_file, "rb") as file:
            settings = parse_settings(file.read())
    account = None
    if service_account_file is not None and os.path.exists(service_account_file):
        with open(service_account_file, "rb") as file:
            account = json.load(file)

    def on_ready(sandbox: Sandbox) -> None:
        if service_account_file is not None and account is None:
            _write(service_account_file, sandbox.service_account())
        if ready_file is not None:
            _write(ready_file, {"url": sandbox.url, "pid": os.getpid()})
        typer.echo(config_snippet(sandbox, service_account_file=service_account_file), nl=False)

    serve(
        replace(settings, host=host, port=port, service_account=account or settings.service_account), on_ready=on_ready
    )


def _write(path: str, content: object) -> None:
    """Whole or not at all, for its owner only."""
    part = f"{path}.part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(part, path)


if __name__ == "__main__":
    typer.run(main)
