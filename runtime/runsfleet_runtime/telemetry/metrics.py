"""Metrics in CloudWatch's embedded metric format: JSON lines of the log become metrics.

Only what the contract's catalogue names can be emitted, by the function that the catalogue names.
Values are gathered during an invocation and written by :meth:`Metrics.flush`, one line for each set
of dimensions, so that the cost grows with the work and not with the calls.

Source of the format and of its limit (100 values of a metric in a line): the CloudWatch embedded
metric format specification.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final, Protocol

from runsfleet_runtime.contract.metrics import (
    FLEET_DIMENSION,
    NAMESPACE,
    Emitter,
    MetricDefinition,
)

_MAX_VALUES: Final = 100  # values that one metric may have in one line


_Gathered = dict[str, tuple[MetricDefinition, list[float]]]
_Sets = defaultdict[tuple[str, str], _Gathered]


class CountsMetrics(Protocol):
    """What a use case needs in order to emit a metric."""

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        """Record a value; ``kind`` is the value of the metric's own dimension, if it has one."""


class UnknownMetricError(ValueError):
    """A metric was emitted against its definition in the catalogue."""


class Metrics:
    """Gathers the metrics of one function.

    Args:
        emitter: The function; metrics of another emitter are refused.
        fleet: Value of the fleet dimension.
        clock: Returns epoch seconds.
        write: Receives each line; standard output by default.

    Example:
        >>> metrics = Metrics(Emitter.WEBHOOK, fleet="dev", clock=lambda: 0.0)
        >>> metrics.add(Metric.JOBS_QUEUED)  # doctest: +SKIP
        >>> metrics.flush()  # doctest: +SKIP
    """

    def __init__(
        self,
        emitter: Emitter,
        *,
        fleet: str,
        clock: Callable[[], float],
        write: Callable[[str], object] | None = None,
    ) -> None:
        self._emitter = emitter
        self._fleet = fleet
        self._clock = clock
        self._write = write
        # (own dimension, its value) -> metric name -> (definition, values)
        self._sets: _Sets = defaultdict(dict)

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        """Record a value.

        Args:
            metric: Its definition.
            value: The value, in the metric's unit.
            kind: Value of the metric's own dimension.

        Raises:
            UnknownMetricError: If the catalogue says that another function emits it, or that it
                has no such dimension or value.
        """
        if metric.emitter is not self._emitter:
            raise UnknownMetricError(
                f"{metric.name} is emitted by {metric.emitter.value}, not by {self._emitter.value}"
            )
        if (metric.dimension is None) != (kind is None) or (kind and kind not in metric.values):
            allowed = ", ".join(metric.values) or "none"
            raise UnknownMetricError(f"{metric.name} has the kinds {allowed}, got {kind!r}")
        metrics = self._sets[metric.dimension or "", kind or ""]
        metrics.setdefault(metric.name, (metric, []))[1].append(value)

    def flush(self) -> None:
        """Write what was gathered and forget it."""
        sets, self._sets = self._sets, defaultdict(dict)
        for (dimension, kind), metrics in sets.items():
            longest = max(len(values) for _, values in metrics.values())
            for start in range(0, longest, _MAX_VALUES):
                part = {
                    name: (metric, values[start : start + _MAX_VALUES])
                    for name, (metric, values) in metrics.items()
                    if len(values) > start
                }
                self._emit(dimension, kind, part)

    def _emit(self, dimension: str, kind: str, metrics: _Gathered) -> None:
        dimensions = {FLEET_DIMENSION: self._fleet} | ({dimension: kind} if dimension else {})
        line: dict[str, Any] = {
            "_aws": {
                "Timestamp": int(self._clock() * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": NAMESPACE,
                        "Dimensions": [list(dimensions)],
                        "Metrics": [
                            {"Name": name, "Unit": metric.unit.value}
                            for name, (metric, _) in metrics.items()
                        ],
                    }
                ],
            },
            **dimensions,
            **{n: v[0] if len(v) == 1 else v for n, (_, v) in metrics.items()},
        }
        text = json.dumps(line, separators=(",", ":"))
        if self._write is not None:
            self._write(text)
        else:
            sys.stdout.write(text + "\n")
