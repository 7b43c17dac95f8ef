from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.agent.retry import attempts, jittered


@given(st.integers(1, 60), st.floats(0, 1, exclude_max=True))
def test_pauses_stay_between_half_and_all_of_their_ceiling(attempt: int, draw: float) -> None:
    """A pause is jittered, grows, and never exceeds its cap."""
    pause = jittered(attempt, base=0.5, cap=8, draw=draw)
    ceiling = min(8.0, 0.5 * 2 ** (attempt - 1))
    assert ceiling / 2 <= pause <= ceiling


def test_attempts_end_with_the_first_answer() -> None:
    """Failures before an answer are told and paused for, none is raised."""
    outcomes = iter([OSError("one"), OSError("two"), "answer"])
    pauses: list[float] = []
    told: list[int] = []

    def action() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, OSError):
            raise outcome
        return str(outcome)

    answer = attempts(
        action,
        tries=5,
        base=1,
        cap=10,
        pause=pauses.append,
        draw=lambda: 0.0,
        on_failure=lambda attempt, _: told.append(attempt),
    )

    assert answer == "answer"
    assert pauses == [0.5, 1.0]
    assert told == [1, 2]


def test_the_last_failure_is_raised_without_a_pause() -> None:
    """When no try succeeds the last error comes through, at once."""
    pauses: list[float] = []

    def action() -> None:
        raise OSError("never")

    with pytest.raises(OSError, match="never"):
        attempts(action, tries=3, base=1, cap=1, pause=pauses.append, draw=lambda: 0.0)
    assert len(pauses) == 2


def test_an_error_of_another_kind_is_not_tried_again() -> None:
    """Only what is worth another try gets one."""
    calls: list[int] = []

    def action() -> None:
        calls.append(1)
        raise KeyError("final")

    with pytest.raises(KeyError):
        attempts(
            action,
            tries=3,
            base=1,
            cap=1,
            pause=lambda _: None,
            draw=lambda: 0.0,
            retry_on=(OSError,),
        )
    assert len(calls) == 1
