"""Where values come from and which wins; and that a secret among them shows nowhere."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyfakefs.fake_filesystem import FakeFilesystem
from pyfakefs.helpers import reset_ids, set_uid

from tfwatch import look
from tfwatch.settings_file import Loaded, load
from tfwatch.settings_problems import KEYS, ConfigError
from tfwatch.settings_sources import SECRETS, VARIABLES

BASE = "integrations: {gotranscript: {base_url: https://portal.example.com}}\n"
ACCOUNT = json.dumps({"client_email": "a@b.example", "private_key": "k", "token_uri": "https://t.example"})


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


# --- sources ----------------------------------------------------------------------------------------------------------


def test_the_environment_wins_over_dotenv_wins_over_the_file(tmp_path: Path) -> None:
    """Each variable sets its key; `sources` names the one that won; an empty variable is none."""
    text = f"{BASE}spool: {{root: /file}}\nweb:\n  port: 99\n"
    write(tmp_path, "# comment\nexport S3_BUCKET='from-dotenv'\nTFWATCH_SPOOL_ROOT=/dotenv\n", ".env")
    path = write(tmp_path, text)
    loaded = load(path, environ={"S3_BUCKET": "from-env", "S3_REGION": "", "S3_ENDPOINT": "http://127.0.0.1:9000/"})

    assert "from-env" == loaded.config.integrations.s3.bucket
    assert "/dotenv" == loaded.config.spool.root
    assert "http://127.0.0.1:9000" == loaded.config.integrations.s3.endpoint_url
    sources = {key: source.replace(str(tmp_path), ".") for key, source in loaded.sources.items()}
    assert "environment S3_BUCKET" == sources["integrations.s3.bucket"]
    assert ".env:3 TFWATCH_SPOOL_ROOT" == sources["spool.root"]
    assert "default" == sources["integrations.s3.region"]
    assert "./config.yaml:4" == sources["web.port"]
    assert KEYS == sources.keys()
    assert (path, f"{tmp_path}/.env") == loaded.files


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE", " On "])
def test_switches_in_the_environment(tmp_path: Path, text: str) -> None:
    """Every usual word for yes is understood, and a word for no beats the file."""
    write(tmp_path, "GOTRANSCRIPT_ENABLED=no\n", ".env")
    assert load_text(tmp_path, BASE, GOTRANSCRIPT_ENABLED=text).config.integrations.gotranscript.enabled
    assert not load_text(tmp_path, BASE).config.integrations.gotranscript.enabled


def test_a_misspelt_variable_in_dotenv_is_pointed_out(tmp_path: Path) -> None:
    """A line in `.env` that looks like ours but isn't gives a warning, others are left alone."""
    write(tmp_path, "S3_BUKET=x\nPATH=/bin\n", ".env")
    (warning,) = load_text(tmp_path, BASE).warnings
    assert f"{tmp_path}/.env:1: a variable here is not one of tfwatch's; check its spelling" == warning


def test_a_secret_is_taken_from_the_first_place_that_has_it(fs: FakeFilesystem) -> None:
    """Environment, `.env`, credential, credentials folder, `_file` key, the file: each wins over those after it."""
    fs.create_file(
        "/etc/tfwatch/config.yaml",
        contents="integrations:\n  gotranscript:\n    base_url: https://a.example\n    api_key: K6\n"
        "    api_key_file: secrets/key\n",
        st_mode=0o100600,
    )
    fs.create_file("/etc/tfwatch/.env", contents="GOTRANSCRIPT_API_KEY=K2\n", st_mode=0o100600)
    fs.create_file("/run/credentials/gotranscript_api_key", contents="K3\n", st_mode=0o100400)
    fs.create_file("/run/credentials/tfwatch_gotranscript_api_key", contents="K4", st_mode=0o100400)
    fs.create_file("/etc/tfwatch/secrets/key", contents="K5\r\n", st_mode=0o100600)
    environ = {"GOTRANSCRIPT_API_KEY": "K1", "CREDENTIALS_DIRECTORY": "/run/credentials"}

    def found() -> tuple[str, str]:
        loaded = load("/etc/tfwatch/config.yaml", environ=environ)
        key = loaded.config.integrations.gotranscript.api_key
        assert key is not None
        return key.get_secret_value(), loaded.sources["integrations.gotranscript.api_key"]

    assert ("K1", "environment GOTRANSCRIPT_API_KEY") == found()
    del environ["GOTRANSCRIPT_API_KEY"]
    assert ("K2", ".env:1 GOTRANSCRIPT_API_KEY") == found()
    fs.remove("/etc/tfwatch/.env")
    assert ("K3", "credential gotranscript_api_key") == found()
    fs.remove("/run/credentials/gotranscript_api_key")
    assert ("K4", "credential tfwatch_gotranscript_api_key") == found()
    del environ["CREDENTIALS_DIRECTORY"]
    assert ("K5", "/etc/tfwatch/secrets/key, named at /etc/tfwatch/config.yaml:5") == found()
    loaded = load("/etc/tfwatch/config.yaml", environ=environ)
    assert "/etc/tfwatch/secrets/key" in loaded.files
    section = "integrations.gotranscript"
    expected = f"/etc/tfwatch/config.yaml:5: {section}.api_key_file wins over {section}.api_key; remove one of them"
    assert expected in loaded.warnings


