"""Batches keep the limits of the API, lose nothing and change no order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from runsfleet_runtime.agent.log_batches import (
    EVENT_BYTES,
    MAX_BYTES,
    MAX_EVENTS,
    MAX_SPAN_MS,
    MAX_TEXT_BYTES,
    batches,
    pieces,
)

LINES = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=3 * MAX_SPAN_MS),
        st.builds(lambda text, n: text * n, st.text(max_size=5), st.integers(0, 100_000)),
    ),
    max_size=40,
)


@given(LINES)
@settings(max_examples=60, deadline=None)
def test_every_batch_is_within_the_limits(lines: list[tuple[int, str]]) -> None:
    """Number, bytes, order and span of each batch are what the service takes."""
    last = 0
    for batch in batches(lines):
        assert 1 <= len(batch) <= MAX_EVENTS
        assert sum(len(e.text.encode()) + EVENT_BYTES for e in batch) <= MAX_BYTES
        times = [e.at for e in batch]
        assert times == sorted(times)
        assert times[0] >= last
        assert times[-1] - times[0] < MAX_SPAN_MS
        assert all(e.text for e in batch)
        last = times[-1]


@given(LINES)
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_or_moved(lines: list[tuple[int, str]]) -> None:
    """The texts of all batches, put together, are the texts of all lines."""
    shipped = "".join(e.text for batch in batches(lines) for e in batch)
    assert shipped == "".join(text for _, text in lines)


def test_ten_thousand_events_are_one_batch() -> None:
    """The limit itself is allowed, one more is not."""
    assert [len(b) for b in batches([(1, "x")] * MAX_EVENTS)] == [MAX_EVENTS]
    assert [len(b) for b in batches([(1, "x")] * (MAX_EVENTS + 1))] == [MAX_EVENTS, 1]


def test_a_megabyte_is_one_batch() -> None:
    """Bytes count with 26 for each event."""
    text = "x" * (MAX_BYTES // 8 - EVENT_BYTES)
    assert [len(b) for b in batches([(1, text)] * 8)] == [8]
    assert [len(b) for b in batches([(1, text)] * 7 + [(1, text + "x")])] == [7, 1]


@given(st.text(), st.integers(min_value=4, max_value=50))
def test_pieces_are_whole_characters(text: str, limit: int) -> None:
    """A long line is divided at characters, never inside one."""
    parts = list(pieces(text, limit))
    assert "".join(parts) == text
    assert all(len(part.encode()) <= limit for part in parts)


def test_a_long_line_becomes_several_events() -> None:
    """A line beyond the longest event is shipped in pieces of the same time."""
    (batch,) = batches([(5, "é" * MAX_TEXT_BYTES)])
    assert [e.at for e in batch] == [5, 5]
    assert "".join(e.text for e in batch) == "é" * MAX_TEXT_BYTES


def test_half_a_surrogate_pair_is_replaced() -> None:
    """What is no Unicode, as in a damaged file name, cannot stop the log."""
    (batch,) = batches([(1, "a\udcffb")])
    assert batch[0].text == "a?b"
