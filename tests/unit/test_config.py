"""What can be set: every key with its default, in the model and in the example, and what the settings mean."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from tfwatch.config import (
    Config,
    GotranscriptSettings,
    Integrations,
    S3Settings,
    SpoolSettings,
    changed_sections,
    needs_restart,
)
from tfwatch.model import Profile
from tfwatch.settings_file import Loaded, load
from tfwatch.settings_problems import KEYS, ConfigError, dotted, leaves
from tfwatch.settings_sources import SECRETS, VARIABLES
from tfwatch.settings_yaml import parse

EXAMPLE = Path(__file__).parents[2] / "config.yaml.example"
BASE = "integrations: {gotranscript: {base_url: https://portal.example.com}}\n"

CONTRACT = """
spool: {root: /var/lib/tfwatch, settle_seconds: 5, rescan_seconds: 60, incomplete_timeout_seconds: 900,
        min_free_bytes: 1073741824, watch: auto}
intake: {verify: full, duplicates: reject, max_bytes: 53687091200, max_entries: 100000,
         max_uncompressed_bytes: 536870912000}
integrations:
  gotranscript: {enabled: true, profile: deliveries, base_url: null, api_key: null, timeout_seconds: 30, workers: 4,
                 poll_seconds: 30, retry: {attempts: 4, initial_seconds: 0.5, max_seconds: 15}, rollback_after: 3,
                 resume: manual, when_disabled: hold, mode: test, language: null, callback_url: null,
                 on_unknown_outcome: retry}
  s3: {enabled: false, endpoint_url: null, region: us-east-1, bucket: "", prefix: "", access_key: null,
       secret_key: null, part_size_mib: 16, workers: 2}
  sheets: {enabled: false, spreadsheet_id: "", worksheet: log, service_account_json: null, batch_seconds: 5,
           batch_rows: 2000, api_base_url: null}
retention: {delivered_days: null, rejected_days: null}
web: {enabled: true, host: 127.0.0.1, port: 8787, expose: false, token: null, hosts: [], requests_per_second: 50}
webhooks: {secrets_file: webhook_integrations.json, max_secret_age_days: 90, tolerance_seconds: 300}
alerts: {urls: [], backup_success_rate_min: 0.95, delivery_success_rate_min: 0.99, avg_delivery_latency_ms_max: 2000,
         oldest_package_minutes: 60, include_names: true}
language: en
timezone: local
logging: {level: INFO, format: auto}
"""


def flat(values: dict[str, Any], under: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{under}{key}.") if isinstance(value, dict) else {f"{under}{key}": value}
    return found


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


# --- keys and defaults ------------------------------------------------------------------------------------------------


def test_every_key_of_the_contract_has_its_default() -> None:
    """The model holds the contract's keys in the contract's order with its values, and besides only `_file` keys."""
    defaults = {dotted(path): default for path, default in leaves() if not path[-1].endswith("_file")}
    defaults["webhooks.secrets_file"] = Config().webhooks.secrets_file
    defaults["alerts.urls"] = list(Config().alerts.urls)
    defaults["web.hosts"] = list(Config().web.hosts)
    expected = flat(yaml.safe_load(CONTRACT))

    assert expected == defaults
    assert [key for key in expected if not key.endswith("_file")] == [k for k in defaults if not k.endswith("_file")]
    file_keys = {key for key in KEYS if key.endswith("_file")}
    assert {f"{secret.key}_file" for secret in SECRETS} | {"webhooks.secrets_file"} == file_keys


def test_the_example_is_valid_and_is_the_defaults() -> None:
    """The example loads without a warning and, but for the address, gives what no file at all would give."""
    loaded = load(str(EXAMPLE), environ={})
    given = flat(loaded.config.model_dump())
    expected = flat(Config().model_dump()) | {
        "integrations.gotranscript.base_url": "https://portal.example.com/api",
        "webhooks.secrets_file": str(EXAMPLE.with_name("webhook_integrations.json")),
    }

    assert expected == given
    assert () == loaded.warnings


def test_the_example_documents_every_key_in_order() -> None:
    """Each key of the model stands in the example, each once, in the model's order; and each source by its name."""
    text = EXAMPLE.read_text(encoding="utf-8")
    tree = parse(text, "config.yaml.example")
    documented = [dotted(path) for path in tree.lines if dotted(path) in KEYS]

    assert [dotted(path) for path, _ in leaves()] == documented
    assert [] == [secret.credential for secret in SECRETS if secret.credential not in text]
    variables = [*VARIABLES, *(secret.variable for secret in SECRETS if secret.variable)]
    assert [] == [variable for variable in variables if variable not in text]
    assert [] == [line for line in text.splitlines() if re.match(r" *[a-z_]+: *[{[][^]]", line)], "block style"


