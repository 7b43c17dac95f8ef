"""The built-in app of the local cloud: one `RunnerFleet`, for folders that have no app of ours.

Run by the CDK CLI as `python -m runsfleet_cli.local.fleet_app`. Context: `environments` names the
fleet, `runsfleet:github_url` its GitHub, and what the constructs themselves read.
"""

from __future__ import annotations

import os
import sys

import aws_cdk as cdk

from runsfleet_constructs import GitHubApp, RunnerFleet
from runsfleet_constructs.bundling import BundlingError
from runsfleet_constructs.github_app import GITHUB

GITHUB_URL_CONTEXT = "runsfleet:github_url"


def main() -> int:
    """Build the app and return the exit code."""
    app = cdk.App()
    name = str(app.node.try_get_context("environments") or "dev")
    stack = cdk.Stack(
        cdk.Stage(app, name),
        "fleet",
        env=cdk.Environment(
            account=os.environ.get("CDK_DEFAULT_ACCOUNT"),
            region=os.environ.get("CDK_DEFAULT_REGION"),
        ),
        stack_name=f"runsfleet-{name}",
    )
    try:
        fleet = RunnerFleet(
            stack,
            "Fleet",
            github=GitHubApp.from_secret_name(
                stack,
                "GitHubApp",
                "runsfleet/github-app",
                url=str(app.node.try_get_context(GITHUB_URL_CONTEXT) or GITHUB),
            ),
            fleet_name=name,
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )
        cdk.CfnOutput(stack, "WebhookUrl", value=fleet.webhook_url)
        app.synth()
    except (BundlingError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
