"""Where GitHub's webhooks arrive: an HTTPS endpoint and the function behind it."""

from __future__ import annotations

import json

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from runsfleet_constructs._acknowledge import acknowledge
from runsfleet_constructs._checks import check_fleet_name
from runsfleet_constructs._function import FleetFunction
from runsfleet_constructs.function_options import FunctionAssets, FunctionOptions
from runsfleet_constructs.github_app import GitHubApp
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_constructs.labels import LabelOptions
from runsfleet_constructs.runner_instances import RunnerInstances
from runsfleet_runtime.contract.environment import WebhookEnvironment

TIMEOUT = 10
"""Seconds; GitHub counts a delivery as failed after 10."""

RATE = 1000
"""Requests a second; a matrix of 256 jobs, or 1,000 jobs at once, must all pass: GitHub does not
send again what was throttled."""

BURST = 2000

PATH = "/webhook"

_ACCESS_LOG = {
    "requestId": "$context.requestId",
    "requestTime": "$context.requestTime",
    "sourceIp": "$context.identity.sourceIp",
    "route": "$context.routeKey",
    "status": "$context.status",
    "responseLength": "$context.responseLength",
    "latency": "$context.responseLatency",
    "error": "$context.integrationErrorMessage",
}


class WebhookIntake(FleetFunction):
    """``POST /webhook`` of an HTTP API, which invokes the webhook function.

    Requests are authenticated by the function, which checks GitHub's signature over the raw body;
    its role can read the webhook's secret and send to the queues of jobs and events, and nothing
    else.

    Args:
        scope: Parent.
        construct_id: Id.
        fleet_name: Name of the fleet.
        github: The GitHub App.
        queues: The fleet's queues.
        instances: What can be launched.
        assets: Code of the functions.
        labels: What labels are resolved against.
        spot: Whether spot is used when a label does not say; default yes.
        options: The functions' options.

    Attributes:
        api: The HTTP API.
        stage: Its one stage, throttled, with an access log.
        access_log: Group of that log.

    Example:
        >>> cdk.CfnOutput(self, "WebhookUrl", value=intake.url)  # doctest: +SKIP
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        fleet_name: str,
        github: GitHubApp,
        queues: JobQueues,
        instances: RunnerInstances,
        assets: FunctionAssets,
        labels: LabelOptions | None = None,
        spot: bool = True,
        options: FunctionOptions | None = None,
    ) -> None:
        options = options or FunctionOptions()
        self.environment = WebhookEnvironment(
            fleet=check_fleet_name(fleet_name),
            runner_level=github.runner_level,
            spot=spot,
            webhook_secret=github.webhook.reference,
            jobs_queue_url=queues.jobs.queue_url,
            events_queue_url=queues.events.queue_url,
            **instances.offer(),
            **(labels or LabelOptions()).to_environment(),
        )
        super().__init__(
            scope,
            construct_id,
            handler="webhook",
            description="runsfleet: takes GitHub's webhooks and queues jobs",
            environment=self.environment.to_environ(),
            timeout=cdk.Duration.seconds(TIMEOUT),
            # the processor's share grows with the memory, and a cold start is all processor
            memory_mib=512,
            assets=assets,
            options=options,
        )
        github.webhook.grant_read(self.role)
        queues.grant_submit_jobs(self.role)
        queues.grant_send_events(self.role)
        self.access_log = logs.LogGroup(
            self,
            "AccessLog",
            retention=options.log_retention,
            removal_policy=options.removal_policy,
            encryption_key=options.encryption_key,
        )
        self.api = apigateway.HttpApi(
            self,
            "Api",
            create_default_stage=False,
            description=f"webhooks for the runners of {fleet_name}",
        )
        self._route()
        self.stage = apigateway.CfnStage(
            self,
            "Stage",
            api_id=self.api.api_id,
            stage_name="$default",
            auto_deploy=True,
            access_log_settings=apigateway.CfnStage.AccessLogSettingsProperty(
                destination_arn=self.access_log.log_group_arn, format=json.dumps(_ACCESS_LOG)
            ),
            default_route_settings=apigateway.CfnStage.RouteSettingsProperty(
                throttling_burst_limit=BURST, throttling_rate_limit=RATE
            ),
        )

    @property
    def url(self) -> str:
        """What to enter as the webhook's URL at GitHub."""
        return f"{self.api.api_endpoint}{PATH}"

    def _route(self) -> None:
        integration = apigateway.CfnIntegration(
            self,
            "Integration",
            api_id=self.api.api_id,
            integration_type="AWS_PROXY",
            integration_uri=self.function.function_arn,
            payload_format_version="2.0",
        )
        route = apigateway.CfnRoute(
            self,
            "Route",
            api_id=self.api.api_id,
            route_key=f"POST {PATH}",
            target=f"integrations/{integration.ref}",
        )
        acknowledge(
            route,
            "AwsSolutions-APIG4",
            "GitHub cannot sign for AWS; the function checks GitHub's own signature of each body",
        )
        self.function.add_permission(
            "ApiMayInvoke",
            principal=iam.ServicePrincipal("apigateway.amazonaws.com"),
            scope=self,
            source_arn=cdk.Stack.of(self).format_arn(
                service="execute-api",
                resource=self.api.api_id,
                resource_name=f"*/POST{PATH}",
            ),
        )
