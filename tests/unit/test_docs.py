"""The documents say what the code does: held against it, name by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import typer

from tests.support import catalogue
from tests.support.catalogue import forms
from tfwatch import cli
from tfwatch.config import Config
from tfwatch.delivery import reasons
from tfwatch.ledger.index import Index
from tfwatch.ledger.log import Position
from tfwatch.lifecycle import TRANSITIONS
from tfwatch.model import DeliveryRecord, Event, Fact, Integration, Stage, Status, write_detail
from tfwatch.settings_problems import KEYS
from tfwatch.settings_sources import SECRETS, VARIABLES
from tfwatch.spool.zipflaws import Flaw

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ARCHITECTURE, OPERATIONS = DOCS / "ARCHITECTURE.md", DOCS / "OPERATIONS.md"
RELIABILITY = DOCS / "RELIABILITY.md"
PORTUGUESE, GLOSSARY = DOCS / "pt-BR" / "OPERACAO.md", DOCS / "GLOSSARY.md"
GUIDES = (OPERATIONS, PORTUGUESE)
ALL = tuple(sorted(DOCS.rglob("*.md")))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?:^|\bsudo |&& )tfwatch ([a-z][a-z-]+)", re.MULTILINE)
_EDGE = re.compile(r"^\s*(\w+|\[\*\]) --> (\w+|\[\*\]): (.+)$")


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_in(text: str) -> list[str]:
    """Everything a document sets as code: blocks and spans."""
    return [block for _, block in _FENCE.findall(text)] + _SPAN.findall(_FENCE.sub("", text))


def rows_after(path: Path, marker: str) -> list[list[str]]:
    """The cells of the table that follows a `<!-- marker -->`, without its head."""
    lines = text_of(path).partition(f"<!-- {marker} -->\n")[2].splitlines()
    table = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    assert table, f"{path.name} has no table after <!-- {marker} -->"
    return table[2:]


# --- commands, exit codes, keys -------------------------------------------------------------------------------------


def _commands() -> set[str]:
    return set(typer.main.get_group(cli.app).commands)


def _named(guide: Path) -> set[str]:
    return {word for code in code_in(text_of(guide)) for word in _COMMAND.findall(code)}


@pytest.mark.parametrize("guide", ALL, ids=lambda path: path.name)
def test_every_command_named_exists(guide: Path) -> None:
    """A reader can type every `tfwatch WORD` that stands in a document."""
    assert set() == _named(guide) - _commands()


def test_every_command_is_in_the_operators_guide() -> None:
    """No command is left for people to discover."""
    assert set() == _commands() - _named(OPERATIONS)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_key_named_exists(guide: Path) -> None:
    """Every dotted key in a guide is a key, or a section, of config.yaml."""
    sections = {key.rsplit(".", n)[0] for key in KEYS for n in (1, 2, 3)}
    dotted = re.compile(rf"(?:{'|'.join(Config.model_fields)})(?:\.[a-z0-9_]+)+")
    named = {found for code in code_in(text_of(guide)) for found in dotted.findall(code)}
    files = {name for name in named if name.endswith((".csv", ".yaml", ".md", ".json"))}
    assert named
    assert set() == named - files - KEYS - sections


def test_every_variable_and_credential_is_documented() -> None:
    """Each way to give a setting from outside the file stands in the operators' guide, and nothing else does."""
    code = set(code_in(text_of(OPERATIONS)))
    variables = {*VARIABLES, *(secret.variable for secret in SECRETS if secret.variable)}
    assert set() == variables - code
    assert set() == {secret.credential for secret in SECRETS} - code
    said = {word for word in code if re.fullmatch(r"(?:GOTRANSCRIPT|S3|GOOGLE|TFWATCH)_[A-Z_]+", word)}
    assert set() == said - variables - {"TFWATCH_CONFIG"}


# --- the words operators meet ---------------------------------------------------------------------------------------


def integration_words() -> set[str]:
    """Every state word a `Stand` can have: those of the switch itself, and those the log's rows lead to."""
    switch = text_of(ROOT / "tfwatch" / "delivery" / "switch.py")
    words = set(re.findall(r'word="([a-z ]+)"', switch))
    index = Index(":memory:")
    rows = [(Event.ROLLBACK, ""), *((Event.DISABLED, by) for by in ("service", "command")), (Event.ENABLED, "command")]
    for n, (event, by) in enumerate(rows, start=1):
        fact = Fact(event=event, detail=write_detail(integration="s3", by=by or None))
        record = DeliveryRecord.of(fact, seq=n, at=datetime.now(UTC), exec_id="x", chain="")
        index.apply([record], Position.start())
        words.add(index.integration(Integration.S3).state)
    index.close()
    return words


def test_every_word_of_the_log_is_explained() -> None:
    """Each event, status, stage, integration state and flaw an operator can meet stands in the guide."""
    code = set(code_in(text_of(OPERATIONS)))
    states = integration_words()
    assert {"enabled", "off", "held", "waiting", "disabled", "paused", "rolled back"} == states
    assert set() == {event.value for event in Event} - code
    assert set() == {status.value for status in Status} - code
    assert set() == states - code
    assert set() == {*get_args(Flaw), *reasons.advice()} - code


