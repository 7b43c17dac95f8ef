"""Runs the stand-in on a thread of its own, for callers that are not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from runsfleet_cli.local.github.server import GitHubStandIn

T = TypeVar("T")
START_SECONDS = 30.0
CALL_SECONDS = 60.0


class BackgroundStandIn:
    """A `GitHubStandIn` behind a thread; a context manager.

    Args:
        **options: Those of `GitHubStandIn`.

    Example:
        with BackgroundStandIn() as github:
            github.call(lambda: github.stand_in.set_webhook(url, secret))
            answer = urllib.request.urlopen(f"{github.url}/_control/world")
    """

    def __init__(self, **options: Any) -> None:
        self.stand_in = GitHubStandIn(**options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        """Answer the stand-in's root address."""
        return self.stand_in.url

    def run(self, work: Coroutine[Any, Any, T], *, seconds: float = CALL_SECONDS) -> T:
        """Run a coroutine on the stand-in's loop and answer its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def call(self, action: Callable[[], T]) -> T:
        """Call a function on the stand-in's thread and answer its result."""

        async def once() -> T:
            return action()

        return self.run(once())

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        self.run(self.stand_in.start(), seconds=START_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and end the thread."""
        try:
            self.run(self.stand_in.stop(), seconds=START_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(START_SECONDS)
            self._loop.close()
