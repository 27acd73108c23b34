"""Who may import whom: ARCHITECTURE.md's rule, read from the code's own imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tfwatch

HOME = Path(tfwatch.__file__).parent

ROOMS: dict[str, tuple[str, ...]] = {
    "words": ("model", "errors", "disk", "language", "foreign", "local_time", "outlook", "wording", "built"),
    "policy": ("lifecycle", "retry", "ports"),
    "spool": ("spool", "spool.*"),
    "ledger": ("ledger", "ledger.*"),
    "requests": ("requests",),
    "lanes": ("lanes",),
    "settings": ("config", "settings_*"),
    "secrets": ("webhook_secrets", "webhook_rotation"),
    "delivery": ("delivery", "delivery.*"),
    "adapters": ("adapters", "adapters.*"),
    "logs": ("observe", "observe.logs", "observe.notice"),
    "figures": ("observe.metrics", "observe.observability", "observe.exposition"),
    "daemon": (
        *("daemon", "configuration", "workshop", "watch", "forwarding", "housekeeping"),
        *("observe.health", "observe.standstill", "observe.state", "observe.status_line", "observe.present"),
        "observe.figures_file",
    ),
    "alerts": ("observe.alert*", "observe.channel", "observe.conditions*", "observe.limits", "observe.notices"),
    "reading": ("look", "report", "seen", "story", "story_lines", "unsent", "why"),
    "web": ("web", "web.*"),
    "composition": ("app", "connections"),
    "sandbox": ("sandbox", "sandbox.*"),
    "demo": ("demo", "demo.*"),
    "completion": ("completion", "completion.*"),
    "commands": (
        *("__main__", "cli", "cli_*", "terminal", "ask", "check", "printlog"),
        *("fsck", "fsck.*", "doctor", "doctor.*", "restore"),
    ),
}
"""Every module stands in one room. `*` stands for any further name."""

HOUSE = ("words", "policy", "spool", "ledger")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "words": (),
    "policy": ("words",),
    "spool": ("words",),
    "ledger": ("words",),
    "requests": ("words", "spool"),
    "lanes": (),
    "settings": ("words",),
    "secrets": ("words",),
    "delivery": (*HOUSE, "requests"),
    "adapters": ("words", "policy"),
    "logs": ("words",),
    "figures": HOUSE,
    "daemon": (*HOUSE, "requests", "lanes", "delivery", "logs", "figures"),
    "alerts": (*HOUSE, "delivery", "daemon"),
    "reading": (*HOUSE, "settings", "figures"),
    "web": (*HOUSE, "requests", "secrets", "delivery", "logs", "figures", "daemon", "reading"),
    "composition": (
        *(*HOUSE, "requests", "settings", "delivery", "adapters", "logs", "figures", "daemon", "alerts"),
        *("reading", "web"),
    ),
    "sandbox": ("words",),
    "demo": (*HOUSE, "sandbox", "adapters"),
    "completion": ("words",),
    "commands": (
        *(*HOUSE, "requests", "settings", "secrets", "figures", "reading", "composition", "completion", "sandbox"),
        "demo",
    ),
}
"""A room → the rooms it may import, besides itself. Downwards only."""

WORLD: dict[str, tuple[str, ...]] = {
    "httpx": ("adapters.*",),
    "backoff": ("adapters.*",),
    "boto3": ("adapters.*",),
    "botocore": ("adapters.*", "demo.servers"),
    "gspread": ("adapters.*",),
    "google": ("adapters.*", "sandbox.tokens"),
    "requests": ("adapters.*",),
    "apprise": ("adapters.*",),
    "babel": ("language",),
    "prometheus_client": ("observe.exposition",),
    "watchdog": ("spool.watcher",),
    "systemd": ("observe.*",),
    "yaml": ("settings_yaml", "demo.run"),
    "typer": ("cli", "cli_*", "terminal", "sandbox.__main__"),
    "starlette": ("web.*", "sandbox.*"),
    "standardwebhooks": ("web.signatures", "sandbox.callbacks"),
    "uvicorn": ("web.listener", "web.wire", "sandbox.*"),
    "rich": ("cli", "cli_*", "terminal", "report", "why", "demo.*"),
}
"""A package from outside → who may import it. The sandbox checks tokens as Google does; the demo looks after its own
S3 server."""

SETTINGS_ORDER = (
    "settings_file",
    "settings_layers",
    ("settings_sources", "settings_yaml"),
    ("settings_conflicts", "settings_problems"),
    "config",
    "settings_values",
)
"""From the whole file to one value: each imports only what stands below it."""

NO_SENSES = ("time", "socket", "subprocess", "threading", "sqlite3", "shutil", "pathlib", "loguru", "datetime.now")
PURE = (
    *("model", "errors", "lifecycle", "retry", "ports", "settings_values", "foreign", "delivery.callback"),
    *(
        "outlook",
        "ledger.rows",
        "ledger.counting",
        "spool.names",
        "spool.stillness",
        "delivery.keys",
        "delivery.wiring",
        "adapters.sheets_layout",
        "observe.alerts",
        "observe.notices",
    ),
)
"""Policy: no clock, no thread, no disk, no log. What they need of these is an argument."""

SILENT = ("words", "policy", "spool", "ledger", "settings", "secrets", "requests", "lanes")
"""Rooms that don't log: they return or raise."""