def test_the_portuguese_guide_explains_the_same_words() -> None:
    """Statuses, states and flaws: a Brazilian operator needs no other guide for them."""
    code = set(code_in(text_of(PORTUGUESE)))
    assert set() == {*Status, *integration_words(), *get_args(Flaw), *reasons.advice()} - code


def _texts(node: ast.AST, around: ast.AST) -> Iterator[str]:
    """The literals that a message is made of: its own, those of `tr` in it, those of a name that was set before."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "tr":
            yield ast.literal_eval(part.args[0])
        elif isinstance(part, ast.Name):
            for found in ast.walk(around):
                if isinstance(found, ast.Assign) and part.id in {ast.unparse(target) for target in found.targets}:
                    yield from _texts(found.value, ast.Module(body=[], type_ignores=[]))


def _warnings() -> Iterator[tuple[str, str]]:
    """Where a warning or worse is logged, and its message's template."""
    for path in sorted((ROOT / "tfwatch").rglob("*.py")):
        if {"sandbox", "demo"} & set(path.parts):
            continue
        tree = ast.parse(text_of(path))
        for around in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for node in ast.walk(around):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                    continue
                template, *values = node.args
                if node.func.attr not in ("warning", "error", "critical") or not isinstance(template, ast.Constant):
                    continue
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                for text in (template.value, *(text for value in values for text in _texts(value, around))):
                    yield place, str(text)


def test_every_warning_is_in_the_guide() -> None:
    """What is logged as a warning, an alert or worse can be looked up by the fixed words in it."""
    guide = text_of(OPERATIONS)
    unknown = []
    for place, template in _warnings():
        # `requeue {}: it was accepted already; …` is looked up as `it was accepted already`
        fixed = re.split(r"[;\n]|: ", max(re.split(r"{[^}]*}", template), key=len).strip(" :;,.\n"))[0].rstrip(" (")
        if len(fixed) > 1 and fixed not in guide:
            unknown.append(f"{place}: {fixed}")
    assert [] == unknown


def test_the_portuguese_guide_quotes_what_is_said() -> None:
    """Each message in the Portuguese tables is how the text beside it is translated."""
    spoken = [
        pair
        for message in catalogue.translated()
        if message.id
        for pair in zip(forms(message.id), forms(message.string), strict=True)
    ]
    wrong = []
    for table in ("estados", "avisos"):
        for quoted in rows_after(PORTUGUESE, table):
            cells = (_SPAN.findall(cell)[0].replace("gotranscript", "{name}").strip("…") for cell in quoted[:2])
            said, english = cells
            if not any(english in text and said in translation for text, translation in spoken):
                wrong.append(f"{english}: {said}")
    assert [] == wrong


def _checks() -> set[str]:
    """The names of doctor's checks: each finding is made with its name first. Services go by their own."""
    names = {integration.value for integration in Integration}
    for path in sorted((ROOT / "tfwatch" / "doctor").glob("*.py")):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ok", "warning", "failure", "skipped"):
                first = node.args[0]
                names |= {first.value} if isinstance(first, ast.Constant) else set()
    return {str(name) for name in names}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_check_of_doctor_is_explained(guide: Path) -> None:
    """What is tried and what to do when it isn't well, in both languages; nothing else is said to be tried."""
    rows = rows_after(guide, "checks")
    assert _checks() == {name for row in rows for name in _SPAN.findall(row[0])}
    assert all(all(row) for row in rows)


def _alerts() -> set[str]:
    """Each alert's name, as far as it stands in the code: `oldest:` goes on with a stage."""
    names = set()
    for path in (*(ROOT / "tfwatch" / "observe").glob("conditions*.py"), ROOT / "tfwatch" / "observe" / "limits.py"):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Condition":
                key = node.keywords[0].value
                pieces = key.values if isinstance(key, ast.JoinedStr) else [key]
                names.add("".join(str(each.value) for each in pieces if isinstance(each, ast.Constant)))
    return names - {"", ":"}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_alert_is_in_the_guide(guide: Path) -> None:
    """Each can be looked up by its name, with what it says, what that means and what to do."""
    table = rows_after(guide, "alerts")
    names = {_SPAN.findall(row[0])[0]: row[1:] for row in table}
    assert {"rollback:gotranscript", "oldest:outbox", "disk-low"} <= names.keys()
    assert len(_alerts()) > 10
    assert set() == {name for name in _alerts() if not any(known.startswith(name) for known in names)}
    assert all(all(cells) for cells in names.values())


