"""What a fleet costs in a month in which nobody builds, from its synthesized template.

Everything billed by the hour or month, or busy while idle, is counted; what is billed by use alone
is zero. What runs by the clock is counted with what each run takes. A resource type that the model
does not know is an error, so that a new one cannot slip through as free. Prices: us-east-1, public
Price List of August 2026; free tiers are not deducted.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.report import Row

BUDGET_USD: Final = 5.0
MONTH_HOURS: Final = 730

SECRET_USD: Final = 0.40  # a month and secret
SQS_USD_PER_MILLION: Final = {True: 0.50, False: 0.40}  # FIFO, standard
# Lambda keeps at least five long polls of 20 s open for each queue that triggers a function
POLLS_PER_MONTH: Final = 5 * 3600 / 20 * MONTH_HOURS
ALARM_USD: Final = 0.10
DASHBOARD_USD: Final = 3.00
INTERFACE_ENDPOINT_USD: Final = 0.01 * MONTH_HOURS  # a zone
NAT_USD: Final = 0.045 * MONTH_HOURS
KEY_USD: Final = 1.00
METRIC_USD: Final = 0.30  # a series that gets a value in every hour

# One run of a sweep that finds nothing. Schedule, message (sent, received, deleted) and invocation;
# 512 MB of an arm64 function for a second, as cold starts are among them; a lease taken and given
# back, and four reads of 4 KB; two lines of log.
SCHEDULE_USD: Final = 1.00 / 1e6
SWEEP_USD: Final = (
    SCHEDULE_USD
    + 3 * SQS_USD_PER_MILLION[False] / 1e6
    + 0.20 / 1e6
    + 0.5 * 1.0 * 0.0000133334
    + 2 * 0.625 / 1e6
    + 4 * 0.125 / 1e6
    + 1500 * 0.50 / 1e9
)
# SweepRuns and GitHubRateLimitLeft; others get values once a day, or when something happens
IDLE_SERIES: Final = 2

_UNIT_HOURS: Final = {"minute": 1 / 60, "hour": 1.0, "day": 24.0}
_RATE: Final = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_DAILY: Final = re.compile(r"cron\(\d+ \d+ \* \* \? \*\)")

FREE_PREFIXES: Final = ("AWS::IAM::", "AWS::CDK::", "AWS::ApiGatewayV2::", "AWS::Events::Rule")
FREE: Final = frozenset(
    {
        # billed by requests, seconds or bytes alone
        "AWS::DynamoDB::GlobalTable",
        "AWS::Lambda::Function",
        "AWS::Lambda::LayerVersion",
        "AWS::Lambda::Permission",
        "AWS::Logs::LogGroup",
        "AWS::Scheduler::ScheduleGroup",
        "AWS::S3::Bucket",
        "AWS::S3::BucketPolicy",
        "AWS::SQS::Queue",
        "AWS::SQS::QueuePolicy",
        # not billed
        "AWS::EC2::InternetGateway",
        "AWS::EC2::LaunchTemplate",
        "AWS::EC2::Route",
        "AWS::EC2::RouteTable",
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::Subnet",
        "AWS::EC2::SubnetRouteTableAssociation",
        "AWS::EC2::VPC",
        "AWS::EC2::VPCGatewayAttachment",
        "AWS::SSM::Document",
        "AWS::SSM::Parameter",
    }
)

_SWEEP: Final = "sweep"


class UnknownPriceError(ValueError):
    """The template has a resource type whose price the model does not know."""


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the bill.

    Attributes:
        what: What is billed.
        usd: US dollars a month.
    """

    what: str
    usd: float


