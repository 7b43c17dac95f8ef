"""The queues of a fleet: jobs that want a runner, what runners report, what EC2 says, sweeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from runsfleet_constructs._grants import allow, allow_key

if TYPE_CHECKING:
    from aws_cdk import aws_cloudwatch as cloudwatch

MAX_RECEIVES = 5
"""Deliveries of a message before it goes to the dead-letter queue. AWS advises five at least, as an
invocation that Lambda throttles uses one up (Lambda developer guide, errors with SQS)."""

VISIBILITY = 120
"""Seconds; above the timeout of the functions (60 s) and the lease of a claim (90 s)."""

HOUSEKEEPING_VISIBILITY = 360
"""Seconds; above the timeout of the housekeeping function (300 s)."""

RETENTION_DAYS = 14
"""The longest that SQS keeps a message: what fails on a Friday is there after a holiday."""

HOUSEKEEPING_RETENTION_DAYS = 1
"""A sweep that is a day late is as good as the one that is due now, so no pile is worked off."""


class JobQueues(Construct):
    """Four queues, each with a dead-letter queue of its type, encrypted, TLS only.

    Args:
        scope: Parent.
        construct_id: Id.
        encryption_key: Key of the queues; by default the keys of SQS.
        removal_policy: What becomes of the queues when they are removed from the app; default
            ``DESTROY``, as a queue is empty when its fleet is at rest.

    Attributes:
        jobs: FIFO; one message for each job and dispatch, grouped by job.
        jobs_dead_letters: Jobs that dispatch failed on five times.
        termination: Reports of the instances.
        termination_dead_letters: Reports that termination failed on five times.
        events: What EC2 says of instances, jobs that ended at GitHub, re-runs that are due.
        events_dead_letters: Events that the events function failed on five times, or that
            EventBridge could not deliver.
        housekeeping: Sweeps that are due.
        housekeeping_dead_letters: Sweeps that housekeeping failed on five times.

    Example:
        >>> queues = JobQueues(self, "Queues")  # doctest: +SKIP
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        encryption_key: kms.IKey | None = None,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.DESTROY,
    ) -> None:
        super().__init__(scope, construct_id)
        self._common: dict[str, Any] = {
            "encryption": (
                sqs.QueueEncryption.SQS_MANAGED
                if encryption_key is None
                else sqs.QueueEncryption.KMS
            ),
            "enforce_ssl": True,
            "removal_policy": removal_policy,
        }
        if encryption_key is not None:
            self._common["encryption_master_key"] = encryption_key
        self.jobs, self.jobs_dead_letters = self._pair(
            "Jobs",
            fifo=True,
            # by message group, so that one busy job never holds up the others' throughput
            deduplication_scope=sqs.DeduplicationScope.MESSAGE_GROUP,
            fifo_throughput_limit=sqs.FifoThroughputLimit.PER_MESSAGE_GROUP_ID,
        )
        self.termination, self.termination_dead_letters = self._pair("Termination")
        self.events, self.events_dead_letters = self._pair("Events")
        self.housekeeping, self.housekeeping_dead_letters = self._pair(
            "Housekeeping",
            visibility_timeout=cdk.Duration.seconds(HOUSEKEEPING_VISIBILITY),
            retention_period=cdk.Duration.days(HOUSEKEEPING_RETENTION_DAYS),
        )

    @property
    def with_dead_letters(self) -> tuple[tuple[sqs.Queue, sqs.Queue], ...]:
        """Each queue and its dead-letter queue."""
        return (
            (self.jobs, self.jobs_dead_letters),
            (self.termination, self.termination_dead_letters),
            (self.events, self.events_dead_letters),
            (self.housekeeping, self.housekeeping_dead_letters),
        )

    def grant_submit_jobs(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to put jobs on the jobs queue.

        Args:
            grantee: Who may submit.
        """
        return _grant_send(grantee, self.jobs)

    def grant_report(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to report on runners, as their instances do.

        Args:
            grantee: Who may report.
        """
        return _grant_send(grantee, self.termination)

    def grant_send_events(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to put messages on the events queue, in the form of the contract.

        Args:
            grantee: Who may send; the fleet's functions.
        """
        return _grant_send(grantee, self.events)

    def grant_run_sweeps(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to ask for sweeps, in the form of ``HousekeepingMessage``.

        Args:
            grantee: Who may ask.
        """
        return _grant_send(grantee, self.housekeeping)

    def grant_watch_jobs(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to count the jobs that wait, and those that failed.

        Args:
            grantee: Who may.
        """
        return allow(
            grantee,
            ["sqs:GetQueueAttributes"],
            [self.jobs.queue_arn, self.jobs_dead_letters.queue_arn],
        )

    def grant_redrive(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to take dead letters and to put them back on their queues.

        Args:
            grantee: Who may; the housekeeping function.
        """
        for queue, _ in self.with_dead_letters:
            _grant_send(grantee, queue)
        return allow(
            grantee,
            ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"],
            [dead_letters.queue_arn for _, dead_letters in self.with_dead_letters],
        )

    def metric_queue_age(self, **options: Any) -> cloudwatch.Metric:
        """Age of the oldest job on the queue, in seconds.

        Args:
            options: As for ``sqs.Queue.metric``; by default the maximum of each five minutes.
        """
        return self.jobs.metric_approximate_age_of_oldest_message(**options)

    def metric_dead_jobs(self, **options: Any) -> cloudwatch.Metric:
        """Jobs in the dead-letter queue.

        Args:
            options: As for ``sqs.Queue.metric``; by default the maximum of each five minutes.
        """
        return self.jobs_dead_letters.metric_approximate_number_of_messages_visible(**options)

    def metric_dead_reports(self, **options: Any) -> cloudwatch.Metric:
        """Reports in the dead-letter queue.

        Args:
            options: As for ``sqs.Queue.metric``; by default the maximum of each five minutes.
        """
        queue = self.termination_dead_letters
        return queue.metric_approximate_number_of_messages_visible(**options)

    def metric_dead_events(self, **options: Any) -> cloudwatch.Metric:
        """Events in the dead-letter queue.

        Args:
            options: As for ``sqs.Queue.metric``; by default the maximum of each five minutes.
        """
        return self.events_dead_letters.metric_approximate_number_of_messages_visible(**options)

    def metric_dead_sweeps(self, **options: Any) -> cloudwatch.Metric:
        """Sweeps in the dead-letter queue.

        Args:
            options: As for ``sqs.Queue.metric``; by default the maximum of each five minutes.
        """
        queue = self.housekeeping_dead_letters
        return queue.metric_approximate_number_of_messages_visible(**options)

    def _pair(
        self, name: str, *, fifo: bool | None = None, **options: Any
    ) -> tuple[sqs.Queue, sqs.Queue]:
        """Make a queue and its dead-letter queue, which keeps what it gets as long as SQS can."""
        longest = cdk.Duration.days(RETENTION_DAYS)
        dead_letters = sqs.Queue(
            self, f"{name}DeadLetters", fifo=fifo, retention_period=longest, **self._common
        )
        settings: dict[str, Any] = {
            "visibility_timeout": cdk.Duration.seconds(VISIBILITY),
            "retention_period": longest,
            **self._common,
            **options,
        }
        redrive = sqs.DeadLetterQueue(queue=dead_letters, max_receive_count=MAX_RECEIVES)
        return sqs.Queue(self, name, fifo=fifo, dead_letter_queue=redrive, **settings), dead_letters


def _grant_send(grantee: iam.IGrantable, queue: sqs.IQueue) -> iam.Grant:
    # SQS asks for both: it makes a data key and, when it reuses one, opens it again
    allow_key(grantee, queue.encryption_master_key)
    return allow(grantee, ["sqs:SendMessage"], [queue.queue_arn])
