"""The metrics of a fleet, one method for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runsfleet_runtime.contract.metrics import Metric, MetricDefinition

if TYPE_CHECKING:
    from aws_cdk import aws_cloudwatch as cloudwatch

    from runsfleet_constructs.job_queues import JobQueues
    from runsfleet_constructs.metrics import FleetMetrics


class FleetMetricMethods:
    """What :class:`RunnerFleet` has beside its parts: a method for each metric worth an alarm.

    Attributes:
        metrics: Makes any metric of the catalogue.
        queues: The fleet's queues.
    """

    metrics: FleetMetrics
    queues: JobQueues

    def metric(
        self, definition: MetricDefinition, *, kind: str | None = None, **options: Any
    ) -> cloudwatch.Metric:
        """Return any metric of the catalogue for this fleet.

        Args:
            definition: One of ``runsfleet_runtime.contract.metrics.Metric``.
            kind: Value of the metric's own dimension; required when it has one.
            options: As for ``cloudwatch.Metric``.

        Raises:
            ValueError: If ``kind`` is none of the metric's values.
        """
        return self.metrics.metric(definition, kind=kind, **options)

    def metric_queue_age(self, **options: Any) -> cloudwatch.Metric:
        """Age of the oldest job that waits for dispatch, in seconds.

        Args:
            options: As for ``cloudwatch.Metric``; by default the maximum of five minutes.
        """
        return self.queues.metric_queue_age(**options)

    def metric_dead_jobs(self, **options: Any) -> cloudwatch.Metric:
        """Jobs in the dead-letter queue.

        Args:
            options: As for ``cloudwatch.Metric``; by default the maximum of five minutes.
        """
        return self.queues.metric_dead_jobs(**options)

    def metric_dead_reports(self, **options: Any) -> cloudwatch.Metric:
        """Reports of instances in the dead-letter queue.

        Args:
            options: As for ``cloudwatch.Metric``; by default the maximum of five minutes.
        """
        return self.queues.metric_dead_reports(**options)

    def metric_dead_events(self, **options: Any) -> cloudwatch.Metric:
        """Events in the dead-letter queue.

        Args:
            options: As for ``cloudwatch.Metric``; by default the maximum of five minutes.
        """
        return self.queues.metric_dead_events(**options)

    def metric_dead_sweeps(self, **options: Any) -> cloudwatch.Metric:
        """Sweeps in the dead-letter queue.

        Args:
            options: As for ``cloudwatch.Metric``; by default the maximum of five minutes.
        """
        return self.queues.metric_dead_sweeps(**options)

    def metric_jobs_queued(self, **options: Any) -> cloudwatch.Metric:
        """Jobs taken on.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.JOBS_QUEUED, **options)

    def metric_jobs_refused(self, **options: Any) -> cloudwatch.Metric:
        """Jobs whose label cannot be understood or served.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.JOBS_REFUSED, **options)

    def metric_jobs_launched(
        self, *, capacity_type: str | None = None, **options: Any
    ) -> cloudwatch.IMetric:
        """Jobs whose instance was launched.

        Args:
            capacity_type: ``spot`` or ``on-demand``; both together if left out.
            options: As for ``cloudwatch.Metric``, or ``cloudwatch.MathExpression`` for both.
        """
        return self._of_kind(Metric.JOBS_LAUNCHED, capacity_type, options)

    def metric_jobs_started(self, **options: Any) -> cloudwatch.Metric:
        """Runners that reported their start.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.JOBS_STARTED, **options)

    def metric_jobs_completed(
        self, *, outcome: str | None = None, **options: Any
    ) -> cloudwatch.IMetric:
        """Jobs that ended.

        Args:
            outcome: ``success``, ``failure``, ``timeout``, …; all together if left out.
            options: As for ``cloudwatch.Metric``, or ``cloudwatch.MathExpression`` for all.
        """
        return self._of_kind(Metric.JOBS_COMPLETED, outcome, options)

    def metric_jobs_expired(self, **options: Any) -> cloudwatch.Metric:
        """Jobs given up.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.JOBS_EXPIRED, **options)

    def metric_launch_wait(self, **options: Any) -> cloudwatch.Metric:
        """From GitHub's queueing of a job until its instance was launched, in seconds.

        Args:
            options: As for ``cloudwatch.Metric``; by default the 95th percentile of five minutes.
        """
        return self.metrics.metric(Metric.LAUNCH_WAIT, **options)

    def metric_launch_shortfall(self, **options: Any) -> cloudwatch.Metric:
        """Jobs for which there was no capacity; they are tried again.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.LAUNCH_SHORTFALL, **options)

    def metric_job_duration(self, **options: Any) -> cloudwatch.Metric:
        """From a job's start to its end, in seconds.

        Args:
            options: As for ``cloudwatch.Metric``; by default the 95th percentile of five minutes.
        """
        return self.metrics.metric(Metric.JOB_DURATION, **options)

    def metric_jobs_waiting(
        self, *, scope: str | None = None, **options: Any
    ) -> cloudwatch.IMetric:
        """Jobs that found a cap on runners reached; they wait their turn.

        Args:
            scope: ``fleet``, ``owner`` or ``repository``; all together if left out.
            options: As for ``cloudwatch.Metric``, or ``cloudwatch.MathExpression`` for all.
        """
        return self._of_kind(Metric.JOBS_WAITING, scope, options)

    def metric_jobs_requeued(self, **options: Any) -> cloudwatch.Metric:
        """Jobs that GitHub still had queued when their runner ended.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.JOBS_REQUEUED, **options)

    def metric_jobs_rerun(self, *, result: str | None = None, **options: Any) -> cloudwatch.IMetric:
        """Interrupted jobs that had started, by what became of their re-run.

        Args:
            result: ``done``, ``not_needed`` or ``given_up``; all together if left out.
            options: As for ``cloudwatch.Metric``, or ``cloudwatch.MathExpression`` for all.
        """
        return self._of_kind(Metric.JOBS_RERUN, result, options)

    def metric_jobs_cancelled(self, **options: Any) -> cloudwatch.Metric:
        """Jobs that ended at GitHub before a runner of the fleet had them.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.JOBS_CANCELLED, **options)

    def metric_spot_interruptions(
        self, *, job: str | None = None, **options: Any
    ) -> cloudwatch.IMetric:
        """Warnings of EC2 that it takes an instance of the fleet back.

        Args:
            job: ``running``, ``launched`` or ``without_job``: what it had; all together if left
                out.
            options: As for ``cloudwatch.Metric``, or ``cloudwatch.MathExpression`` for all.
        """
        return self._of_kind(Metric.SPOT_INTERRUPTIONS, job, options)

    def metric_instances_lost(
        self, *, fate: str | None = None, **options: Any
    ) -> cloudwatch.IMetric:
        """Instances that ended without a report, by what became of their job.

        Args:
            fate: ``redispatched``, ``rerun`` or ``closed``; all together if left out.
            options: As for ``cloudwatch.Metric``, or ``cloudwatch.MathExpression`` for all.
        """
        return self._of_kind(Metric.INSTANCES_LOST, fate, options)

    def metric_breaker_open(
        self, *, capacity_type: str = "spot", **options: Any
    ) -> cloudwatch.Metric:
        """Offerings of EC2 that launches leave out now.

        Args:
            capacity_type: ``spot`` (default) or ``on-demand``.
            options: As for ``cloudwatch.Metric``; by default the maximum of five minutes.
        """
        return self.metrics.metric(
            Metric.BREAKER_OPEN, kind=capacity_type, **{"statistic": "Maximum", **options}
        )

    def metric_sweeps_run(self, **options: Any) -> cloudwatch.Metric:
        """Runs of sweeps.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.SWEEP_RUNS, **options)

    def metric_sweeps_failed(self, **options: Any) -> cloudwatch.Metric:
        """Runs of sweeps that failed.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.SWEEP_RUNS_FAILED, **options)

    def metric_rate_limit_left(self, **options: Any) -> cloudwatch.Metric:
        """Requests that GitHub still allows, of the installation that has the fewest left.

        Args:
            options: As for ``cloudwatch.Metric``; by default the minimum of five minutes.
        """
        return self.metrics.metric(
            Metric.GITHUB_REQUESTS_LEFT, **{"statistic": "Minimum", **options}
        )

    def _of_kind(
        self, definition: MetricDefinition, kind: str | None, options: dict[str, Any]
    ) -> cloudwatch.IMetric:
        if kind is None:
            return self.metrics.total(definition, **options)
        return self.metrics.metric(definition, kind=kind, **options)