def idle_cost(template: Mapping[str, Any]) -> list[Item]:
    """Return what the resources of a template cost in an idle month.

    Args:
        template: A synthesized CloudFormation template.

    Raises:
        UnknownPriceError: Naming every resource type without a price.

    Example:
        >>> idle_cost({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})
        []
    """
    resources: Mapping[str, Any] = template["Resources"]
    prices: dict[str, Callable[[Mapping[str, Any]], Item]] = {
        "AWS::Lambda::EventSourceMapping": lambda r: _polling(r, resources),
        "AWS::Scheduler::Schedule": _sweep,
        "AWS::EC2::VPCEndpoint": _endpoint,
        "AWS::EC2::NatGateway": lambda _: Item("NAT gateway", NAT_USD),
        "AWS::CloudWatch::Alarm": lambda _: Item("alarm", ALARM_USD),
        "AWS::CloudWatch::Dashboard": lambda _: Item("dashboard", DASHBOARD_USD),
        "AWS::KMS::Key": lambda _: Item("key", KEY_USD),
        "AWS::SecretsManager::Secret": lambda _: Item("secret", SECRET_USD),
    }
    unknown = sorted(
        {
            r["Type"]
            for r in resources.values()
            if r["Type"] not in prices
            and r["Type"] not in FREE
            and not r["Type"].startswith(FREE_PREFIXES)
        }
    )
    if unknown:
        raise UnknownPriceError(f"no price is known for {', '.join(unknown)}; add it to the model")
    items = [
        prices[r["Type"]](r.get("Properties", {}))
        for r in resources.values()
        if r["Type"] in prices
    ]
    items += [Item(f"secret {name}", SECRET_USD) for name in sorted(_secrets(resources))]
    if any(item.what.startswith(_SWEEP) for item in items):
        series = IDLE_SERIES * METRIC_USD
        items.append(Item("metrics that sweeps write while nothing happens", series))
    return [item for item in items if item.usd]


def _sweep(schedule: Mapping[str, Any]) -> Item:
    is_paused = schedule.get("State") == "DISABLED"
    runs = 0.0 if is_paused else runs_per_month(schedule["ScheduleExpression"])
    task = json.loads(schedule["Target"]["Input"])["task"]
    return Item(f"{_SWEEP} {task}, {runs:,.0f} runs", runs * SWEEP_USD)


def runs_per_month(expression: str) -> float:
    """Return how often a schedule falls due in a month.

    Args:
        expression: ``rate(…)``, or ``cron(…)`` of one time a day.

    Raises:
        UnknownPriceError: If it is another form.

    Example:
        >>> runs_per_month("rate(2 hours)")
        365.0
    """
    rate = _RATE.fullmatch(expression)
    if rate is not None:
        return MONTH_HOURS / (int(rate[1]) * _UNIT_HOURS[rate[2]])
    if _DAILY.fullmatch(expression):
        return MONTH_HOURS / 24
    raise UnknownPriceError(f"how often is {expression!r}? teach the model to read it")


def _polling(mapping: Mapping[str, Any], resources: Mapping[str, Any]) -> Item:
    queue = mapping["EventSourceArn"]["Fn::GetAtt"][0]
    is_fifo = bool(resources[queue].get("Properties", {}).get("FifoQueue"))
    kind = "FIFO" if is_fifo else "standard"
    usd = POLLS_PER_MONTH * SQS_USD_PER_MILLION[is_fifo] / 1e6
    return Item(f"Lambda's empty polls of a {kind} queue", usd)


def _endpoint(endpoint: Mapping[str, Any]) -> Item:
    zones = len(endpoint.get("SubnetIds", []))
    return Item("interface endpoint", zones * INTERFACE_ENDPOINT_USD)  # gateways have no subnets


def _secrets(resources: Mapping[str, Any]) -> set[str]:
    """Return the secrets that functions refer to; the template does not create them."""
    variables = [
        value
        for r in resources.values()
        if r["Type"] == "AWS::Lambda::Function"
        for value in r["Properties"].get("Environment", {}).get("Variables", {}).values()
        if isinstance(value, str)
    ]
    prefix = "secretsmanager:"
    return {v.removeprefix(prefix) for v in variables if v.startswith(prefix)}


def dev_template() -> dict[str, Any]:
    """Synthesize this repository's ``dev`` environment in memory and return its template."""
    import aws_cdk as cdk

    from stacks.environment_file import load_environments
    from stacks.fleet_stack import FleetStage

    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        app = cdk.App(outdir=folder, context={"aws:cdk:bundling-stacks": []})
        for environment in load_environments(root / "environments", ["dev"]):
            stage = FleetStage(app, environment)
            artifact = stage.synth().stacks[0]
            template: dict[str, Any] = json.loads(json.dumps(artifact.template))
            return template
    raise RuntimeError("there is no environment dev")


def run(rounds: int | None = None) -> list[Row]:
    """Add up the bill; there is nothing to repeat."""
    del rounds
    items = idle_cost(dev_template())
    total = sum(item.usd for item in items)
    return [
        Row(
            what="an idle month of one region",
            figure=f"{total:.2f} USD",
            ratio=total / BUDGET_USD,
            against="the budget",
            judged=total,
            budget=BUDGET_USD,
            unit="USD",
        ),
        *(Row(what=f"  {item.what}", figure=f"{item.usd:.2f} USD") for item in items),
    ]
