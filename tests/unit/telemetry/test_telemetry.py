"""Logs and metrics: one JSON line each, and nothing that the catalogue does not know."""

from __future__ import annotations

import io
import itertools
import json
import logging
from typing import Any

import pytest

from runsfleet_runtime.contract.metrics import CATALOGUE, Emitter, Metric, MetricDefinition
from runsfleet_runtime.telemetry.log import JsonFormatter, bound
from runsfleet_runtime.telemetry.metrics import Metrics, UnknownMetricError


def metrics(lines: list[str], emitter: Emitter = Emitter.WEBHOOK) -> Metrics:
    """Return metrics that write to a list."""
    return Metrics(emitter, fleet="dev", clock=lambda: 12.5, write=lines.append)


def test_one_line_for_each_set_of_dimensions() -> None:
    """Values of an invocation are gathered: one line for the fleet, one for each own dimension."""
    lines: list[str] = []
    out = metrics(lines)
    out.add(Metric.JOBS_QUEUED)
    out.add(Metric.JOBS_QUEUED)
    out.add(Metric.DELIVERIES_REFUSED, kind="signature")
    out.flush()
    first, second = map(json.loads, lines)
    assert first["JobsQueued"] == [1, 1]
    assert first["_aws"]["Timestamp"] == 12500
    assert first["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Fleet"]]
    assert second["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["Fleet", "Reason"]]
    assert (second["Fleet"], second["Reason"], second["DeliveriesRefused"]) == (
        "dev",
        "signature",
        1,
    )


def test_flush_forgets() -> None:
    """A second flush writes nothing: a warm function does not count twice."""
    lines: list[str] = []
    out = metrics(lines)
    out.add(Metric.JOBS_QUEUED)
    out.flush()
    out.flush()
    assert len(lines) == 1


def test_more_values_than_a_line_takes_are_split() -> None:
    """CloudWatch drops what exceeds 100 values of a metric in a line, so there are more lines."""
    lines: list[str] = []
    out = metrics(lines)
    for value in range(250):
        out.add(Metric.JOBS_QUEUED, value)
    out.flush()
    values = [json.loads(line)["JobsQueued"] for line in lines]
    assert [len(v) for v in values] == [100, 100, 50]
    assert sorted(itertools.chain.from_iterable(values)) == list(range(250))


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        (Metric.JOBS_CLAIMED, None),
        (Metric.DELIVERIES_REFUSED, None),
        (Metric.DELIVERIES_REFUSED, "i-0abc"),
        (Metric.JOBS_QUEUED, "x"),
    ],
)
def test_what_the_catalogue_does_not_know_is_refused(
    metric: MetricDefinition, kind: str | None
) -> None:
    """Another function's metric, or a dimension without bounds, is an error of ours."""
    with pytest.raises(UnknownMetricError):
        metrics([]).add(metric, kind=kind)


def test_catalogue_names_are_unique_and_explained() -> None:
    """Each metric has one name, one emitter and a sentence of meaning; dimensions have bounds."""
    definitions = [v for v in vars(Metric).values() if isinstance(v, MetricDefinition)]
    assert len(CATALOGUE) == len(definitions)
    for definition in definitions:
        assert definition.meaning.endswith(".")
        assert bool(definition.dimension) == bool(definition.values)


def log_line(log: Any, formatter: JsonFormatter) -> dict[str, Any]:
    """Return the line that a call of the logger writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("runsfleet.test")  # noqa: LOG001 - one of its own, without parents
    logger.addHandler(handler)
    log(logger)
    (line,) = stream.getvalue().splitlines()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_log_line_carries_what_is_bound() -> None:
    """Fields of the process, of the current work and of the call stand at the root."""

    def work(logger: logging.Logger) -> None:
        with bound(job_id=1), bound(run_id=2):
            logger.warning("hello\nworld", extra={"path": io})

    line = log_line(work, JsonFormatter(service="dispatch"))
    assert (line["message"], line["level"]) == ("hello\nworld", "WARNING")
    assert (line["service"], line["job_id"], line["run_id"]) == ("dispatch", 1, 2)
    assert line["path"].startswith("<module")


def test_exception_is_one_line_with_its_type() -> None:
    """A traceback does not break the line."""

    def work(logger: logging.Logger) -> None:
        try:
            int("no")
        except ValueError:
            logger.exception("failed")

    line = log_line(work, JsonFormatter())
    assert (line["error_type"], line["error"]) == (
        "ValueError",
        "invalid literal for int() with base 10: 'no'",
    )
    assert "Traceback" in line["traceback"]
