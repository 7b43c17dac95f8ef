"""The gate that every call of a function passes: time, faults, crashes; clients like botocore's.

What a function asks of AWS or GitHub takes time, during which everything else goes on. A call may
fail, or succeed without its answer arriving, or be the last thing that the process ever does. Calls
of instances pass without any of that: their faults are those of :mod:`.agent`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Final, Protocol, TypeVar

from botocore import xform_name
from botocore.exceptions import ReadTimeoutError
from botocore.paginate import Paginator, PaginatorModel
from botocore.session import get_session
from botocore.validate import ParamValidator

from runsfleet_runtime.github.transport import Answer, TransportError
from tests.simulation.errors import client_error
from tests.simulation.github import GitHubApi
from tests.simulation.loop import Killed, Loop

GITHUB: Final = "github"
_ATTEMPTS: Final = 3  # composition.py's client has so many
_TOKENS: Final = {"transact_write_items": "ClientRequestToken"}
_VALIDATOR: Final = ParamValidator()
_T = TypeVar("_T")


class Moment(StrEnum):
    """When a process dies."""

    BEFORE = "before"  # the call is never made
    AFTER = "after"  # the call is made, and nobody sees its answer


class Fault(StrEnum):
    """What goes wrong with one attempt of a call."""

    THROTTLED = "throttled"
    CONFLICT = "conflict"  # another transaction has one of the items
    UNAVAILABLE = "unavailable"  # 500
    LOST = "lost"  # done, but the answer does not arrive


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function."""

    number: int
    function: str
    service: str
    operation: str

    def __str__(self) -> str:
        return f"{self.number}: {self.function} {self.service}.{self.operation}"


@dataclass(frozen=True, slots=True)
class Crash:
    """The process that makes this call dies."""

    number: int
    moment: Moment


class Process(Protocol):
    """The process of a function."""

    is_dead: bool

    @property
    def name(self) -> str:
        """The function's name."""


class Gate:
    """Lets calls through.

    Args:
        loop: Simulated time.
        latency: Returns the seconds that a call takes.
        fault: Returns what goes wrong with an attempt; ``None`` for nothing.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        latency: Callable[[], float] = lambda: 0.02,
        fault: Callable[[str, str], Fault | None] = lambda _service, _operation: None,
    ) -> None:
        self._loop = loop
        self._latency = latency
        self._fault = fault
        self.crash: Crash | None = None
        self.crashed: Call | None = None
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.is_recording = True
        self._numbers = itertools.count()

    def call(
        self, service: str, operation: str, effect: Callable[[], _T], *, actions: int = 1
    ) -> _T:
        """Make a call on behalf of whoever runs now.

        Args:
            service: The service.
            operation: The operation.
            effect: Carries it out.
            actions: How many actions a transaction has.

        Raises:
            Killed: If the process dies of it.
        """
        process: Process | None = self._loop.current.owner if self._loop.current else None
        if process is None:
            return effect()
        if process.is_dead:  # a `finally` of a process that is gone
            raise Killed(process.name)
        call = Call(next(self._numbers), process.name, service, operation)
        self.counts[service] += 1
        if self.is_recording:
            self.calls.append(call)
        self._die_if(process, call, Moment.BEFORE)
        try:
            return self._attempts(service, operation, effect, actions)
        finally:
            self._die_if(process, call, Moment.AFTER)

    def _die_if(self, process: Process, call: Call, moment: Moment) -> None:
        if self.crash == Crash(call.number, moment):
            process.is_dead = True
            self.crashed = call
            raise Killed(process.name)

    def _attempts(self, service: str, operation: str, effect: Callable[[], _T], actions: int) -> _T:
        for attempt in range(1, _ATTEMPTS + 1):
            latency = self._latency()
            self._loop.pause(latency / 2)
            fault = self._fault(service, operation)
            is_last = attempt == _ATTEMPTS or service == GITHUB  # its client repeats by itself
            if fault in {Fault.THROTTLED, Fault.UNAVAILABLE}:
                if is_last:
                    raise _failure(service, operation, fault)
                continue
            if fault is Fault.CONFLICT:
                raise _conflict(operation, actions)
            answer = effect()
            self._loop.pause(latency / 2)
            if fault is not Fault.LOST:
                return answer
            if is_last:
                break
        raise _failure(service, operation, Fault.LOST)


def _failure(service: str, operation: str, fault: Fault) -> Exception:
    if service == GITHUB:
        return TransportError(f"simulated: {fault}")
    if fault is Fault.LOST:
        return ReadTimeoutError(endpoint_url=f"https://{service}.test")
    if fault is Fault.THROTTLED:
        return client_error(operation, "ThrottlingException", "Rate exceeded")
    return client_error(operation, "InternalServerError", status=500)


def _conflict(operation: str, actions: int) -> Exception:
    reasons = [{"Code": "TransactionConflict"}, *[{"Code": "None"}] * (actions - 1)]
    return client_error(operation, "TransactionCanceledException", CancellationReasons=reasons)


@cache
def _operations(service: str) -> Mapping[str, Any]:
    model = get_session().get_service_model(service)
    return {xform_name(name): model.operation_model(name) for name in model.operation_names}


def _form(operation: str, request: Mapping[str, Any]) -> Any:
    """Return what requests of one form have in common; the first of each is held to AWS's model."""
    actions = request.get("TransactItems", ())
    parts = [request, *(action for entry in actions for action in entry.values())]
    return operation, tuple((*part, part.get("UpdateExpression")) for part in parts)