def test_an_empty_section_is_its_defaults(tmp_path: Path) -> None:
    """A section whose lines are all commented out is no mistake."""
    assert Config().web == load_text(tmp_path, f"{BASE}web:\n  # port: 1\n").config.web


def test_settings_are_frozen_and_closed() -> None:
    """No code can change settings, and no code can invent one."""
    with pytest.raises(ValidationError):
        Config().web.port = 1
    with pytest.raises(ValidationError):
        SpoolSettings.model_validate({"rout": "/x"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1GiB", 2**30),
        ("500 MiB", 500 * 2**20),
        ("10GB", 10**10),
        ("1.5 tib", 3 * 2**39),
        ("2048", 2048),
        ("7 B", 7),
        ("0", 0),
    ],
)
def test_sizes_have_units(text: str, expected: int) -> None:
    """Binary and decimal units are told apart; a bare number is bytes."""
    assert expected == SpoolSettings.model_validate({"min_free_bytes": text}).min_free_bytes


@pytest.mark.parametrize("text", ["1G", "GiB", "-1", "1e9", "1 GiB B", "", "1,5GiB", "9" * 20])
def test_unclear_sizes_are_refused(text: str) -> None:
    """`1G` may mean two things, so it means none."""
    with pytest.raises(ValidationError):
        SpoolSettings.model_validate({"min_free_bytes": text})


def test_an_address_loses_its_last_slash(tmp_path: Path) -> None:
    """Paths can be appended to an address as it is."""
    loaded = load_text(tmp_path, "integrations: {gotranscript: {base_url: 'https://a.example/api//'}}")
    assert "https://a.example/api" == loaded.config.integrations.gotranscript.base_url


# --- what the settings mean -------------------------------------------------------------------------------------------


def test_without_an_api_key_the_integration_is_held_not_wrong(tmp_path: Path) -> None:
    """A fresh installation is valid; it says what is missing and how to give it."""
    gotranscript = load_text(tmp_path, BASE).config.integrations.gotranscript
    assert (gotranscript.held_because or "").startswith("no API key: set integrations.gotranscript.api_key_file")
    with_key = load_text(tmp_path, BASE, GOTRANSCRIPT_API_KEY="K").config.integrations.gotranscript
    assert with_key.held_because is None
    assert "https://portal.example.com" == with_key.base_url


V4 = "integrations:\n  gotranscript: {base_url: 'https://a', profile: gotranscript-v4, language: en}\n"
S3 = "  s3: {enabled: true, bucket: abc}\n"


def test_v4_asks_when_an_outcome_is_unknown(tmp_path: Path) -> None:
    """Without idempotency a second order costs money, so that profile's default is to ask."""
    gotranscript = load_text(tmp_path, V4 + S3).config.integrations.gotranscript
    assert (Profile.GOTRANSCRIPT_V4, "ask") == (gotranscript.profile, gotranscript.on_unknown_outcome)
    said = load_text(tmp_path, V4.replace("en}", "en, on_unknown_outcome: ask}") + S3)
    assert "ask" == said.config.integrations.gotranscript.on_unknown_outcome


@pytest.mark.parametrize("word", ["retry", "lookup"])
def test_v4_refuses_what_its_service_cannot_do(tmp_path: Path, word: str) -> None:
    """A setting that could order twice is refused with the reason."""
    (told,) = problems_of(write(tmp_path, V4.replace("en}", f"en, on_unknown_outcome: {word}}}") + S3))
    assert told.startswith(f"config.yaml:2: integrations.gotranscript.on_unknown_outcome: {word} can't be used with")
    assert told.endswith("a second order costs money; set it to ask, or remove the line")


def test_v4_needs_s3_and_a_language(tmp_path: Path) -> None:
    """That service fetches the package itself, and must know what is spoken."""
    first, second = problems_of(write(tmp_path, V4.replace(", language: en", "")))
    assert first.startswith("config.yaml:2: integrations.gotranscript.profile: gotranscript-v4 needs integrations.s3")
    assert second.startswith("config.yaml:2: integrations.gotranscript.language: needed by profile gotranscript-v4")


