"""Every text for people is translated, whole, and can be made; English costs nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources

import pytest

from tests.support import catalogue
from tests.support.catalogue import forms, placeholders
from tests.unit.test_docs import integration_words
from tfwatch import language, local_time, wording
from tfwatch.delivery import reasons
from tfwatch.language import ntr, number, tr

_TECHNICAL = re.compile(
    r"""  \btfwatch\ (?:enable|disable|requeue|status|why|fsck|doctor|restore|log|rotate-secret)(?:\ --\w+)?
       |  systemctl\ [a-z]+\ tfwatch
       |  \b(?:integrations|intake|spool|web|webhooks|alerts|retention|fs)\.[a-z_.{}]*[a-z_}]
       |  \b(?:chmod|chown|umount|df|chattr|timedatectl)\ [-a-z+]+
       |  \b(?:outbox|claimed|submitted|delivered|rejected)/  |  \b[a-z]+\.(?:csv|yaml|json)\b  |  `[^`]*`
    """,
    re.VERBOSE,
)
"""What a person types, or looks for on this machine: the same in every language."""

_WRAPPED = "make texts, then translate what is empty in tfwatch/locale/pt_BR/LC_MESSAGES/tfwatch.po"


@pytest.fixture
def portuguese() -> Iterator[None]:
    """Portuguese, for one test."""
    language.use("pt-BR")
    yield
    language.use("en")


@pytest.fixture
def in_sao_paulo() -> Iterator[None]:
    """Brasília time, for one test."""
    local_time.use("America/Sao_Paulo")
    yield
    local_time.use("local")


def test_every_text_has_a_translation() -> None:
    """No operator who asked for Portuguese is answered in English."""
    known = catalogue.translated()
    texts = [message.id for message in catalogue.extracted() if message.id]
    missing = [text for text in texts if (found := known.get(text)) is None or not all(forms(found.string))]
    assert len(texts) > 300
    assert [] == missing, _WRAPPED


def test_the_catalogue_holds_nothing_else() -> None:
    """A text that is gone from the code is gone from the catalogue, and no translation is a guess."""
    known = catalogue.translated()
    texts = catalogue.extracted()
    assert [] == [message.id for message in known if message.id and texts.get(message.id) is None], _WRAPPED
    assert [] == [message.id for message in known if message.id and message.fuzzy]
    assert {} == dict(known.obsolete)


def test_every_text_is_a_literal() -> None:
    """Babel finds texts by reading: one that is put together first, or made inside an f-string, is never translated."""
    found = {text for message in catalogue.extracted() for text in forms(message.id)}
    made = list(catalogue.calls())
    assert len(made) > 300
    assert [] == [place for place, texts in made if texts is None or not set(texts) <= found]


def test_a_translation_says_what_the_text_says() -> None:
    """Placeholders, commands, keys, folders and line breaks at the end are those of the English text."""
    wrong = []
    for message in catalogue.translated():
        for form, english in zip(forms(message.string), forms(message.id), strict=True) if message.id else ():
            same = [
                placeholders(form) == placeholders(english),
                set(_TECHNICAL.findall(english)) <= set(_TECHNICAL.findall(form)),
                _edges(form) == _edges(english),
            ]
            if not all(same):
                wrong.append((english, form, same))
    assert [] == wrong


def _edges(text: str) -> tuple[bool, str]:
    """How a text joins on to what stands before and after it."""
    return text[:1] in " ,;.", text[-1:] if text[-1:] in "\n." else ""


def test_every_text_can_be_made() -> None:
    """Each template, in both languages, takes exactly its placeholders, whatever stands in the values."""
    hostile = "{0} {name} %s }{"
    for message in catalogue.translated():
        for template in (*forms(message.id), *forms(message.string)) if message.id else ():
            made = template.format(**dict.fromkeys(placeholders(template), hostile))
            assert made.count(hostile) >= len(placeholders(template))


def test_texts_are_spoken_in_the_language_in_use(portuguese: None) -> None:
    """A text is made in the language of that moment; values are not touched; numbers are written as people do."""
    assert "observando {x}" == tr("watching {folder}", folder="{x}")
    assert "1 entregue hoje" == ntr("{count} delivered today", "{count} delivered today", 1)
    assert "1.234 entregues hoje" == ntr("{count} delivered today", "{count} delivered today", 1234)
    assert "1.234,5" == number(1234.5, 1)
    language.use("en")
    assert "watching {x}" == tr("watching {folder}", folder="{x}")
    assert "1,234 delivered today" == ntr("{count} delivered today", "{count} delivered today", 1234)
    assert "1,234.5" == number(1234.5, 1)


def test_a_text_without_a_translation_is_english(portuguese: None) -> None:
    """A new text may come before its translation."""
    assert "no such text: 7" == _spoken("no such text: {number}", number=7)


def _spoken(text: str, **values: object) -> str:
    return tr(text, **values)


def test_the_catalogue_is_part_of_the_package() -> None:
    """An installed tfwatch finds its translations where the package lies."""
    assert resources.files("tfwatch").joinpath("locale/pt_BR/LC_MESSAGES/tfwatch.po").is_file()


def test_english_does_not_load_what_portuguese_needs() -> None:
    """A daemon that speaks English stays as small as it was: Babel is only imported for another language."""
    program = (
        "import sys; import tfwatch.app; from tfwatch import language; language.use('en')\n"
        "assert 'babel' not in sys.modules\n"
        "language.use('pt-BR'); assert 'babel' in sys.modules; print(language.tr('renamed'))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (0, "renomeado\n") == (ran.returncode, ran.stdout), ran.stderr


# --- words that programs compare --------------------------------------------------------------------------------------


def test_words_of_the_house_are_shown_and_never_changed(portuguese: None) -> None:
    """Every state word has its Portuguese; a word nobody knows is shown as it is."""
    shown = {word: wording.integration_state(word) for word in integration_words()}
    assert [] == [word for word, said in shown.items() if word == said]
    assert len(set(shown.values())) == len(shown)
    assert "novel" == wording.integration_state("novel")


def test_every_flaw_has_its_advice_in_both_languages(portuguese: None) -> None:
    """What to do about a refused ZIP is said in the operator's language."""
    spoken = reasons.advice()
    language.use("en")
    english = reasons.advice()
    assert spoken.keys() == english.keys()
    assert [] == [flaw for flaw in spoken if spoken[flaw] == english[flaw]]


# --- moments ----------------------------------------------------------------------------------------------------------


def test_moments_are_shown_where_people_live(in_sao_paulo: None, portuguese: None) -> None:
    """One zone and one notation for every moment people read."""
    moment = datetime(2026, 11, 25, 2, 42, 7, tzinfo=UTC)
    assert "24/11/2026 23:42" == local_time.date_and_time(moment)
    assert "24/11/2026 23:42:07" == local_time.to_the_second(moment)
    language.use("en")
    assert "2026-11-24 23:42" == local_time.date_and_time(moment)
    assert "2026-11-24 23:42:07" == local_time.to_the_second(moment)


def test_today_needs_no_date(in_sao_paulo: None) -> None:
    """A moment of this day, as its zone counts days, is told by its time alone."""
    now = datetime(2026, 11, 25, 2, 59, tzinfo=UTC)
    assert "00:01" == local_time.time_of_day(datetime(2026, 11, 24, 3, 1, tzinfo=UTC), now)
    assert "2026-11-23 23:59" == local_time.time_of_day(datetime(2026, 11, 24, 2, 59, tzinfo=UTC), now)


@pytest.mark.parametrize(
    ("zone", "now", "began"),
    [
        ("America/Sao_Paulo", (2026, 11, 25, 2, 59), (2026, 11, 24, 3, 0)),
        ("America/Sao_Paulo", (2026, 11, 25, 3, 0), (2026, 11, 25, 3, 0)),
        ("UTC", (2026, 11, 25, 2, 59), (2026, 11, 25, 0, 0)),
        ("Europe/Berlin", (2026, 10, 25, 12, 0), (2026, 10, 24, 22, 0)),  # this day has 25 hours
    ],
)
def test_a_day_begins_at_its_zones_midnight(zone: str, now: tuple[int, ...], began: tuple[int, ...]) -> None:
    """What was delivered today is counted by the operator's day, also when clocks change in it."""
    local_time.use(zone)
    try:
        assert datetime(*began, tzinfo=UTC) == local_time.midnight(datetime(*now, tzinfo=UTC))  # type: ignore[misc,arg-type]
    finally:
        local_time.use("local")
