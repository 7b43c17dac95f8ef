"""Trying again: bounded, with growing and jittered pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def jittered(attempt: int, *, base: float, cap: float, draw: float) -> float:
    """Return the pause before another attempt: at least half of what doubles each time.

    Args:
        attempt: How many attempts failed, from 1.
        base: Seconds after the first failure.
        cap: Most seconds.
        draw: A random number in [0, 1), so that a thousand instances do not come back as one.

    Example:
        >>> [jittered(n, base=1, cap=5, draw=0.5) for n in (1, 2, 3, 4)]
        [0.75, 1.5, 3.0, 3.75]
    """
    ceiling = min(cap, base * 2 ** (attempt - 1))
    return float(ceiling * (0.5 + draw / 2))


def attempts(
    action: Callable[[], T],
    *,
    tries: int,
    base: float,
    cap: float,
    pause: Callable[[float], None],
    draw: Callable[[], float],
    retry_on: tuple[type[Exception], ...] = (Exception,),
    on_failure: Callable[[int, Exception], None] | None = None,
) -> T:
    """Call an action until it answers.

    Args:
        action: What to do.
        tries: How often at most, at least 1.
        base: Seconds of the first pause, see :func:`jittered`.
        cap: Seconds of the longest pause.
        pause: Waits that many seconds; may raise to give up.
        draw: Random numbers in [0, 1).
        retry_on: What is worth another try; anything else is raised at once.
        on_failure: Told of each failed attempt by its number, from 1.

    Returns:
        What the action answered.

    Raises:
        Exception: The action's last error, when no try succeeded.
    """
    for attempt in range(1, tries + 1):
        try:
            return action()
        except retry_on as error:
            if on_failure is not None:
                on_failure(attempt, error)
            if attempt == tries:
                raise
        pause(jittered(attempt, base=base, cap=cap, draw=draw()))
    raise ValueError(f"tries must be at least 1, got {tries}")