def test_what_alerts_say_is_in_the_guide() -> None:
    """Each text of theirs that is not only for outside can be looked up by the fixed words in it."""
    guide, unknown = text_of(OPERATIONS), []
    for path in (*(ROOT / "tfwatch" / "observe").glob("conditions*.py"), ROOT / "tfwatch" / "observe" / "limits.py"):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.keyword) and node.arg == "text":
                for text in _literals(node.value):
                    words = max(re.split(r"{[^}]*}|[;:()]", text), key=len).strip(" ,")
                    unknown += [words] if words not in guide else []
    assert [] == unknown


def _literals(node: ast.expr) -> list[str]:
    """The texts that are made for people below a node."""
    calls = (each for each in ast.walk(node) if isinstance(each, ast.Call) and ast.unparse(each.func) in ("tr", "ntr"))
    return [str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)]


# --- structure ------------------------------------------------------------------------------------------------------


def test_the_state_diagram_is_the_table() -> None:
    """Every arrow of the picture is a move of `TRANSITIONS`, and every move is drawn."""
    block = next(body for kind, body in _FENCE.findall(text_of(ARCHITECTURE)) if body.startswith("stateDiagram"))
    drawn = set()
    for line in block.splitlines()[1:]:
        found = _EDGE.match(line)
        assert found, f"not an arrow: {line}"
        if found[1] != "[*]":
            drawn |= {(found[1], event.strip(), found[2]) for event in found[3].split(",")}
    name = {stage: stage.value for stage in Stage} | {None: "away"}
    moves = {(name[stage], event.value, name[to]) for (stage, event), places in TRANSITIONS.items() for to in places}
    assert moves == drawn


@cache
def _tests() -> frozenset[str]:
    sources = (text_of(path) for path in (ROOT / "tests").rglob("test_*.py"))
    return frozenset(name for source in sources for name in re.findall(r"^ *(?:async )?def (test_\w+)", source, re.M))


def test_every_crash_has_a_test_that_exists() -> None:
    """Each row of the crash table names the tests that prove it, and they are there."""
    for died, *_, proofs in rows_after(ARCHITECTURE, "crash table"):
        named = _SPAN.findall(proofs)
        assert named, f"no test proves: dies {died}"
        assert set() == set(named) - _tests()


def test_every_promise_has_a_proof_that_exists() -> None:
    """Each row of the proofs names tests that are there, and the make targets that run them."""
    files = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    for what, _, proofs, commands in rows_after(RELIABILITY, "proofs"):
        named = _SPAN.findall(proofs)
        assert named, f"no test proves: {what}"
        assert set() == set(named) - _tests() - files
        assert {command.removeprefix("make ") for command in _SPAN.findall(commands)} <= targets, what


def _room_of(module: str, rooms: dict[str, list[str]]) -> str:
    found = [room for room, patterns in rooms.items() if any(fnmatchcase(module, pattern) for pattern in patterns)]
    assert len(found) == 1, f"{module} must stand in one room of docs/ARCHITECTURE.md, not in {found or 'none'}"
    return found[0]


def _imports(path: Path) -> set[str]:
    """The modules of tfwatch a file imports, each as it stands in the tree."""
    named = set()
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tfwatch":
            named |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names if alias.name.startswith("tfwatch.")}
    return {name.removeprefix("tfwatch.") for name in named if _is_module(name)}


def _is_module(name: str) -> bool:
    return (ROOT / f"{name.replace('.', '/')}.py").exists()


def test_imports_go_only_where_the_rooms_allow() -> None:
    """Who may import whom: every module stands in one room, and imports only its own and the allowed ones."""
    table = rows_after(ARCHITECTURE, "rooms")
    rooms = {room: _SPAN.findall(modules) for room, modules, _ in table}
    allowed = {room: {room, *filter(None, re.split(r",\s*", others))} for room, _, others in table}
    wrong = []
    for path in sorted((ROOT / "tfwatch").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        module = ".".join(path.relative_to(ROOT / "tfwatch").with_suffix("").parts)
        room = _room_of(module, rooms)
        wrong += [
            f"{module} ({room}) imports {other}"
            for other in sorted(_imports(path))
            if _room_of(other, rooms) not in allowed[room]
        ]
    assert [] == wrong


# --- between documents ----------------------------------------------------------------------------------------------


def _anchors(path: Path) -> set[str]:
    """The anchors a reader's browser makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text_of(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", ALL, ids=lambda path: path.name)
def test_links_resolve(document: Path) -> None:
    """Every relative link leads to a file that exists, and every anchor to a heading in it."""
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", _FENCE.sub("", text_of(document))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(target)
    assert [] == broken


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    """A reader finds a word where the alphabet has it, and finds one meaning."""
    words = [line.split("|")[1].strip() for line in text_of(GLOSSARY).splitlines() if line.startswith("| ")][1:]
    assert sorted(set(words)) == words


@pytest.mark.parametrize("document", ALL, ids=lambda path: path.name)
def test_nothing_is_left_to_fill_in(document: Path) -> None:
    """No placeholder is shipped."""
    assert [] == re.findall(r"\b(?:TODO|FIXME|TBD|XXX|CRASH_TABLE|NOT_YET)\b", text_of(document))
