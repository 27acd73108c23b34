"""What a service repeats of our secrets is blotted out, in whatever spelling it does that."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus, urlencode

import pytest

from tfwatch.adapters.secrecy import blot, holds

SECRET = 'k+y/"ä =='


@pytest.mark.parametrize("spell", [str, quote, quote_plus, lambda text: quote(text, safe=""), json.dumps])
def test_every_spelling_is_blotted(spell: object) -> None:
    """Plain, in a URL, in a form, in JSON: nothing of it is left."""
    text = f"you sent {spell(SECRET)} to us"  # type: ignore[operator]
    assert holds(text, (None, "", SECRET))
    assert "you sent *** to us" == blot(text, (None, "", SECRET)).replace('"', "")


def test_a_form_is_blotted_whole() -> None:
    """As a service repeats it that only says what it got."""
    form = urlencode({"api_token": SECRET, "mode": "test"})
    assert "api_token=***&mode=test" == blot(form, (SECRET,))


def test_a_signed_login_is_blotted_though_nobody_names_it() -> None:
    """A JWT lets in whoever has it; words with dots in them are none."""
    login = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJyb2JvdCJ9.c2lnbmF0dXJl"
    assert "assertion=***: who is eyJ.a.b?" == blot(f"assertion={login}: who is eyJ.a.b?", ())


def test_other_words_stay() -> None:
    """No secret, no change."""
    assert "no speech in it" == blot("no speech in it", ("secret", None))
    assert not holds("no speech in it", ("secret", None))
