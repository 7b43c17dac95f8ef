"""Traces: what one job went through, as spans of one OpenTelemetry trace.

Off unless an OTLP endpoint is given. Then spans are gathered while the work goes on and sent once,
at its end, as OTLP over HTTP in JSON. The W3C trace context travels in the messages: webhook ->
jobs queue -> dispatch -> configuration -> agent -> termination queue -> termination.

A collector that is away, slow or refuses costs a second at most and never an answer: spans are lost
then, and one line of the log says so.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol

from runsfleet_runtime.telemetry.log import bound, get_logger

log = get_logger("traces")

SEND_SECONDS: Final = 1.0
MOST_SPANS: Final = 512  # of one invocation; more would be a fault, and must not use up memory
_MOST_EVENTS: Final = 32  # of one span
_PATH: Final = "/v1/traces"
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_ERROR: Final = 2  # OTLP's STATUS_CODE_ERROR


class SpanKind(IntEnum):
    """OTLP's kinds of spans."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Which span of which trace.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
    """

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """W3C's form of it, sampled."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    @classmethod
    def parse(cls, traceparent: str) -> TraceContext | None:
        """Read W3C's form; what is none is ``None``.

        Example:
            >>> TraceContext.parse("00-" + "a" * 32 + "-" + "b" * 16 + "-01").span_id
            'bbbbbbbbbbbbbbbb'
        """
        match = _TRACEPARENT.fullmatch(traceparent)
        if match is None or not int(match[1], 16) or not int(match[2], 16):
            return None
        return cls(match[1], match[2])


def trace_id_of(traceparent: str) -> dict[str, str]:
    """Return the ``trace_id`` that log lines are to carry; nothing when there is no trace.

    Example:
        >>> trace_id_of(""), trace_id_of("00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        ({}, {'trace_id': 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'})
    """
    context = TraceContext.parse(traceparent) if traceparent else None
    return {"trace_id": context.trace_id} if context else {}


class TracesWork(Protocol):
    """What a use case needs in order to be seen in a trace."""

    def span(
        self,
        name: str,
        parent: str = "",
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        start: float | None = None,
        **attributes: Any,
    ) -> AbstractContextManager[str]:
        """Return a context manager around a piece of work; its value is the new traceparent."""

    def event(self, traceparent: str, name: str, **attributes: Any) -> None:
        """Note a moment of a piece of work that goes on."""


