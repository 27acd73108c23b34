"""Words of the house that programs compare, as people read them. The words themselves never change."""

from __future__ import annotations

from datetime import datetime

from tfwatch.language import number, tr
from tfwatch.local_time import date_and_time


def integration_state(word: str) -> str:
    """Where an integration stands: `enabled`, `rolled back`, …"""
    words = {
        "enabled": tr("enabled"),
        "off": tr("off"),
        "held": tr("held"),
        "waiting": tr("waiting"),
        "disabled": tr("disabled"),
        "paused": tr("paused"),
        "rolled back": tr("rolled back"),
    }
    return words.get(word, word)


def held_since(word: str, since: datetime | None) -> str:
    """Since when an integration stands where the log says it does."""
    state = integration_state(word)
    return tr("{state} since {when}", state=state, when=date_and_time(since)) if since else state


def call_in_words(outcome: str) -> str:
    """What came of a webhook's call: `settled`, `kept`, …"""
    words = {
        "settled": tr("it settles its package"),
        "kept": tr("its order is not known (yet); it is applied when it is"),
        "pending": tr("the order is still pending"),
        "late": tr("its package was settled before; nothing changes"),
        "contradicted": tr("its package was settled otherwise before; nothing changes"),
        "noted": tr("it says nothing of an order"),
        "unreadable": tr("its body is neither a JSON object nor a form; nothing changes"),
    }
    return words.get(outcome, outcome)


def work_in_words(doing: str) -> str:
    """What is being done to a package: `sending`, …"""
    words = {
        "reading": tr("reading"),
        "inspecting": tr("inspecting"),
        "sending": tr("sending"),
        "backing up": tr("backing up"),
    }
    return words.get(doing, doing)


def kind_of_file(kind: str) -> str:
    """What lies in a folder instead of a regular file."""
    words = {
        "symbolic link": tr("symbolic link"),
        "directory": tr("directory"),
        "FIFO": tr("FIFO"),
        "socket": tr("socket"),
        "block device": tr("block device"),
        "character device": tr("character device"),
        "regular file": tr("regular file"),
    }
    return words.get(kind, kind)


def seconds(count: float) -> str:
    """A length of time in its two largest units: `8 ms`, `0.8 s`, `12 s`, `3 min`, `2 h 5 min`, `4 d 3 h`."""
    if count < 0.1:
        return f"{count * 1000:.0f} ms"
    if count < 10:
        return f"{number(count, 1)} s"
    if count < 120:
        return f"{count:.0f} s"
    minutes = round(count / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