def test_every_secret_has_a_file_key_and_a_credential(fs: FakeFilesystem) -> None:
    """The rule is the same for all of them; a list has an entry a line."""
    contents = {
        "integrations.sheets.service_account_json": ACCOUNT,
        "integrations.gotranscript.callback_url": "https://a.example/webhooks/gotranscript/token",
        "web.token": "a-token-of-16-or-more",
        "alerts.urls": "# us\nntfy://one\n\nntfy://two",
    }
    for secret in SECRETS:
        text = contents.get(secret.key, "S")
        tree: dict[str, Any] = {"integrations": {"gotranscript": {"enabled": False}}}
        section = tree
        for part in secret.key.split(".")[:-1]:
            section = section.setdefault(part, {})
        fs.create_file(f"/run/{secret.credential}", contents=f"{text}\n", st_mode=0o100400)
        fs.create_file(f"/c/{secret.key}.credential.yaml", contents=json.dumps(tree))
        section[f"{secret.key.split('.')[-1]}_file"] = f"/run/{secret.credential}"
        fs.create_file(f"/c/{secret.key}.file.yaml", contents=json.dumps(tree))

        by_file = load(f"/c/{secret.key}.file.yaml", environ={})
        by_credential = load(f"/c/{secret.key}.credential.yaml", environ={"CREDENTIALS_DIRECTORY": "/run"})
        value: Any = by_file.config
        other: Any = by_credential.config
        for part in secret.key.split("."):
            value, other = getattr(value, part), getattr(other, part)
        assert value == other
        expected = ("ntfy://one", "ntfy://two") if secret.is_list else text
        assert expected == (tuple(v.get_secret_value() for v in value) if secret.is_list else value.get_secret_value())
        fs.remove(f"/run/{secret.credential}")


@pytest.mark.parametrize("how", ["json", "path", "variable json", "variable path", "dotenv path"])
def test_a_service_account_is_a_path_or_the_json(fs: FakeFilesystem, how: str) -> None:
    """However it is given, the settings hold the JSON."""
    fs.create_file("/etc/tfwatch/account.json", contents=ACCOUNT, st_mode=0o100600)
    given = ACCOUNT if "json" in how else "account.json"
    sheets = {"enabled": True, "spreadsheet_id": "abc"}
    if " " not in how:
        sheets["service_account_json"] = given
    integrations = {"gotranscript": {"enabled": False}, "sheets": sheets}
    fs.create_file("/etc/tfwatch/config.yaml", contents=json.dumps({"integrations": integrations}), st_mode=0o100600)
    if how.startswith("dotenv"):
        fs.create_file("/etc/tfwatch/.env", contents=f"GOOGLE_SERVICE_ACCOUNT_JSON={given}\n")
    environ = {"GOOGLE_SERVICE_ACCOUNT_JSON": given} if how.startswith("variable") else {}
    found = load("/etc/tfwatch/config.yaml", environ=environ).config.integrations.sheets.service_account_json
    assert found is not None
    assert ACCOUNT == found.get_secret_value()


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (None, "/k: no such file; make it, or correct the name"),
        ("\n", "the file is empty; put the secret in, or stop naming the file"),
        ("a\nb\n", "must be one line of plain characters, without spaces"),
        ("a b", "must be one line of plain characters, without spaces"),
        ("ключ", "must be one line of plain characters, without spaces"),
    ],
)
def test_a_secret_file_with_nothing_usable_in_it(fs: FakeFilesystem, contents: str | None, expected: str) -> None:
    """A secret that would break a header, or isn't there, is told before anything is sent."""
    fs.create_file("/c.yaml", contents="integrations: {gotranscript: {base_url: https://a, api_key_file: /k}}")
    if contents is not None:
        fs.create_file("/k", contents=contents, encoding="utf-8")
    (told,) = problems_of("/c.yaml")
    assert told.endswith(f": {expected}")