class Tracer:
    """Gathers the spans of one process.

    Args:
        service: Name of the function, or ``agent``.
        resource: What is true of every span, such as the fleet and the region.
        endpoint: Base URL of an OTLP collector, such as ``https://otel.example.com:4318``; without
            one nothing is gathered, and a traceparent is handed on as it came.
        clock: Returns epoch seconds.
        random_bytes: Returns so many random bytes.
        post: Sends a body to a URL and raises if that failed; by HTTP by default.

    Example:
        >>> tracer = Tracer("dispatch", endpoint=None)
        >>> with tracer.span("dispatch", "") as traceparent:
        ...     traceparent
        ''
    """

    def __init__(
        self,
        service: str,
        *,
        endpoint: str | None,
        resource: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        post: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._url = f"{endpoint.rstrip('/')}{_PATH}" if endpoint else ""
        self._resource = {"service.name": f"runsfleet-{service}", **(resource or {})}
        self._clock = clock
        self._random = random_bytes
        self._post = post or _post
        self._spans: list[dict[str, Any]] = []
        self._open: dict[str, dict[str, Any]] = {}

    @property
    def is_on(self) -> bool:
        """Whether spans are gathered."""
        return bool(self._url)

    @contextmanager
    def span(
        self,
        name: str,
        parent: str = "",
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        start: float | None = None,
        **attributes: Any,
    ) -> Iterator[str]:
        """Trace a piece of work; the log lines within it carry the trace's id.

        Args:
            name: What it is.
            parent: Traceparent of what it belongs to; a new trace begins without one.
            kind: Its kind.
            start: Epoch seconds; now by default.
            **attributes: What else is known; ``None`` is left out.

        Yields:
            The traceparent for what belongs to it; ``parent`` as it came when tracing is off.
        """
        if not self._url:
            yield parent
            return
        traceparent = self.begin(name, parent, kind=kind, start=start, **attributes)
        failure = ""
        try:
            with bound(**trace_id_of(traceparent)):
                yield traceparent
        except BaseException as error:
            failure = repr(error)
            raise
        finally:
            self.end(traceparent, error=failure)

    def begin(
        self,
        name: str,
        parent: str = "",
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        start: float | None = None,
        **attributes: Any,
    ) -> str:
        """Begin a piece of work that others go on beside, such as a message of a batch.

        What is never ended is sent with the next flush, as it stands then.

        Args:
            name: What it is.
            parent: Traceparent of what it belongs to; a new trace begins without one.
            kind: Its kind.
            start: Epoch seconds; now by default.
            **attributes: What else is known; ``None`` is left out.

        Returns:
            Its traceparent; ``parent`` when tracing is off.
        """
        if not self._url:
            return parent
        context = self._child_of(parent)
        begun = self._clock() if start is None else start
        above = TraceContext.parse(parent)
        self._open[context.traceparent] = {
            "traceId": context.trace_id,
            "spanId": context.span_id,
            **({"parentSpanId": above.span_id} if above else {}),
            "name": name,
            "kind": int(kind),
            "startTimeUnixNano": _nanoseconds(begun),
            "attributes": _attributes(attributes),
            "events": [],
        }
        return context.traceparent

    def event(self, traceparent: str, name: str, **attributes: Any) -> None:
        """Note a moment of a piece of work that was begun here; of any other, nothing is noted.

        Args:
            traceparent: Names the piece of work.
            name: What happened.
            **attributes: What else is known; ``None`` is left out.
        """
        span = self._open.get(traceparent)
        if span is not None and len(span["events"]) < _MOST_EVENTS:
            span["events"].append(
                {
                    "name": name,
                    "timeUnixNano": _nanoseconds(self._clock()),
                    "attributes": _attributes(attributes),
                }
            )

    def end(
        self, traceparent: str, *, at: float | None = None, error: str = "", **attributes: Any
    ) -> None:
        """End a piece of work that was begun here; any other is left alone.

        Args:
            traceparent: Names it.
            at: Epoch seconds; now by default.
            error: Why it failed; empty when it did not.
            **attributes: What else is known by now; ``None`` is left out.
        """
        span = self._open.pop(traceparent, None)
        if span is None:
            return
        ended = _nanoseconds(self._clock() if at is None else at)
        span["endTimeUnixNano"] = max(ended, span["startTimeUnixNano"], key=int)
        span["attributes"] += _attributes(attributes)
        if error:
            span["status"] = {"code": _ERROR, "message": error[:500]}
        if len(self._spans) < MOST_SPANS:
            self._spans.append(span)

    def record(
        self,
        name: str,
        parent: str,
        *,
        start: float,
        end: float,
        error: str = "",
        **attributes: Any,
    ) -> str:
        """Add a piece of work that is over.

        Args:
            name: What it was.
            parent: Traceparent of what it belongs to.
            start: Epoch seconds.
            end: Epoch seconds.
            error: Why it failed; empty when it did not.
            **attributes: What else is known; ``None`` is left out.

        Returns:
            Its traceparent; ``parent`` when tracing is off.
        """
        traceparent = self.begin(name, parent, start=start, **attributes)
        self.end(traceparent, at=end, error=error)
        return traceparent

    def flush(self) -> None:
        """Send what was gathered and forget it; within a second, and it never raises."""
        for traceparent in list(self._open):
            self.end(traceparent)
        spans, self._spans = self._spans, []
        if not spans:
            return
        failed: list[str] = []

        def send() -> None:
            try:
                self._post(self._url, json.dumps(_body(self._resource, spans)).encode())
            except Exception as error:  # noqa: BLE001  no trace is worth a job
                failed.append(repr(error))

        # a thread: neither a name that is not resolved nor a trickling answer knows a timeout
        sender = threading.Thread(target=send, name="spans", daemon=True)
        sender.start()
        sender.join(SEND_SECONDS)
        if sender.is_alive():
            failed.append(f"the collector took longer than {SEND_SECONDS:g} s")
        if failed:
            log.warning("spans not sent", extra={"spans": len(spans), "error": failed[0]})

    def _child_of(self, parent: str) -> TraceContext:
        above = TraceContext.parse(parent)
        trace_id = above.trace_id if above else self._random(16).hex()
        return TraceContext(trace_id, self._random(8).hex())


def _nanoseconds(seconds: float) -> str:
    return str(int(seconds * 1e9))


def _body(resource: Mapping[str, str], spans: list[dict[str, Any]]) -> dict[str, Any]:
    scope = {"scope": {"name": "runsfleet"}, "spans": spans}
    about = {"attributes": _attributes(resource)}
    return {"resourceSpans": [{"resource": about, "scopeSpans": [scope]}]}


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key if "." in key else f"runsfleet.{key}", "value": _value(value)}
        for key, value in values.items()
        if value is not None
    ]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # JSON's numbers do not hold 64 bits
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)}


def _post(url: str, body: bytes) -> None:
    import urllib.request  # takes 30 ms, which only those pay who trace

    request = urllib.request.Request(  # noqa: S310 - the operator's own endpoint
        url, data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=SEND_SECONDS) as answer:  # noqa: S310 - as above
        answer.read()


OFF: Final = Tracer("off", endpoint=None)
"""Gathers nothing; for whoever is given no tracer."""
