from __future__ import annotations

import threading
import time

import pytest

from runsfleet_runtime.agent.bounded import within


def test_what_is_quick_is_done() -> None:
    """The action has been done when it returns, and its error is raised."""
    done: list[int] = []
    within(5, lambda: done.append(1), "work")
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0, "work")


def test_what_hangs_is_left_behind() -> None:
    """Nobody waits longer than was said."""
    hold = threading.Event()
    since = time.monotonic()
    with pytest.raises(TimeoutError, match=r"work took longer than 0.1 s"):
        within(0.1, lambda: hold.wait(10), "work")
    assert time.monotonic() - since < 2
    hold.set()