def test_a_secret_file_of_another_user(fs: FakeFilesystem) -> None:
    """What the daemon may not read is told with the command that shows why; and is watched until it is mended."""
    fs.create_file("/c.yaml", contents="integrations: {gotranscript: {base_url: https://a, api_key_file: /s/k}}")
    fs.create_file("/s/k", contents="K", st_mode=0o100600)
    os.chown("/s/k", 0, 0)
    set_uid(1000)
    try:
        with pytest.raises(ConfigError) as caught:
            load("/c.yaml", environ={})
    finally:
        reset_ids()
    (problem,) = caught.value.problems
    assert "may not read it" in problem.message
    assert "look at its owner and mode: namei -l /s/k" == problem.hint
    assert "/s/k" in caught.value.files


def test_secrets_that_everyone_may_read_are_pointed_out(tmp_path: Path) -> None:
    """Each file that holds a secret and is readable by every user gives a warning with the command that mends it."""
    section = f"{{gotranscript: {{base_url: https://a, api_key: K}}, s3: {{access_key_file: {tmp_path}/k}}}}"
    paths = [
        write(tmp_path, f"integrations: {section}\n"),
        write(tmp_path, "S3_SECRET_KEY=S", ".env"),
        write(tmp_path, "K", "k"),
    ]
    for path in paths:
        os.chmod(path, 0o644)
    said = "holds secrets and is readable by every user; chmod o-r"
    assert {f"{path}: {said} {path}" for path in paths} == set(load(paths[0], environ={}).warnings)
    for path in paths:
        os.chmod(path, 0o640)
    assert () == load(paths[0], environ={}).warnings


def test_files_are_named_from_the_settings_folder(tmp_path: Path) -> None:
    """A relative name means the same wherever the daemon is started."""
    assert f"{tmp_path}/webhook_integrations.json" == load_text(tmp_path, BASE).config.webhooks.secrets_file
    loaded = load_text(tmp_path, f"{BASE}webhooks: {{secrets_file: /var/x.json}}\n")
    assert "/var/x.json" == loaded.config.webhooks.secrets_file


# --- secrets never show -----------------------------------------------------------------------------------------------

CANARY = "CANARY" * 6 + "7"


def test_a_secret_shows_nowhere_when_all_is_well(fs: FakeFilesystem) -> None:
    """Neither the settings nor where they came from hold a secret in their text."""
    account = json.dumps({"client_email": "a", "private_key": CANARY, "token_uri": "https://t"})
    tree = {
        "integrations": {
            "gotranscript": {"base_url": "https://a", "api_key": CANARY, "callback_url": f"https://a/{CANARY}"},
            "s3": {"access_key": CANARY, "secret_key": CANARY},
            "sheets": {"service_account_json": account},
        },
        "alerts": {"urls": [f"ntfy://{CANARY}"]},
    }
    fs.create_file("/c.yaml", contents=json.dumps(tree))
    loaded = load("/c.yaml", environ={})
    assert CANARY not in f"{loaded!r} {loaded.config} {loaded.config.model_dump()} {loaded.config.model_dump_json()}"


