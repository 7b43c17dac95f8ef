"""Do something, but not for longer than it may take."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def within(seconds: float, action: Callable[[], object], name: str) -> None:
    """Do something in at most ``seconds``.

    What hangs is left behind on a daemon thread: it may still succeed, but nobody waits for it.

    Args:
        seconds: How long to wait.
        action: What to do.
        name: What it is called in the error, and its thread's name.

    Raises:
        TimeoutError: It took longer.
        Exception: What the action raised.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001  it is raised below
            raised.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"{name} took longer than {seconds:g} s")
    if raised:
        raise raised[0]