BUILDERS = {
    "os.path.join": (
        *(
            "spool.places",
            "spool.folders",
            "spool.durable",
            "spool.placing",
            "settings_*",
            "webhook_rotation",
            "demo.*",
        ),
    ),
    "os.rename": (
        *(
            "spool.folders",
            "spool.durable",
            "spool.renames",
            "ledger.opening",
            "ledger.database",
            "webhook_rotation",
            "demo.drops",
        ),
    ),
    "os.replace": ("sandbox.__main__",),
    "os.link": (),
    "os.symlink": (),
    "os.mkdir": ("spool.folders", "demo.*"),
    "os.makedirs": (),
    "os.remove": (),
    "pathlib": ("built",),  # beside the module itself, not in a spool
    "shutil": ("demo.*",),
}
"""Who builds paths, moves files and makes folders. In the spool these are spool/places.py and spool/folders.py; the
log and the file with webhook secrets move their own; settings look beside config.yaml; demo and sandbox have places
of their own."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package, by its name below `tfwatch`."""
    found = {}
    for path in sorted(HOME.rglob("*.py")):
        name = ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imports(node: ast.AST) -> Iterator[str]:
    """Everything imported anywhere below a node, in full: `from a import b` is `a.b`."""
    for found in ast.walk(node):
        if isinstance(found, ast.Import):
            yield from (alias.name for alias in found.names)
        elif isinstance(found, ast.ImportFrom):
            assert found.level == 0, f"relative import in line {found.lineno}"
            yield from (f"{found.module}.{alias.name}" for alias in found.names)


def of_ours(node: ast.AST) -> set[str]:
    """The modules of ours that are imported below a node."""
    found = set()
    for name in imports(node):
        parts = name.split(".")
        if parts[0] == "tfwatch":
            longest = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
            found |= {next((each for each in longest if each in modules()), "")} - {""}
    return found


def matches(module: str, patterns: tuple[str, ...]) -> bool:
    return any(module == p or (p.endswith("*") and module.startswith(p[:-1])) for p in patterns)


def room(module: str) -> str:
    rooms = [name for name, patterns in ROOMS.items() if matches(module, patterns)]
    assert 1 == len(rooms), f"{module} stands in {rooms or 'no room'}: add it to ROOMS"
    return rooms[0]


@pytest.mark.parametrize("module", modules())
def test_imports_go_downwards(module: str) -> None:
    """A module imports from its own room and the rooms its room may import."""
    allowed = {room(module), *MAY_IMPORT[room(module)]}

    assert set() == {f"{other} ({room(other)})" for other in of_ours(modules()[module]) if room(other) not in allowed}


