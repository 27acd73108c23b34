"""Every mistake is told at once, with its file and line, and nothing an operator writes breaks the loader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tfwatch.config import (
    Config,
)
from tfwatch.settings_file import Loaded, default_path, language_of, load
from tfwatch.settings_problems import KEYS, ConfigError, Problem
from tfwatch.settings_sources import SECRETS, VARIABLES

BASE = "integrations: {gotranscript: {base_url: https://portal.example.com}}\n"


def write(folder: Path, text: str, name: str = "config.yaml") -> str:
    """Write a settings file and give its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return str(path)


def load_text(folder: Path, text: str, **environ: str) -> Loaded:
    """Load a settings file of this text."""
    return load(write(folder, text), environ=environ)


def problems_of(path: str, **environ: str) -> list[str]:
    """What `load` complains about, with the folder's name taken off."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ)
    return [str(problem).replace(f"{os.path.dirname(path)}/", "") for problem in caught.value.problems]


# --- mistakes: file, line, key, what, what next -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web: {prot: 1}", "1: web.prot: unknown key; did you mean port?"),
        ("web:\n  bucket: x", "2: web.bucket: unknown key; did you mean integrations.s3.bucket?"),
        (
            "web:\n  zzz: x",
            (
                "2: web.zzz: unknown key; known here: "
                "enabled, expose, host, hosts, port, requests_per_second, token, token_file"
            ),
        ),
        ("wob: {}", "1: wob: unknown key; did you mean web?"),
        ("web: {port: 0}", "1: web.port: must be 1 or more"),
        ("web: {port: 65536}", "1: web.port: must be 65,535 or less"),
        ('web: {port: "80"}', "1: web.port: must be a whole number, without quotes"),
        ("web: {port: 1.0}", "1: web.port: must be a whole number, without quotes"),
        ("web: {port: true}", "1: web.port: must be a whole number, without quotes"),
        ("web:\n  port:", "2: web.port: has no value; give it one, or remove the line to have the default"),
        ("web: {enabled: 1}", "1: web.enabled: must be true or false"),
        ("web: {host: 1}", "1: web.host: must be text; put it in quotes"),
        (
            "web: {host: '0.0.0.0:80'}",
            "1: web.host: must be an address or a host name alone, as 127.0.0.1; the port has its own key",
        ),
        ("web: [1]", "1: web: must be a section of key: value lines, indented below it"),
        ("web:\n  port: 1\n  port: 2", "3: web.port: stands twice; first in line 2; keep one of them"),
        ("spool: {root: lib}", "1: spool.root: must be an absolute path, as /var/lib/tfwatch"),
        ("spool: {root: /a/../b}", "1: spool.root: must not contain .."),
        ("spool: {root: //}", "1: spool.root: must be a folder below /, as /var/lib/tfwatch"),
        ("spool: {rescan_seconds: 0}", "1: spool.rescan_seconds: must be more than 0"),
        ("spool: {settle_seconds: 1e999}", "1: spool.settle_seconds: must be a number, not inf or nan"),
        ("spool: {watch: fanotify}", "1: spool.watch: must be auto, inotify or polling"),
        ("alerts: {urls: mailto}", "1: alerts.urls: must be a list"),
        (
            "alerts:\n  urls:\n    - ntfy://x\n    - no",
            "2: alerts.urls[1]: must be text; put it in quotes",
        ),
        ("alerts: {backup_success_rate_min: 1.01}", "1: alerts.backup_success_rate_min: must be 1 or less"),
        (
            "timezone: Amerika",
            (
                "1: timezone: must be local or a time zone this machine knows, as America/Sao_Paulo "
                "(see: timedatectl list-timezones)"
            ),
        ),
        ("language: pt", "1: language: must be en or pt-BR"),
        ("logging: {level: LOUD}", "1: logging.level: must be TRACE, DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("retention: {delivered_days: 0}", "1: retention.delivered_days: must be 1 or more"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    """One mistake gives one problem, which names file, line and key and says what is right."""
    path = write(tmp_path, f"{text}\n{BASE}")
    assert [f"config.yaml:{expected}"] == problems_of(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gotranscript: {workers: 65}", "gotranscript.workers: must be 64 or less"),
        ("gotranscript: {poll_seconds: 0}", "gotranscript.poll_seconds: must be more than 0"),
        ("gotranscript: {retry: {attempts: 21}}", "gotranscript.retry.attempts: must be 20 or less"),
        ("gotranscript: {rollback_after: 0}", "gotranscript.rollback_after: must be 1 or more"),
        ("gotranscript: {profile: v4}", "gotranscript.profile: must be deliveries or gotranscript-v4"),
        (
            "gotranscript: {base_url: 'https://u:p@a.example'}",
            "gotranscript.base_url: must not hold a user name or password; credentials have their own keys",
        ),
        (
            "gotranscript: {base_url: 'ftp://a.example'}",
            "gotranscript.base_url: must be an address that begins with https:// or http://",
        ),
        ("gotranscript: {base_url: 'https://a/?k=1'}", "gotranscript.base_url: must be an address without ? or #"),
        (
            "gotranscript: {}",
            "gotranscript.base_url: needed while the integration is enabled; set it or enabled: false",
        ),
        (
            "gotranscript: {base_url: 'https://a', retry: {max_seconds: 0.1}}",
            "gotranscript.retry.max_seconds: must not be less than initial_seconds; raise it",
        ),
        (
            "gotranscript: {base_url: 'https://a', when_disabled: backup}",
            (
                "gotranscript.when_disabled: backup needs integrations.s3; "
                "set up integrations.s3 with enabled: true, or when_disabled: hold"
            ),
        ),
        ("s3: {part_size_mib: 4}", "s3.part_size_mib: must be 5 or more"),
        ("s3: {enabled: true}", "s3.bucket: needed while s3 is enabled; set it or enabled: false"),
        ("s3: {bucket: ab}", "s3.bucket: must be a bucket's name: 3 to 63 letters, digits, dots and hyphens"),
        (
            "s3: {enabled: true, bucket: abc, access_key: A}",
            "s3.secret_key: needed beside access_key; set both, or neither to use the machine's own credentials",
        ),
        ("sheets: {batch_rows: 10001}", "sheets.batch_rows: must be 10,000 or less"),
        (
            "sheets: {spreadsheet_id: 'https://docs.google.com/spreadsheets/d/abc/edit'}",
            "sheets.spreadsheet_id: must be the id alone: the part of the spreadsheet's address between /d/ and /edit",
        ),
        (
            "sheets: {enabled: true, spreadsheet_id: abc}",
            "sheets.service_account_json: needed while sheets is enabled; set it or enabled: false",
        ),
    ],
)
def test_a_mistake_in_an_integration_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    """The same for the integrations, with their contradictions."""
    if not text.startswith("gotranscript"):
        text += "\n  gotranscript: {enabled: false}"
    elif "base_url" not in text and "{}" not in text:
        text = text.replace("{", "{base_url: https://a.example, ", 1)
    assert [f"config.yaml:2: integrations.{expected}"] == problems_of(write(tmp_path, f"integrations:\n  {text}\n"))


def test_every_problem_is_told_at_once_in_order(tmp_path: Path) -> None:
    """Wrong keys, wrong values, contradictions, secret files, `.env` and environment: one run shows them all."""
    write(tmp_path, "NOT = = =\nS3_REGION=\nS3_BUCKET=x\n'", ".env")
    text = """\