def all_said(path: str, environ: dict[str, str]) -> str:
    """Everything a failed load could put before anyone's eyes."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ)
    error = caught.value
    shown = [*traceback.format_exception(error), str(error), repr(error), repr(error.problems)]
    return " ".join([*shown, repr(error.__context__), repr(error.__cause__)])


def test_a_secret_shows_nowhere_when_everything_is_wrong(fs: FakeFilesystem) -> None:
    """Secrets that are malformed, in the wrong place or beside mistakes appear in no problem and no traceback."""
    bad = f"{CANARY} with spaces"
    tree = {
        "spool": {"root": CANARY, "min_free_bytes": CANARY, "settle_seconds": CANARY, CANARY: 1},
        "integrations": {
            "gotranscript": {
                "base_url": f"https://user:{CANARY}@a.example/",
                "api_key": bad,
                "callback_url": f"ftp://{CANARY}",
                "profile": CANARY,
                "retry": CANARY,
                "enabled": CANARY,
            },
            "s3": {
                "access_key": {CANARY: CANARY},
                "secret_key_file": CANARY,
                "bucket": f"{CANARY}/",
                "region": [CANARY],
            },
            "sheets": {"service_account_json": CANARY, "spreadsheet_id": f"https://{CANARY}"},
        },
        "alerts": {"urls": [CANARY, {"x": CANARY}], "urls_file": "relative/" + CANARY},
        "timezone": CANARY,
        "language": CANARY,
        "web": {"port": CANARY, "host": f"{CANARY}:1"},
        "webhooks": CANARY,
    }
    fs.create_file("/e/config.yaml", contents=json.dumps(tree))
    fs.create_file("/e/.env", contents=f"S3_ACCESS_KEY = = '{CANARY}\n{CANARY}\nS3_SECRET_KEY='{bad}'\n")
    assert CANARY not in all_said("/e/config.yaml", {})
    fs.create_file("/run/s3_secret_key", contents=bad)
    fs.create_file("/run/alert_urls", contents=bad)
    fs.create_file("/run/google_service_account_json", contents=f'{{"private_key": "{CANARY}')
    variables = dict.fromkeys(VARIABLES, bad) | {secret.variable: bad for secret in SECRETS if secret.variable}
    assert CANARY not in all_said("/e/config.yaml", {"CREDENTIALS_DIRECTORY": "/run"})
    assert CANARY not in all_said("/e/config.yaml", variables)


@settings(deadline=None, max_examples=300)
@given(
    before=st.text(alphabet="*&!%@`'\"|>-?:,[]{}#\\\t\n ~.<=", max_size=6),
    after=st.text(alphabet="*&!%@`'\"|>-?:,[]{}#\\\t\n ~.<=", max_size=6),
)
def test_a_secret_that_confuses_yaml_is_not_quoted(
    before: str, after: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever signs stand around a secret, the complaint about the YAML doesn't repeat it."""
    text = f"integrations:\n  gotranscript:\n    api_key: {before}{CANARY}{after}\nwebz: 1\n"
    path = write(tmp_path_factory.getbasetemp(), text)
    assert CANARY not in all_said(path, {})


@pytest.mark.parametrize(
    ("uid", "config", "expected"),
    [
        (0, "/etc/tfwatch/config.yaml", "/run/credentials/tfwatch.service"),
        (0, "/etc/tfwatch/lisbon/config.yaml", "/run/credentials/tfwatch@lisbon.service"),
        (1000, "/home/ana/.config/tfwatch/config.yaml", "/run/user/1000/credentials/tfwatch.service"),
    ],
)
def test_a_command_sees_the_secrets_of_its_own_service(
    fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch, uid: int, config: str, expected: str
) -> None:
    """Of several daemons the one with these settings, and a person's own: never another one's secrets."""
    monkeypatch.setattr("os.geteuid", lambda: uid)
    places = ("credentials/tfwatch", "credentials/tfwatch@lisbon", "user/1000/credentials/tfwatch")
    for place in (f"/run/{each}.service" for each in places):
        fs.create_file(f"{place}/tfwatch_gotranscript_api_key", contents=place)
    text = "integrations:\n  gotranscript:\n    base_url: https://a.example\n"
    fs.create_file(config, contents=text, st_mode=0o100600)
    key = look.settings(config, {"XDG_RUNTIME_DIR": "/run/user/1000"}).config.integrations.gotranscript.api_key

    assert key is not None
    assert expected == key.get_secret_value()


# --- a bystander ------------------------------------------------------------------------------------------------------


def test_a_secret_that_a_bystander_may_not_read_is_no_problem(fs: FakeFilesystem) -> None:
    """Neither that it can't be read nor that something needs it; the daemon is told both, a wrong name always."""
    text = (
        "integrations:\n  gotranscript: {base_url: https://portal.example.com, api_key_file: /s/key}\n"
        "  s3: {enabled: true, bucket: backups, access_key: id, secret_key_file: /s/secret}\n"
        "  sheets: {enabled: true, spreadsheet_id: sheet, service_account_json_file: /s/account}\n"
    )
    fs.create_file("/etc/tfwatch/config.yaml", contents=text)
    for name in ("/s/key", "/s/secret", "/s/account", "/etc/tfwatch/.env"):
        fs.create_file(name, contents="K", st_mode=0o100600)
    path = "/etc/tfwatch/config.yaml"
    set_uid(1001)
    try:
        loaded = load(path, environ={}, bystander=True)
        assert loaded.config.integrations.s3.enabled
        assert loaded.config.integrations.sheets.enabled
        told = problems_of(path)
        assert 4 == sum("may not read it" in problem for problem in told), told
        set_uid(0)
        Path(path).write_text(text.replace("/s/secret", "/s/none"))
        set_uid(1001)
        with pytest.raises(ConfigError) as caught:
            load(path, environ={}, bystander=True)
        (problem,) = caught.value.problems
        assert "no such file" in str(problem)
    finally:
        reset_ids()
