"""The queues of a fleet: jobs that want a runner, and what runners report."""

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

RETENTION_DAYS = 14
"""The longest that SQS keeps a message: what fails on a Friday is there after a holiday."""


class JobQueues(Construct):
    """Two queues, each with a dead-letter queue of its type, encrypted, TLS only.

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
        retention = cdk.Duration.days(RETENTION_DAYS)
        common: dict[str, Any] = {
            "encryption": (
                sqs.QueueEncryption.SQS_MANAGED
                if encryption_key is None
                else sqs.QueueEncryption.KMS
            ),
            "enforce_ssl": True,
            "removal_policy": removal_policy,
            "retention_period": retention,
        }
        if encryption_key is not None:
            common["encryption_master_key"] = encryption_key
        self.jobs_dead_letters = sqs.Queue(self, "JobsDeadLetters", fifo=True, **common)
        self.jobs = sqs.Queue(
            self,
            "Jobs",
            # by message group, so that one busy job never holds up the others' throughput
            fifo=True,
            deduplication_scope=sqs.DeduplicationScope.MESSAGE_GROUP,
            fifo_throughput_limit=sqs.FifoThroughputLimit.PER_MESSAGE_GROUP_ID,
            visibility_timeout=cdk.Duration.seconds(VISIBILITY),
            dead_letter_queue=sqs.DeadLetterQueue(
                queue=self.jobs_dead_letters, max_receive_count=MAX_RECEIVES
            ),
            **common,
        )
        self.termination_dead_letters = sqs.Queue(self, "TerminationDeadLetters", **common)
        self.termination = sqs.Queue(
            self,
            "Termination",
            visibility_timeout=cdk.Duration.seconds(VISIBILITY),
            dead_letter_queue=sqs.DeadLetterQueue(
                queue=self.termination_dead_letters, max_receive_count=MAX_RECEIVES
            ),
            **common,
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


def _grant_send(grantee: iam.IGrantable, queue: sqs.IQueue) -> iam.Grant:
    # SQS asks for both: it makes a data key and, when it reuses one, opens it again
    allow_key(grantee, queue.encryption_master_key)
    return allow(grantee, ["sqs:SendMessage"], [queue.queue_arn])