spool: {rot: /x}
web: {port: 0}
web: {port: 1}
integrations:
  gotranscript:
    api_key_file: /no/such/file
  s3:
    enabled: true
  sheets: {enabled: true}
"""
    told = problems_of(write(tmp_path, text), GOTRANSCRIPT_ENABLED="perhaps", S3_ENDPOINT="minio:9000")
    expected = [
        "config.yaml:1: spool.rot: unknown key; did you mean root?",
        "config.yaml:2: web.port: must be 1 or more",
        "config.yaml:3: web: stands twice; first in line 2; keep one of them",
        (
            "config.yaml:6: integrations.gotranscript.api_key_file: /no/such/file: no such file; "
            "make it, or correct the name"
        ),
        "config.yaml:9: integrations.sheets.spreadsheet_id: needed while sheets is enabled; set it or enabled: false",
        (
            "config.yaml:9: integrations.sheets.service_account_json: needed while sheets is enabled; "
            "set it or enabled: false"
        ),
        ".env:3: integrations.s3.bucket: S3_BUCKET must be a bucket's name: 3 to 63 letters, digits, dots and hyphens",
        ".env:4: can't be understood; write NAME=value",
        "environment: integrations.gotranscript.enabled: GOTRANSCRIPT_ENABLED must be true or false",
        (
            "environment: integrations.s3.endpoint_url: S3_ENDPOINT must be an address that begins with "
            "https:// or http://"
        ),
    ]
    assert expected == [line for line in told if not line.startswith(".env:1")]


def test_a_wrong_value_causes_no_second_complaint(tmp_path: Path) -> None:
    """What only follows from a problem already told is not told again."""
    text = "integrations:\n  gotranscript: {base_url: 5}\n  s3: {enabled: true, bucket: 5}\n"
    assert [
        "config.yaml:2: integrations.gotranscript.base_url: must be text; put it in quotes",
        "config.yaml:3: integrations.s3.bucket: must be text; put it in quotes",
    ] == problems_of(write(tmp_path, text))


# --- the file itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"web:\n  port: [1\nx: 2\n", "config.yaml:3: not valid YAML: while parsing a flow sequence"),
        (b"a: 1\n\tb: 2", "config.yaml:2: not valid YAML: while scanning"),
        (b"web:\n  host: \xff\n", "config.yaml:2: is not UTF-8 text; save it as UTF-8"),
        (b"- web\n- spool\n", "config.yaml:1: must be sections of key: value lines"),
        (b"\n\nweb: \x00", "config.yaml:3: holds a control character"),
        (b'\nweb: "\\UFFFFFFFF"', "config.yaml:2: holds a number or escape that can't be read"),
        (b"a: &x [1]\nb: *x", "config.yaml:1: aliases (*), anchors (&) and tags (!) are not used here"),
        (b"a: !!python/object:os.system x", "config.yaml:1: aliases (*), anchors (&) and tags (!)"),
        (b"\na: " + b"[" * 5000, "config.yaml:2: too many levels within each other"),
        (b"a:\n- [1" + b",1" * 20000 + b"]", "config.yaml:2: too many keys and values"),
        (b"a: 1\n--- \nb: 2", "config.yaml:2: not valid YAML: expected a single document"),
        (b"\n? [a]\n: 1\n" + BASE.encode(), "config.yaml:2: a key here is not a plain word"),
        (b"#" * (1024**2 + 1), "config.yaml: is larger than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, data: bytes, expected: str) -> None:
    """Bytes of any kind end in a problem, with the line where there is one."""
    path = tmp_path / "config.yaml"
    path.write_bytes(data)
    assert problems_of(str(path))[0].startswith(expected)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "~\n", "\ufeff"])
def test_an_empty_file_is_all_defaults(tmp_path: Path, text: str) -> None:
    """An empty file lacks only the address, which has no default."""
    needed = "integrations.gotranscript.base_url: needed while the integration is enabled; set it or enabled: false"
    path = write(tmp_path, text)
    assert [f"config.yaml: {needed}"] == problems_of(path)
    expected = Config.model_validate({"integrations": {"gotranscript": {"enabled": False}}}).integrations
    assert expected == load(path, environ={"GOTRANSCRIPT_ENABLED": "off"}).config.integrations


def test_a_missing_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    """An operator who has just installed is told the next command."""
    path = f"{tmp_path}/my config.yaml"
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    assert f"{path}: no such file; make one: cp config.yaml.example '{path}'" == str(caught.value)


def test_a_pipe_or_folder_is_no_settings_file(tmp_path: Path) -> None:
    """Opening what is no file neither waits nor crashes."""
    os.mkfifo(tmp_path / "pipe")
    assert ["pipe: is not a regular file; name a file"] == problems_of(f"{tmp_path}/pipe")
    (tmp_path / "folder").mkdir()
    assert problems_of(f"{tmp_path}/folder")[0].startswith("folder: ")
    assert problems_of(f"{tmp_path}/nul\0")[0].endswith("can't be read: not a file's name; correct the name")


def test_a_name_of_undecodable_bytes_can_be_printed() -> None:
    """A problem's text is always printable as UTF-8."""
    problem = Problem(file=os.fsdecode(b"/etc/\xff.yaml"), message="no such file")
    assert "/etc/\\udcff.yaml: no such file" == str(problem)


