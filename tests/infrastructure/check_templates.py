"""Judge every template: cdk-nag, the CDK's own validation and annotations, cfn-lint.

Run by ``make templates``. Builds each environment of this repo and a few variants of the fleet,
with all recommended feature flags, and exits with 1 when anything is found. Nothing is bundled or
deployed, and no account is asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]
# a deprecated call of the CDK is a finding, not a line on standard error
os.environ["JSII_DEPRECATED"] = "fail"

import aws_cdk as cdk  # noqa: E402  # the variable above is read when jsii starts
import cdk_nag  # noqa: E402
from aws_cdk import aws_ec2 as ec2  # noqa: E402
from aws_cdk import aws_iam as iam  # noqa: E402
from aws_cdk import aws_kms as kms  # noqa: E402
from aws_cdk import aws_sns as sns  # noqa: E402

from runsfleet_constructs import (  # noqa: E402
    ConfigStore,
    GitHubApp,
    RunnerFleet,
    RunnerImage,
    RunnerNetwork,
    SlackNotifier,
    SlackWebhook,
    SshAccess,
)
from stacks.environment_file import load_environments  # noqa: E402
from stacks.fleet_stack import FleetStage  # noqa: E402

ACCEPTED = {
    "W3005": "the CDK writes DependsOn for roles that are named by GetAtt as well",
}
"""Rules of cfn-lint that are not applied, each with its reason."""


def main() -> int:
    """Print what was found and return the exit code."""
    findings: list[str] = []
    templates: list[Path] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, build in _apps().items():
            out = Path(folder) / name
            findings += [f"{name}: {finding}" for finding in _synthesize(out, build)]
            templates += sorted(out.rglob("*.template.json"))
        findings += _lint(templates, Path(folder))
        count = sum(len(json.loads(path.read_text())["Resources"]) for path in templates)
    verdict = f"{len(findings)} findings" if findings else "nothing found"
    summary = f"{len(templates)} templates, {count} resources: {verdict}"
    sys.stdout.write("".join(f"{line}\n" for line in (*findings, summary)))
    return 1 if findings else 0


def _apps() -> dict[str, Callable[[cdk.App], None]]:
    def environments(app: cdk.App) -> None:
        for environment in load_environments(ROOT / "environments"):
            FleetStage(app, environment)

    def parameters(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Parameters")
        RunnerFleet(
            stack,
            "Runners",
            fleet_name="variant",
            github=GitHubApp.from_parameter_names(stack, "/runsfleet/github-app"),
            config_store=ConfigStore.SSM,
            image=RunnerImage.amazon_linux_2023(),
            vpc=RunnerNetwork(stack, "Network", nat_gateways=2).vpc,
        )

    def encrypted(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Encrypted", env=cdk.Environment(region="eu-west-1"))
        RunnerFleet(
            stack,
            "Runners",
            fleet_name="variant",
            github=GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app"),
            encryption_key=kms.Key(stack, "Key", enable_key_rotation=True),
            vpc=ec2.Vpc.from_vpc_attributes(
                stack,
                "Vpc",
                vpc_id="vpc-0123456789abcdef0",
                availability_zones=["eu-west-1a", "eu-west-1b"],
                private_subnet_ids=["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
                private_subnet_route_table_ids=["rtb-0123456789abcdef0", "rtb-0123456789abcdef1"],
            ),
        )

    def opened(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Opened")
        fleet = RunnerFleet(
            stack,
            "Runners",
            fleet_name="variant",
            github=GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app"),
            ssh=SshAccess(
                key_pair=ec2.KeyPair.from_key_pair_name(stack, "SshKey", "platform-team"),
                peers=[ec2.Peer.ipv4("10.0.0.0/8")],
            ),
        )
        fleet.grant_operate(iam.Role(stack, "Operator", assumed_by=iam.AccountRootPrincipal()))
        SlackNotifier(
            stack,
            "Slack",
            topic=sns.Topic(stack, "Topic", enforce_ssl=True),
            webhook=SlackWebhook.from_secret_name(stack, "SlackWebhook", "runsfleet/slack"),
        )

    return {
        "environments": environments,
        "parameters": parameters,
        "encrypted": encrypted,
        "opened": opened,
    }


def _synthesize(out: Path, build: Callable[[cdk.App], None]) -> Iterator[str]:
    flags = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = cdk.App(outdir=str(out), context={**flags, "aws:cdk:bundling-stacks": []})
    cdk.Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks())
    build(app)
    try:
        assembly = app.synth()
    except RuntimeError as error:  # the CDK's own class arrives as this one
        if not (out / "validation-report.json").is_file():
            raise
        yield from _violations(json.loads((out / "validation-report.json").read_text()), error)
        return
    yield from _violations(json.loads((out / "validation-report.json").read_text()), None)
    for stack in assembly.stacks_recursively:
        for message in stack.messages:
            yield f"{message.id}: {message.entry.data}"


def _violations(report: dict[str, Any], error: RuntimeError | None) -> Iterator[str]:
    found = False
    for plugin in report.get("pluginReports", []):
        for violation in plugin.get("violations", []):
            for construct in violation["violatingConstructs"]:
                found = True
                path = construct["constructPath"]
                yield f"{path}: {violation['ruleName']}: {violation['description']}"
    if error is not None and not found:
        yield str(error)


def _lint(templates: list[Path], folder: Path) -> Iterator[str]:
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--format", "parseable"]
    ignored = [argument for rule in ACCEPTED for argument in ("--ignore-checks", rule)]
    done = subprocess.run(
        [*command, *ignored, "--", *map(str, templates)],
        capture_output=True,
        check=False,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    for line in lines:
        yield line.removeprefix(f"{folder}/")
    if done.returncode and not lines:
        yield f"cfn-lint ended with {done.returncode}: {done.stderr.strip()}"


if __name__ == "__main__":
    sys.exit(main())