class Client:
    """Looks like a botocore client of a service.

    Args:
        service: Its name at botocore.
        backend: Has a method for each operation.
        gate: What calls pass.
    """

    def __init__(self, service: str, backend: object, gate: Gate) -> None:
        self._service = service
        self._backend = backend
        self._gate = gate
        self._tokens = itertools.count()
        self._known_forms: set[Any] = set()

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        model = _operations(self._service).get(operation)
        if model is None:
            raise AttributeError(f"botocore's client of {self._service} has no {operation}")
        handler = getattr(self._backend, operation, None)
        if handler is None:
            raise NotImplementedError(f"{self._service}.{operation}")

        def call(**request: Any) -> Any:
            form = _form(operation, request)
            if form not in self._known_forms:
                report = _VALIDATOR.validate(request, model.input_shape)
                if report.has_errors():
                    raise AssertionError(f"{operation}: {report.generate_report()}")
                self._known_forms.add(form)
            if (token := _TOKENS.get(operation)) is not None:
                request.setdefault(token, f"{self._service}-{next(self._tokens)}")
            return self._gate.call(
                self._service,
                operation,
                lambda: handler(**request),
                actions=len(request.get("TransactItems", "1")),
            )

        self.__dict__[operation] = call
        return call

    def get_paginator(self, operation: str) -> Any:
        """Return botocore's own paginator over this client."""
        model = _operations(self._service)[operation]
        loader = get_session().get_component("data_loader")
        pages = PaginatorModel(loader.load_service_model(self._service, "paginators-1"))
        return Paginator(getattr(self, operation), pages.get_paginator(model.name), model)


class Transport:
    """What the GitHub client sends requests by.

    Args:
        api: Answers them.
        gate: What calls pass.
    """

    def __init__(self, api: GitHubApi, gate: Gate) -> None:
        self._api = api
        self._gate = gate

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,
    ) -> Answer:
        """Send one request; see ``ExchangesHttp``."""
        del headers, timeout
        path = url.partition("//")[2].partition("/")[2].partition("?")[0]
        name = f"{method} {'/'.join('*' if p.isdigit() else p for p in path.split('/'))}"
        return self._gate.call(GITHUB, name, lambda: self._api.answer(method, url, body))
