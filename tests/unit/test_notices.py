"""What an address is still to be told, and the message that tells it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tfwatch.model import AlertMessage
from tfwatch.observe.alerts import Condition, Turn
from tfwatch.observe.notices import MOST_WAITING, Backlog, Notice, Pace, compose, notice_of

TEN = 1_763_028_000.0  # 2025-11-13 10:00


def begins(key: str, at: float = TEN, text: str = "") -> Notice:
    return Notice(key=key, text=text or f"{key} it is", began=at)


def ends(key: str, at: float = TEN + 720, began: float = TEN) -> Notice:
    return Notice(key=key, text=f"{key} is over", began=began, ended=at, was_told=True)


def backlog(*notices: Notice) -> Backlog:
    made = Backlog()
    for notice in notices:
        made = made.add(notice)
    return made


def message(*notices: Notice, dropped: int = 0) -> AlertMessage:
    made = Backlog(notices=backlog(*notices).notices, dropped=dropped)
    return compose(made, host="box", root="/spool")


def test_one_alert_says_where_when_and_what_to_do() -> None:
    """Host, spool, moment and the whole text; the title alone is enough for a pager."""
    told = message(begins("disk-low", text="/spool: 3 MiB free; free some space"))
    assert "tfwatch on box: /spool: 3 MiB free; free some space" == told.title
    assert "2025-11-13 10:00: /spool: 3 MiB free; free some space" in told.body
    assert "Host box, spool /spool. How things stand now: tfwatch status" in told.body
    assert not told.is_over


def test_an_end_says_since_when_it_was() -> None:
    """And it is marked as good news."""
    told = message(ends("deaf"))
    assert "tfwatch on box: over: deaf is over" == told.title
    assert "2025-11-13 10:12: over (since 2025-11-13 10:00): deaf is over" in told.body
    assert told.is_over


def test_several_are_one_message() -> None:
    """Each with its line; the title counts."""
    told = message(begins("a"), begins("b"), ends("c"))
    assert "tfwatch on box: 2 alerts, 1 over" == told.title
    assert all(text in told.body for text in ("a it is", "b it is", "c is over"))
    assert not told.is_over


def test_what_came_and_went_untold_is_one_line() -> None:
    """Who could not be reached for an hour reads what was, and that it is over."""
    waiting = backlog(begins("a"), ends("a"))
    (notice,) = waiting.notices
    assert ("a it is", TEN, TEN + 720, False) == (notice.text, notice.began, notice.ended, notice.was_told)
    body = compose(waiting, host="box", root="/spool").body
    assert "2025-11-13 10:00 until 2025-11-13 10:12, over by now: a it is" in body


def test_what_is_told_anew_takes_the_place_of_what_waits() -> None:
    """The newest words, since the first moment."""
    (notice,) = backlog(begins("a"), begins("a", TEN + 60, "more of it")).notices
    assert ("more of it", TEN) == (notice.text, notice.began)


def test_an_address_is_owed_no_more_than_so_many() -> None:
    """The oldest are dropped, counted, and the journal named for them."""
    waiting = backlog(*(begins(f"key {n}") for n in range(MOST_WAITING + 7)))
    assert (MOST_WAITING, 7) == (len(waiting.notices), waiting.dropped)
    body = compose(waiting, host="box", root="/spool").body
    assert "37 more: journalctl -u tfwatch EVENT=ALERT" in body
    assert f"key {MOST_WAITING + 6} it is" in body


def test_a_failed_message_goes_before_what_came_meanwhile() -> None:
    """And what ended meanwhile ends in it."""
    merged = backlog(begins("a"), begins("b")).all_of(backlog(ends("a"), begins("c")))
    assert ["b", "a", "c"] == [notice.key for notice in merged.notices]
    assert [None, TEN + 720, None] == [notice.ended for notice in merged.notices]


def test_without_names_only_what_may_leave_does() -> None:
    """`include_names: false`: the journal has the names, the message has none."""
    condition = Condition(key="k", text="a.zip: broken", over="a.zip: fine", outside="1 package", over_outside="fine")
    told = [
        notice_of(Turn(condition=condition, began=TEN, is_over=is_over), TEN, names=names).text
        for names in (True, False)
        for is_over in (False, True)
    ]
    assert ["a.zip: broken", "a.zip: fine", "1 package", "fine"] == told


def test_nothing_in_a_name_calls_a_channel() -> None:
    """Chats obey `<!channel>`, `<@U123>` and `@everyone`; a file's name must not."""
    told = message(begins("x", text="<!channel> @everyone <b>.zip"))
    assert not set("<>@") & set(told.title + told.body)


def test_a_text_without_end_is_cut() -> None:
    """A service's words may be long; a message is not."""
    told = message(begins("x", text="y" * 100_000))
    assert len(told.title) < 150
    assert len(told.body) < 1000


def test_messages_come_ever_more_slowly_within_an_hour() -> None:
    """5 s, 10 s, 20 s … 15 min, and at once after a quiet hour."""
    pace, now, gaps = Pace(), 0.0, []
    for _ in range(9):
        pace = pace.after(now)
        gaps.append(pace.next_at(now) - now)
        now = pace.next_at(now)
    assert [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 900.0] == gaps
    assert now + 3600 == pace.next_at(now + 3600)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=150))
def test_a_backlog_ends_with_how_it_is(steps: list[tuple[str, bool]]) -> None:
    """Whatever was merged: the last word on each key is the last that was said, and the rest is counted."""
    waiting, last = Backlog(), {}
    for n, (key, is_over) in enumerate(steps):
        waiting = waiting.add(ends(key, TEN + n) if is_over else begins(key, TEN + n))
        last[key] = is_over
    shown = {notice.key: notice.ended is not None for notice in waiting.notices}
    assert MOST_WAITING >= len(waiting.notices)
    assert shown == {key: last[key] for key in shown}
    assert waiting.dropped > 0 or shown == last
