"""Where GitHub's webhooks arrive: an HTTPS endpoint and the function behind it."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from runsfleet_constructs._acknowledge import acknowledge
from runsfleet_constructs._checks import check_fleet_name
from runsfleet_constructs._function import FleetFunction
from runsfleet_constructs.fleet_tables import FleetTables
from runsfleet_constructs.function_options import FunctionAssets, FunctionOptions
from runsfleet_constructs.github_app import GitHubApp
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_constructs.labels import LabelOptions
from runsfleet_constructs.runner_instances import RunnerInstances
from runsfleet_runtime.contract.environment import WebhookEnvironment
from runsfleet_runtime.contract.paths import HEALTH_PATH, HEALTH_ROUTE, WEBHOOK_PATH

TIMEOUT = 10
"""Seconds; GitHub counts a delivery as failed after 10."""

RATE = 1000
"""Requests a second; a matrix of 256 jobs, or 1,000 jobs at once, must all pass: GitHub does not
send again what was throttled."""

BURST = 2000

PATH = WEBHOOK_PATH

HEALTH_RATE = 2
"""Questions a second; more than any monitor asks."""

HEALTH_BURST = 10

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
    its role can read the webhook's secret and send to the queues of jobs and events. With ``GET
    /health`` it can also count messages, and read the tables of circuits and leases.

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
        health: Tables that ``GET /health`` reads, which anybody may ask; there is no such route if
            left out.
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
        health: FleetTables | None = None,
        options: FunctionOptions | None = None,
    ) -> None:
        options = options or FunctionOptions()
        watched: dict[str, Any] = {}
        if health is not None:
            watched = {
                "jobs_dead_letter_queue_url": queues.jobs_dead_letters.queue_url,
                "circuit_table": health.circuit_state.table_name,
                "leases_table": health.leases.table_name,
            }
        self.environment = WebhookEnvironment(
            fleet=check_fleet_name(fleet_name),
            runner_level=github.runner_level,
            spot=spot,
            webhook_secret=github.webhook.reference,
            jobs_queue_url=queues.jobs.queue_url,
            events_queue_url=queues.events.queue_url,
            **watched,
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
        integration = self._integration()
        self._route(
            "Route",
            f"POST {PATH}",
            integration,
            "GitHub cannot sign for AWS; the function checks GitHub's own signature of each body",
        )
        health_routes: list[apigateway.CfnRoute] = []
        if health is not None:
            queues.grant_watch_jobs(self.role)
            health.grant_watch(self.role)
            health_routes.append(
                self._route(
                    "HealthRoute",
                    HEALTH_ROUTE,
                    integration,
                    "monitors have no credentials; it tells counts and times, and is throttled",
                )
            )
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
            route_settings={
                route.route_key: {
                    "ThrottlingBurstLimit": HEALTH_BURST,
                    "ThrottlingRateLimit": HEALTH_RATE,
                }
                for route in health_routes
            }
            or None,
        )
        for route in health_routes:
            # settings of a route that does not exist yet are refused
            self.stage.node.add_dependency(route)

    @property
    def url(self) -> str:
        """What to enter as the webhook's URL at GitHub."""
        return f"{self.api.api_endpoint}{PATH}"

    @property
    def health_url(self) -> str:
        """What a monitor asks, where the route exists."""
        return f"{self.api.api_endpoint}{HEALTH_PATH}"

    def _integration(self) -> apigateway.CfnIntegration:
        return apigateway.CfnIntegration(
            self,
            "Integration",
            api_id=self.api.api_id,
            integration_type="AWS_PROXY",
            integration_uri=self.function.function_arn,
            payload_format_version="2.0",
        )

    def _route(
        self,
        construct_id: str,
        key: str,
        integration: apigateway.CfnIntegration,
        why_open: str,
    ) -> apigateway.CfnRoute:
        """Lead a route, such as ``POST /webhook``, to the function."""
        route = apigateway.CfnRoute(
            self,
            construct_id,
            api_id=self.api.api_id,
            route_key=key,
            target=f"integrations/{integration.ref}",
        )
        acknowledge(route, "AwsSolutions-APIG4", why_open)
        method, path = key.split(" ")
        self.function.add_permission(
            "ApiMayInvoke" if construct_id == "Route" else f"ApiMayInvoke{construct_id}",
            principal=iam.ServicePrincipal("apigateway.amazonaws.com"),
            scope=self,
            source_arn=cdk.Stack.of(self).format_arn(
                service="execute-api",
                resource=self.api.api_id,
                resource_name=f"*/{method}{path}",
            ),
        )
        return route