def test_rooms_have_no_circle() -> None:
    """Downwards means downwards: neither the table nor the modules go round."""
    order = list(TopologicalSorter(MAY_IMPORT).static_order())
    assert set(ROOMS) == set(order)
    list(TopologicalSorter({name: of_ours(tree) - {name} for name, tree in modules().items()}).static_order())


@pytest.mark.parametrize("package", WORLD)
def test_the_world_comes_in_by_one_door(package: str) -> None:
    """Each service's library is imported by its adapter only, each other library by whom it is for."""
    users = {name for name, tree in modules().items() if any(each.split(".")[0] == package for each in imports(tree))}

    assert set() == {user for user in users if not matches(user, WORLD[package])}


def test_adapters_are_imported_by_the_composition_alone() -> None:
    """And only when needed: an integration that is off is not even imported. The demo borrows the S3 client."""
    users = {name for name, tree in modules().items() if any(room(each) == "adapters" for each in of_ours(tree))}
    assert {"connections"} == {user for user in users if room(user) not in ("adapters", "demo")}

    body = [node for node in modules()["connections"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert set() == {each for node in body for each in of_ours(node) if room(each) == "adapters"}


@pytest.mark.parametrize("module", ["tfwatch.app", "tfwatch.cli"])
def test_an_idle_process_stays_small(module: str) -> None:
    """Starting imports none of the libraries of the services, nor the sandbox or the demo."""
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )

    assert set() == {"httpx", "boto3", "botocore", "gspread", "google.auth", "backoff", "apprise"} & loaded
    assert set() == {"tfwatch.sandbox.server", "tfwatch.demo.servers", "starlette", "uvicorn"} & loaded


def test_settings_go_from_the_file_to_the_value() -> None:
    """From the file through its layers, sources and YAML to problems, config and single values; never back."""
    height = {name: n for n, step in enumerate(SETTINGS_ORDER) for name in ((step,) if isinstance(step, str) else step)}
    assert {name for name in modules() if room(name) == "settings"} == set(height)
    for name in height:
        below = {each for each in of_ours(modules()[name]) if each in height}
        assert all(height[name] < height[each] for each in below), (name, below)


@pytest.mark.parametrize("module", PURE)
def test_policy_has_no_senses(module: str) -> None:
    """Time, chance, disk and threads are arguments there."""
    tree = modules()[module]
    used = {name for name in imports(tree) if name.split(".")[0] in NO_SENSES}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}

    assert set() == used
    assert set() == {call for call in calls if call in ("open", "os.open", "datetime.now", "random.Random", "os.stat")}


@pytest.mark.parametrize("module", [name for name in modules() if room(name) in SILENT])
def test_policy_does_not_log(module: str) -> None:
    """What went wrong is raised or returned; the use case above says it, once."""
    assert set() == {name for name in imports(modules()[module]) if name.split(".")[0] in ("loguru", "logging")}


@pytest.mark.parametrize("word", BUILDERS)
def test_one_module_builds_the_spools_paths(word: str) -> None:
    """Nobody else joins a path, renames a file or makes a folder in the spool."""
    users = set()
    for name, tree in modules().items():
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        imported = {each.split(".")[0] for each in imports(tree)}
        if word in called or (word in ("pathlib", "shutil") and word in imported):
            users.add(name)

    assert set() == {user for user in users if not matches(user, BUILDERS[word])}


def test_the_stages_folders_are_named_in_one_place() -> None:
    """`.tfwatch` as part of a path is written in spool/places.py alone."""
    users = set()
    for name, tree in modules().items():
        texts = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        if ".tfwatch" in texts or any(text.startswith(".tfwatch/") for text in texts):
            users.add(name)

    assert {"spool.places"} == users


def test_every_pattern_is_needed() -> None:
    """The tables don't rot: a module that is named must be there (those still to come end in what they are)."""
    coming = {"restore"}
    named = {pattern for patterns in ROOMS.values() for pattern in patterns if not pattern.endswith("*")}

    assert set() == {name for name in named if name not in modules()} - coming