EXPOSED = f"{BASE}web:\n  host: 0.0.0.0\n"
TOKEN = "a-token-of-16-or-more"


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("", "web.expose: true and web.token_file"),
        ("  expose: true\n", "web.token_file"),
        (f"  token: {TOKEN}\n", "web.expose: true"),
        (f"  expose: false\n  token: {TOKEN}\n", "web.expose: true"),
    ],
)
def test_only_two_settings_together_open_the_page_to_others(tmp_path: Path, line: str, missing: str) -> None:
    """An address beyond loopback needs the wish and the token; the line of the address names both, and what lacks."""
    (told,) = problems_of(write(tmp_path, EXPOSED + line))
    message = "web.host: other machines could read the page, so it needs both web.expose: true and web.token"
    assert f"config.yaml:3: {message}; set {missing}, or host: 127.0.0.1" == told


def test_an_open_page_is_allowed_and_pointed_out(tmp_path: Path) -> None:
    """With both it is valid, with a warning about the unencrypted way; a server that is off opens nothing."""
    told = load_text(tmp_path, f"{EXPOSED}  expose: true\n  token: {TOKEN}\n").warnings
    assert any(
        warning.startswith("web.host: the page and its token cross the network unencrypted; ") for warning in told
    )
    assert not load_text(tmp_path, f"{EXPOSED}  enabled: false\n").config.web.enabled


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST"])
def test_loopback_needs_neither(tmp_path: Path, host: str) -> None:
    """What only this machine reaches is served as it is."""
    assert () == load_text(tmp_path, f"{BASE}web: {{host: '{host}'}}").warnings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "tfwatch.example.com", "localhost.example.com"])
def test_every_other_address_is_taken_for_open(tmp_path: Path, host: str) -> None:
    """Names too: what they lead to may change."""
    (told,) = problems_of(write(tmp_path, f"{BASE}web: {{host: '{host}'}}"))
    assert told.startswith("config.yaml:2: web.host: other machines could read the page")


def test_a_token_is_long_and_its_value_not_shown(tmp_path: Path) -> None:
    """One that could be found by trying is refused; names of hosts are names."""
    (told,) = problems_of(write(tmp_path, f"{BASE}web: {{token: fifteen-letters}}"))
    assert told.endswith("config.yaml:2: web.token: must have 16 characters or more; make one: openssl rand -hex 32")
    for wrong in ("a.example:80", "http://a.example", "a b", "-a", ""):
        (told,) = problems_of(write(tmp_path, f"{BASE}web: {{hosts: ['{wrong}']}}"))
        assert "config.yaml:2: web.hosts[0]: must be a host name alone, as tfwatch.example.com" == told
    assert ("a.example",) == load_text(tmp_path, f"{BASE}web: {{hosts: [A.Example]}}").config.web.hosts


def test_warnings_about_what_is_valid_but_hardly_meant(tmp_path: Path) -> None:
    """Plain http to another machine, and a retention that can never take effect, are pointed out."""
    text = "integrations: {gotranscript: {base_url: 'http://portal.example.com'}}\nretention: {delivered_days: 3}\n"
    first, second = load_text(tmp_path, text).warnings
    assert first.startswith("integrations.gotranscript.base_url: ")
    assert second.startswith("retention.delivered_days: ")
    for host in ("localhost", "127.0.0.1:9", "[::1]:9"):
        assert () == load_text(tmp_path, f"integrations: {{gotranscript: {{base_url: 'http://{host}'}}}}").warnings


def test_changed_sections_and_restarts() -> None:
    """A reload learns which sections to apply anew, and that a spool can't move under a running daemon."""
    old = Config()
    new = Config(
        spool=SpoolSettings(root="/srv/spool"),
        integrations=Integrations(
            gotranscript=GotranscriptSettings(api_key=SecretStr("K")), s3=S3Settings(secret_key=SecretStr("S"))
        ),
        language="pt-BR",
    )
    assert frozenset() == changed_sections(old, Config())
    expected = {"spool", "integrations.gotranscript", "integrations.s3", "language"}
    assert expected == changed_sections(old, new)
    assert () == needs_restart(old, Config(spool=SpoolSettings(settle_seconds=1)))
    (sentence,) = needs_restart(old, new)
    assert sentence.startswith("spool.root: can't change from /var/lib/tfwatch to /srv/spool while running; ")
