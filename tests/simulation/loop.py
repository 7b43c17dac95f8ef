"""Simulated time: events in the order of their times, and tasks that let time pass.

A task is ordinary blocking code, such as a function's handler. It runs in a thread of its own, but
only one thread runs at any moment: whoever pauses hands the baton back, and what comes next is
decided by the order of events alone. So the same seed gives the same run, in every detail, and code
that was written for real clocks and real calls interleaves as it would in the cloud.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """The process that runs a task ends at once; no handler of ordinary errors sees it."""


class Task:
    """Blocking code that runs in simulated time.

    Attributes:
        name: For people.
        owner: What the task belongs to, such as the process of a function.
        deadline: Simulated time at which the task is killed; ``None`` for never.
    """

    def __init__(self, name: str, owner: Any = None, deadline: float | None = None) -> None:
        self.name = name
        self.owner = owner
        self.deadline = deadline
        self.go = threading.Lock()
        self.go.acquire()


class _Worker:
    """A thread that runs one task after the other."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.go = threading.Lock()
        self.go.acquire()
        self.work: Callable[[], None] | None = None
        threading.Thread(target=self._run, name="simulation", daemon=True).start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            if self.work is None:
                return
            self.work()
            self.work = None
            self._loop.give_back(self)


class Loop:
    """Runs events and tasks in simulated time.

    Args:
        start: Epoch seconds at the beginning.
    """

    def __init__(self, start: float) -> None:
        self.now = start
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._baton = threading.Lock()
        self._baton.acquire()
        self._idle: list[_Worker] = []
        self._paused: set[Task] = set()
        self._is_closing = False
        self.failure: BaseException | None = None
        self.current: Task | None = None

    # -- events --------------------------------------------------------------------------------

    def at(self, when: float, call: Callable[..., object], *arguments: Any) -> None:
        """Call something at a time, or now if that is over."""
        event = (max(when, self.now), next(self._order), call, arguments)
        heapq.heappush(self._events, event)

    def after(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        """Call something some seconds from now."""
        self.at(self.now + seconds, call, *arguments)

    def run(self, until: float, *, is_done: Callable[[], bool] | None = None) -> None:
        """Let time pass until then, or until ``is_done`` says so between two events."""
        while self._events and self._events[0][0] <= until:
            when, _, call, arguments = heapq.heappop(self._events)
            self.now = max(self.now, when)
            call(*arguments)
            if self.failure is not None:
                raise self.failure
            if is_done is not None and is_done():
                return
        self.now = max(self.now, until)

    # -- tasks ---------------------------------------------------------------------------------

    def start(self, task: Task, work: Callable[[], None]) -> None:
        """Run ``work`` as a task until its first pause; it must let no exception out."""
        worker = self._idle.pop() if self._idle else _Worker(self)

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  told by `run`, in its own thread
                self.failure = error

        worker.work = guarded
        before, self.current = self.current, task
        worker.go.release()
        self._baton.acquire()
        self.current = before

    def give_back(self, worker: _Worker) -> None:
        """Take the baton of a worker whose task has ended."""
        self._idle.append(worker)
        self._baton.release()

    def pause(self, seconds: float) -> None:
        """Let time pass for the task that calls this; whoever is no task goes on at once.

        Raises:
            Killed: If the task's deadline passes meanwhile.
        """
        task = self.current
        if task is None:
            return
        wake = self.now + seconds
        if task.deadline is not None and wake > task.deadline:
            wake = max(self.now, task.deadline)
        if self._events and self._events[0][0] <= wake:
            self._paused.add(task)
            self.at(wake, self._resume, task)
            self._baton.release()
            task.go.acquire()
            self._paused.discard(task)
        else:
            self.now = wake
        if self._is_closing or (task.deadline is not None and self.now >= task.deadline):
            raise Killed(task.name)

    def _resume(self, task: Task) -> None:
        self.current = task
        task.go.release()
        self._baton.acquire()
        self.current = None

    def close(self) -> None:
        """End all tasks and threads."""
        self._is_closing = True
        while self._paused:
            self._resume(next(iter(self._paused)))
        for worker in self._idle:
            worker.go.release()
        self._idle.clear()