def test_the_default_path() -> None:
    """`$TFWATCH_CONFIG` names the file, else it is the package's place."""
    assert "/etc/tfwatch/config.yaml" == default_path({})
    assert "/etc/tfwatch/config.yaml" == default_path({"TFWATCH_CONFIG": ""})
    assert "x.yaml" == default_path({"TFWATCH_CONFIG": "x.yaml"})


# --- no input breaks it -----------------------------------------------------------------------------------------------

WORDS = st.sampled_from(sorted({part for key in KEYS for part in key.split(".")} | {"retry", "integrations", "x", "é"}))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(
        ["1GiB", "https://a", "/x", "gotranscript-v4", "ask", "America", "../x", "{", "2024-13-45", "0b_"]
    )
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=6), max_leaves=30
)


@st.composite
def settings_like(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of the right shape with values of every kind in a few places."""
    tree: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(sorted(KEYS)), max_size=12)):
        section: Any = tree
        *parents, name = key.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = draw(TREES)
    return tree


def load_or_problems(text: str, folder: Path, **environ: str) -> None:
    """Load; a failure must name its problems in printable text."""
    try:
        load_text(folder, text, **environ)
    except ConfigError as error:
        told = str(error)
    else:
        return
    assert told
    told.encode()


@settings(deadline=None, max_examples=200)
@given(tree=settings_like() | st.dictionaries(WORDS, TREES, max_size=6))
def test_no_settings_crash_the_loader(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Values of any type in any place are either settings or problems."""
    load_or_problems(yaml.safe_dump(tree, allow_unicode=True), tmp_path_factory.getbasetemp())


@settings(deadline=None, max_examples=200)
@given(
    text=st.text(max_size=60) | st.text(alphabet="abc:-?[]{},#&*!|>'\"%@` \t\n\\U0x19e.~", max_size=60),
    value=st.text(alphabet=st.characters(exclude_characters="\0"), max_size=20),
    name=st.sampled_from([*VARIABLES, *(secret.variable for secret in SECRETS if secret.variable)]),
)
def test_no_text_crashes_the_loader(text: str, value: str, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Text of any kind as config.yaml, as `.env` and in the environment is either settings or problems."""
    folder = tmp_path_factory.mktemp("text", numbered=True)
    load_or_problems(text, folder)
    load_or_problems(BASE, folder, **{name: value})
    write(folder, f"{text}\n{name}={value}", ".env")
    load_or_problems(BASE, folder)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("language: pt-BR\n", "pt-BR"),
        ("wob: [\nlanguage: 'pt-BR'  # for the team\n", "pt-BR"),
        ("language: en\n", "en"),
        ("", "en"),
        ("integrations:\n  gotranscript:\n    language: pt-BR\n", "en"),
        ("# language: pt-BR\n", "en"),
    ],
)
def test_the_language_is_known_before_the_rest_is(tmp_path: Path, text: str, spoken: str) -> None:
    """A file that can't be used is told about in the language it asks for."""
    assert spoken == language_of(write(tmp_path, text))


def test_what_is_no_file_asks_for_no_language(tmp_path: Path) -> None:
    """Nobody waits for the writer of a FIFO, and a missing file is English."""
    os.mkfifo(tmp_path / "fifo")
    assert ["en", "en", "en"] == [language_of(str(tmp_path / name)) for name in ("fifo", "missing", "nul\0")]
