"""A bucket that spares instances the download of the runner from GitHub, and keeps old records."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from runsfleet_constructs._acknowledge import acknowledge
from runsfleet_constructs._grants import allow, allow_key
from runsfleet_runtime.contract.paths import (
    ARCHIVED_JOBS_PREFIX,
    COST_REPORTS_PREFIX,
    KEPT_REPORTS_PREFIX,
)

RUNNER_PREFIX = "runners/"
"""Beginning of the keys that instances may read and write (``contract.paths``)."""

KEPT_DAYS = 30
"""GitHub refuses a runner 30 days after its successor's release, so nothing older is of use."""

ARCHIVED_DAYS = 400
"""Records of old jobs and cost reports: a year, and the month in which one asks for it."""

_LIFETIMES = {
    RUNNER_PREFIX: KEPT_DAYS,
    KEPT_REPORTS_PREFIX: KEPT_DAYS,
    ARCHIVED_JOBS_PREFIX: ARCHIVED_DAYS,
    COST_REPORTS_PREFIX: ARCHIVED_DAYS,
}


class RunnerCacheBucket(Construct):
    """Encrypted, private, TLS only; holds runner packages, reports that were kept, old records.

    Instances verify each package against the digest in their configuration, so a job that writes
    rubbish here can cost a download and nothing more.

    Args:
        scope: Parent.
        construct_id: Id.
        encryption_key: Key of the bucket; by default one that S3 manages.
        removal_policy: What becomes of the bucket when it is removed from the app; default
            ``RETAIN``. With ``DESTROY`` CloudFormation removes it only when it is empty.

    Attributes:
        bucket: The bucket.

    Example:
        >>> cache = RunnerCacheBucket(self, "RunnerCache")  # doctest: +SKIP
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        encryption_key: kms.IKey | None = None,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            bucket_key_enabled=None if encryption_key is None else True,
            encryption=(
                s3.BucketEncryption.S3_MANAGED
                if encryption_key is None
                else s3.BucketEncryption.KMS
            ),
            encryption_key=encryption_key,
            enforce_ssl=True,
            lifecycle_rules=[
                s3.LifecycleRule(
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
                ),
                *(
                    s3.LifecycleRule(prefix=prefix, expiration=cdk.Duration.days(days))
                    for prefix, days in _LIFETIMES.items()
                ),
            ],
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=removal_policy,
        )
        acknowledge(
            self.bucket,
            "AwsSolutions-S1",
            "holds public packages whose digests are checked; logs of access to it tell nothing",
        )

    def grant_cache(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow instances to read and write runner packages, and nothing else in the bucket.

        An instance may also keep a report there that the termination queue did not take, under its
        own name only.

        Args:
            grantee: Who may.
        """
        allow_key(grantee, self.bucket.encryption_key)
        # aws:userid is {role id}:{instance id}: an instance can speak for no other
        own_report = self.bucket.arn_for_objects(KEPT_REPORTS_PREFIX + "${aws:userid}.json")
        allow(grantee, ["s3:PutObject"], [own_report])
        return allow(
            grantee,
            ["s3:GetObject", "s3:PutObject"],
            [self.bucket.arn_for_objects(f"{RUNNER_PREFIX}*")],
            wildcard="versions of the runner come and go below this prefix",
        )

    def grant_sweep(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to take the reports that were kept, and to archive records of jobs.

        Args:
            grantee: Who may; the housekeeping function.
        """
        allow_key(grantee, self.bucket.encryption_key)
        # of all keys: without it S3 answers for a missing object as for a forbidden one
        allow(grantee, ["s3:ListBucket"], [self.bucket.bucket_arn])
        allow(
            grantee,
            ["s3:GetObject", "s3:DeleteObject"],
            [self.bucket.arn_for_objects(f"{KEPT_REPORTS_PREFIX}*")],
            wildcard="each instance keeps its report under its own name",
        )
        return allow(
            grantee,
            ["s3:PutObject"],
            [self.bucket.arn_for_objects(f"{ARCHIVED_JOBS_PREFIX}*")],
            wildcard="a batch of records is an object of its own",
        )

    def grant_report_cost(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to write cost reports, and to read those of earlier days.

        Args:
            grantee: Who may; the housekeeping function.
        """
        return allow(
            grantee,
            ["s3:GetObject", "s3:PutObject"],
            [self.bucket.arn_for_objects(f"{COST_REPORTS_PREFIX}*")],
            wildcard="each day has files of its own",
        )
