"""A CDK app of one's own that has a fleet: run `cdk synth` here, with `pip install runsfleet`."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2

from runsfleet_constructs import (
    FleetLimits,
    GitHubApp,
    LabelAlias,
    LabelOptions,
    Metric,
    RunnerFleet,
)


class CiStack(cdk.Stack):
    """Runners that take over a label that workflows have already, beside a test database."""

    def __init__(self, scope: cdk.App, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        fleet = RunnerFleet(
            self,
            "Runners",
            fleet_name="ci",
            github=GitHubApp.from_secret_name(self, "App", "ci/github-app"),
            labels=LabelOptions(
                aliases=[LabelAlias(match="ubuntu-arm-4", spec="runner=4cpu-linux-arm64")]
            ),
            limits=FleetLimits(max_runtime=cdk.Duration.hours(2)),
            setup_commands=["apt-get update -q", "apt-get install -y -q docker.io"],
        )
        database = ec2.SecurityGroup(self, "TestDatabase", vpc=fleet.vpc)
        fleet.connections.allow_to(database, ec2.Port.tcp(5432), "tests use the database")

        cloudwatch.Dashboard(
            self,
            "Dashboard",
            widgets=[
                [
                    cloudwatch.GraphWidget(
                        title="jobs",
                        left=[fleet.metric_jobs_queued(), fleet.metric_jobs_completed()],
                        right=[fleet.metric_queue_age()],
                    )
                ]
            ],
        )
        fleet.metric(Metric.ENQUEUE_FAILURES).create_alarm(
            self, "EnqueueFailures", threshold=1, evaluation_periods=1
        )
        # escape hatches: every part is a public attribute
        cdk.Tags.of(fleet.dispatch).add("Team", "platform")
        cdk.CfnOutput(self, "WebhookUrl", value=fleet.webhook_url)


app = cdk.App()
CiStack(app, "Ci")
app.synth()
