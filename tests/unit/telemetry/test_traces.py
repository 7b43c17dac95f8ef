"""Spans, read back by OpenTelemetry's own messages."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from typing import Any

import pytest

from runsfleet_runtime.telemetry.log import configure, get_logger
from runsfleet_runtime.telemetry.traces import (
    MOST_SPANS,
    SpanKind,
    TraceContext,
    Tracer,
    trace_id_of,
)
from tests.unit.telemetry.collector import read, serve


class Collector:
    """Keeps what a tracer sends."""

    def __init__(self, **options: Any) -> None:
        self.bodies: list[bytes] = []
        self.urls: list[str] = []
        numbers = itertools.count(1)
        times = itertools.count(1_800_000_000)
        self.tracer = Tracer(
            "dispatch",
            endpoint="https://otel.example.com:4318/",
            resource={"runsfleet.fleet": "dev"},
            clock=lambda: float(next(times)),
            random_bytes=lambda size: next(numbers).to_bytes(size, "big"),
            **{"post": self.post, **options},
        )

    def post(self, url: str, body: bytes) -> None:
        """Keep a body."""
        self.urls.append(url)
        self.bodies.append(body)

    def spans(self) -> list[Any]:
        """Return the spans that were sent."""
        self.tracer.flush()
        return [
            span
            for body in self.bodies
            for group in read(body).resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]


def test_spans_are_what_a_collector_reads() -> None:
    """Names, times, kinds, attributes of each type, and the resource."""
    collector = Collector()
    with collector.tracer.span(
        "dispatch", kind=SpanKind.CONSUMER, job_id=2**40, spot=True, wait=1.5, none=None, name_="x"
    ):
        pass
    (span,) = collector.spans()
    assert collector.urls == ["https://otel.example.com:4318/v1/traces"]
    assert (span.name, span.kind) == ("dispatch", 5)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (
        1_800_000_000 * 10**9,
        1_800_000_001 * 10**9,
    )
    found = {a.key: a.value for a in span.attributes}
    assert found["runsfleet.job_id"].int_value == 2**40
    assert found["runsfleet.spot"].bool_value
    assert found["runsfleet.wait"].double_value == 1.5
    assert "runsfleet.none" not in found
    resource = read(collector.bodies[0]).resource_spans[0].resource
    about = {a.key: a.value.string_value for a in resource.attributes}
    assert about == {"service.name": "runsfleet-dispatch", "runsfleet.fleet": "dev"}


def test_one_job_is_one_trace() -> None:
    """What is handed on as traceparent makes the next process's spans children."""
    first, second = Collector(), Collector()
    with first.tracer.span("webhook") as traceparent:
        assert TraceContext.parse(traceparent) is not None
    with second.tracer.span("dispatch", traceparent) as handed_on:
        later = second.tracer.record("boot", handed_on, start=1.0, end=2.0)
    (webhook,) = first.spans()
    boot, dispatch = second.spans()
    assert webhook.trace_id == dispatch.trace_id == boot.trace_id
    assert webhook.parent_span_id == b""
    assert dispatch.parent_span_id == webhook.span_id
    assert boot.parent_span_id == dispatch.span_id
    assert TraceContext.parse(later) == TraceContext(boot.trace_id.hex(), boot.span_id.hex())


def test_a_failure_is_told() -> None:
    """The span says what went wrong, and the error goes on."""
    collector = Collector()
    with pytest.raises(ValueError, match="no capacity"), collector.tracer.span("launch"):
        raise ValueError("no capacity")
    (span,) = collector.spans()
    assert (span.status.code, span.status.message) == (2, "ValueError('no capacity')")


@pytest.mark.parametrize(
    "text", ["", "nonsense", f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'0' * 16}-01"]
)
def test_a_context_that_is_none_begins_a_trace(text: str) -> None:
    """A message of an older writer has none."""
    collector = Collector()
    with collector.tracer.span("dispatch", text):
        pass
    assert collector.spans()[0].parent_span_id == b""


def test_without_an_endpoint_nothing_is_gathered_and_the_context_goes_on() -> None:
    """Whoever traces further down still gets one trace."""
    sent: list[bytes] = []
    tracer = Tracer("dispatch", endpoint=None, post=lambda _url, body: sent.append(body))
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    with tracer.span("dispatch", traceparent) as handed_on:
        assert handed_on == traceparent
    assert tracer.record("boot", traceparent, start=0, end=1) == traceparent
    tracer.flush()
    assert (sent, tracer.is_on) == ([], False)


def test_a_collector_that_is_away_costs_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """The spans are lost, which the log says, and the next ones are sent."""
    failing = [True]

    def post(_url: str, body: bytes) -> None:
        if failing.pop() if failing else False:
            raise OSError("refused")
        collector.bodies.append(body)

    collector = Collector(post=post)
    with collector.tracer.span("first"):
        pass
    collector.tracer.flush()
    with collector.tracer.span("second"):
        pass
    assert [span.name for span in collector.spans()] == ["second"]


def test_spans_are_bounded() -> None:
    """A loop that spans without end must not use up the memory of a function."""
    collector = Collector()
    for _ in range(MOST_SPANS + 10):
        collector.tracer.record("x", "", start=0.0, end=1.0)
    assert len(collector.spans()) == MOST_SPANS


def test_spans_arrive_over_http() -> None:
    """As JSON, at the path that OTLP names."""
    with serve() as endpoint:
        tracer = Tracer("agent", endpoint=endpoint.url)
        with tracer.span("job"):
            pass
        tracer.flush()
        assert [(service, span.name) for service, span in endpoint.told()] == [
            ("runsfleet-agent", "job")
        ]


def test_a_collector_that_hangs_is_left_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """What it takes nobody waits for longer than the bound, and the log says so."""
    configure(service="dispatch")
    with serve() as endpoint:
        endpoint.hold.clear()
        tracer = Tracer("dispatch", endpoint=endpoint.url)
        with tracer.span("dispatch"):
            pass
        tracer.flush()
        assert endpoint.spans() == []
    line = json.loads(capsys.readouterr().out)
    assert (line["message"], line["spans"]) == ("spans not sent", 1)


def test_moments_of_a_batch_are_told_apart() -> None:
    """Spans that go on at the same time keep their own events; others' events are nobody's."""
    collector = Collector()
    first, second = (collector.tracer.begin("dispatch", job_id=n) for n in (1, 2))
    collector.tracer.event(second, "launched", instance_id="i-1")
    collector.tracer.event("", "launched")
    collector.tracer.end(first, error="no capacity")
    collector.tracer.end(first)
    one, two = collector.spans()
    assert (one.status.message, list(one.events)) == ("no capacity", [])
    (event,) = two.events
    assert (event.name, event.attributes[0].value.string_value) == ("launched", "i-1")
    assert two.start_time_unix_nano < event.time_unix_nano < two.end_time_unix_nano


def test_log_lines_within_carry_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a trace leads to its log and back."""
    configure(service="dispatch")
    collector = Collector()
    with collector.tracer.span("dispatch") as traceparent:
        get_logger("dispatch").info("claimed")
    line = json.loads(capsys.readouterr().out)
    assert traceparent.split("-")[1] == line["trace_id"]
    assert trace_id_of(traceparent) == {"trace_id": line["trace_id"]}


def test_tracing_that_is_off_loads_no_http() -> None:
    """The webhook's cold start does not pay for it."""
    code = (
        "import sys; from runsfleet_runtime.telemetry.traces import Tracer; "
        "Tracer('webhook', endpoint=None).flush(); print('urllib.request' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
