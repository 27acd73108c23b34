"""What people read, in the operator's language: reasons, the status line, alerts and the page.

The language is one fact of the whole process, as the time zone is (`local_time`): set at the start and with each
reload. A text is translated when it is made: what was said before a change stays as it was said. What programs read
stays as it is: events, states, keys and the facts of `detail`. Technical words of other programs do, too.

A text without a translation is English, so a new one may come before its translation; tests name those that lack one.
"""

from __future__ import annotations

import gettext
import io
from importlib import resources
from typing import Final, Literal

Language = Literal["en", "pt-BR"]

_CATALOGUES: Final = {"pt-BR": "locale/pt_BR/LC_MESSAGES/tfwatch.po"}
_ENGLISH: Final = gettext.NullTranslations()

_spoken: Language = "en"
_texts: gettext.NullTranslations = _ENGLISH


def use(language: Language) -> None:
    """Speak this language from now on."""
    global _spoken, _texts
    if language != _spoken:
        _texts = _load(language)
        _spoken = language


def spoken() -> Language:
    """The language in use."""
    return _spoken


def tr(text: str, **values: object) -> str:
    """A text in the language in use, its `{names}` replaced by values. `text` is a literal: it is found by reading."""
    translated = _texts.gettext(text)
    return translated.format(**values) if values else translated


def ntr(one: str, many: str, count: int, **values: object) -> str:
    """The same for a number of things; `{count}` stands for it, written as `number` does."""
    return _texts.ngettext(one, many, count).format(count=number(count), **values)


def number(value: float, decimals: int = 0) -> str:
    """A number as people write it: `1,234.5`, in Portuguese `1.234,5`."""
    text = f"{value:,.{decimals}f}"
    return text.translate(str.maketrans(",.", ".,")) if _spoken == "pt-BR" else text


def _load(language: Language) -> gettext.NullTranslations:
    path = _CATALOGUES.get(language)
    if path is None:
        return _ENGLISH
    # Only here: a daemon that speaks English keeps Babel out of its memory.
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = io.BytesIO()
    with resources.files("tfwatch").joinpath(path).open("rb") as source:
        catalogue = read_po(source, locale=language.replace("-", "_"))
    for message in list(catalogue):
        if message.id and not all(message.string if isinstance(message.string, tuple) else (message.string,)):
            catalogue.delete(message.id)  # not translated: English, where a plural would come out empty
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)
