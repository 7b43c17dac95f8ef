"""CloudWatch metrics of a fleet, made from the contract's catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk

from runsfleet_runtime.contract.metrics import (
    FLEET_DIMENSION,
    NAMESPACE,
    MetricDefinition,
    Unit,
)

if TYPE_CHECKING:
    from aws_cdk import aws_cloudwatch as cloudwatch


@dataclass(frozen=True)
class FleetMetrics:
    """Makes the metrics of one fleet.

    Attributes:
        fleet_name: Name of the fleet; a dimension of every metric.

    Example:
        >>> FleetMetrics("dev").metric(Metric.JOBS_QUEUED)  # doctest: +SKIP
    """

    fleet_name: str

    def metric(
        self, definition: MetricDefinition, *, kind: str | None = None, **options: Any
    ) -> cloudwatch.Metric:
        """Return a metric of the catalogue.

        Args:
            definition: One of ``runsfleet_runtime.contract.metrics.Metric``.
            kind: Value of the metric's own dimension; required when it has one.
            options: As for ``cloudwatch.Metric``. By default five minutes, and the sum of counts
                or the 95th percentile of times.

        Raises:
            ValueError: If ``kind`` is none of the metric's values, or is given for one without.
        """
        if (kind is None) != (definition.dimension is None) or (
            kind is not None and kind not in definition.values
        ):
            allowed = ", ".join(definition.values) or "none: it has no further dimension"
            raise ValueError(f"kind of {definition.name} must be one of {allowed}, got {kind!r}")
        dimensions = {FLEET_DIMENSION: self.fleet_name}
        if definition.dimension is not None and kind is not None:
            dimensions[definition.dimension] = kind
        # loaded when a metric is made: it is the second largest of the CDK's modules in use
        from aws_cdk import aws_cloudwatch as cloudwatch

        settings: dict[str, Any] = {
            "statistic": "Sum" if definition.unit is Unit.COUNT else "p95",
            "unit": cloudwatch.Unit[definition.unit.name],
            **options,
        }
        return cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=definition.name,
            dimensions_map=dimensions,
            **settings,
        )

    def each(self, definition: MetricDefinition, **options: Any) -> cloudwatch.MathExpression:
        """Return a line for each kind of a metric that there is, for a widget; alarms take none.

        CloudWatch looks for them when it draws: what never happened has no line.

        Args:
            definition: A metric with a dimension of its own.
            options: ``period`` or ``color``, as for ``cloudwatch.MathExpression``; a line is called
                by its kind.

        Raises:
            ValueError: If the metric has no dimension of its own.
        """
        if definition.dimension is None:
            raise ValueError(f"{definition.name} has no kinds; use metric instead")
        from aws_cdk import aws_cloudwatch as cloudwatch

        period = options.pop("period", cdk.Duration.minutes(5))
        schema = f"{NAMESPACE},{FLEET_DIMENSION},{definition.dimension}"
        wanted = f'MetricName="{definition.name}" {FLEET_DIMENSION}="{self.fleet_name}"'
        return cloudwatch.MathExpression(
            expression=f"SEARCH('{{{schema}}} {wanted}', 'Sum', {period.to_seconds():.0f})",
            using_metrics={},
            period=period,
            **{"label": f"${{PROP('Dim.{definition.dimension}')}}", **options},
        )

    def total(self, definition: MetricDefinition, **options: Any) -> cloudwatch.MathExpression:
        """Return the sum of a counting metric over all values of its own dimension.

        Args:
            definition: A metric with a dimension of its own.
            options: ``period``, ``label`` or ``color``, as for ``cloudwatch.MathExpression``;
                ``region`` of the metrics; ``prefix`` of their ids, which must differ between the
                sums of one widget (by default ``m``).

        Raises:
            ValueError: If the metric has no dimension of its own.
        """
        if definition.dimension is None:
            raise ValueError(f"{definition.name} has no kinds to sum up; use metric instead")
        from aws_cdk import aws_cloudwatch as cloudwatch

        period = options.pop("period", cdk.Duration.minutes(5))
        prefix, region = options.pop("prefix", "m"), options.pop("region", None)
        parts = {
            f"{prefix}{index}": self.metric(definition, kind=kind, period=period, region=region)
            for index, kind in enumerate(definition.values)
        }
        # a kind that never happened has no data, which must not hide the others
        return cloudwatch.MathExpression(
            expression=" + ".join(f"FILL({name}, 0)" for name in parts),
            using_metrics=dict(parts),
            period=period,
            **{"label": definition.name, **options},
        )
