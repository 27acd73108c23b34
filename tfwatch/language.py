"""What people read, in the operator's language: reasons, the status line, alerts and the page.

The language is one fact of the whole process, as the time zone is: set at the start and with each reload. What programs
read stays as it is: events, states, keys and the facts of `detail`. Technical words of other programs do, too.
"""

from __future__ import annotations

import gettext
from typing import Literal

Language = Literal["en", "pt-BR"]

_texts = gettext.NullTranslations()


def use(language: Language) -> None:
    """Speak this language from now on."""
    global _texts
    _texts = _load(language)


def tr(text: str, **values: object) -> str:
    """A text in the language in use, its `{names}` replaced by values. `text` is a literal: it is found by reading."""
    spoken = _texts.gettext(text)
    return spoken.format(**values) if values else spoken


def ntr(one: str, many: str, count: int, **values: object) -> str:
    """The same for a number of things; `{count}` stands for it."""
    return _texts.ngettext(one, many, count).format(count=count, **values)


def _load(language: Language) -> gettext.NullTranslations:
    return gettext.NullTranslations()
