"""Splitting content into parameters."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.runners.parts import MAX_PART_BYTES, MAX_PARTS, split


@given(
    unit=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    times=st.integers(1, 900),
)
def test_parts_fit_and_join_to_the_content(unit: str, times: int) -> None:
    """Whatever the characters, no part exceeds a standard parameter and nothing is lost."""
    content = (unit * times)[: MAX_PART_BYTES * 2]  # at most four bytes a character
    parts = split(content)
    assert "".join(parts) == content
    assert all(0 < len(part.encode()) <= MAX_PART_BYTES for part in parts)


@given(
    body=st.dictionaries(
        st.text(max_size=30),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
        min_size=1,
        max_size=20,
    ),
    filler=st.integers(4000, 9000),
)
def test_reader_knows_when_an_object_is_whole(body: dict[str, str], filler: int) -> None:
    """Fewer parts than all are never a JSON object, so a reader cannot stop too early."""
    parts = split(json.dumps(body | {"jit_config": "x" * filler}))
    for count in range(1, len(parts)):
        with pytest.raises(ValueError):  # noqa: PT011 - json's own error is a plain subclass
            json.loads("".join(parts[:count]))


def test_limits() -> None:
    """Ten parts are the most, and nothing cannot be split."""
    assert len(split("x" * MAX_PART_BYTES * MAX_PARTS)) == MAX_PARTS
    with pytest.raises(ValueError, match="11 parameters"):
        split("x" * (MAX_PART_BYTES * MAX_PARTS + 1))
    with pytest.raises(ValueError, match="empty"):
        split("")
