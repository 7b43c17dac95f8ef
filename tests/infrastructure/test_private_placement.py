"""``private=true`` through the template: subnets, their way out, and what labels may ask for."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from runsfleet_constructs import GitHubApp, RunnerFleet, RunnerNetwork
from tests.infrastructure.templates import Template, as_list, flat, synthesize


def template_with(folder: Path, **network: Any) -> Template:
    """Return the template of a fleet in a network of three zones."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Fleet", env=cdk.Environment(region="eu-central-1"))
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        vpc = RunnerNetwork(stack, "Network", **network).vpc
        RunnerFleet(stack, "Runners", github=github, vpc=vpc)

    return synthesize(folder, build)["Fleet"]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A fleet whose network has private subnets, and two gateways for three zones."""
    return template_with(tmp_path_factory.mktemp("private"), nat_gateways=2)


def test_each_zone_has_a_private_subnet_that_gets_out(private: Template) -> None:
    """Private subnets have no public address, a gateway of a public subnet, and no way in."""
    subnets = private.of_type("AWS::EC2::Subnet")
    inner = {name: s for name, s in subnets.items() if "Private" in name}
    assert len(inner) == 3
    assert len({json.dumps(s["Properties"]["AvailabilityZone"]) for s in inner.values()}) == 3
    assert not [s for s in inner.values() if "MapPublicIpOnLaunch" in s["Properties"]]
    gateways = private.of_type("AWS::EC2::NatGateway")
    assert len(gateways) == 2
    for gateway in gateways.values():
        assert "Public" in flat(gateway["Properties"]["SubnetId"])
    outward = [
        flat(route["Properties"]["NatGatewayId"])
        for route in private.of_type("AWS::EC2::Route").values()
        if "NatGatewayId" in route["Properties"]
    ]
    assert len(outward) == 3
    assert {name.strip("<>") for name in outward} == set(gateways)
    tables = {
        flat(a["Properties"]["SubnetId"]): flat(a["Properties"]["RouteTableId"])
        for a in private.of_type("AWS::EC2::SubnetRouteTableAssociation").values()
    }
    own = [tables[f"<{name}>"] for name in inner]
    assert len(set(own)) == 3
    for endpoint in private.of_type("AWS::EC2::VPCEndpoint").values():
        assert set(own) < {flat(t) for t in endpoint["Properties"]["RouteTableIds"]}


def test_gateways_can_be_added_later(private: Template, tmp_path: Path) -> None:
    """Public subnets keep their names and addresses, and no two subnets share an address."""
    before = template_with(tmp_path).of_type("AWS::EC2::Subnet")
    after = private.of_type("AWS::EC2::Subnet")
    assert {name: after[name]["Properties"] for name in before} == {
        name: subnet["Properties"] for name, subnet in before.items()
    }
    networks = [ipaddress.ip_network(s["Properties"]["CidrBlock"]) for s in after.values()]
    assert not [(a, b) for i, a in enumerate(networks) for b in networks[i + 1 :] if a.overlaps(b)]


def test_private_jobs_get_these_subnets(private: Template) -> None:
    """Dispatch knows both kinds and may launch into both; labels may ask for private ones."""
    variables = private.variables("Runners/Dispatch")
    ordinary = flat(variables["RUNSFLEET_SUBNET_IDS"])
    inner = flat(variables["RUNSFLEET_PRIVATE_SUBNET_IDS"])
    assert ordinary.count("Public") == 3
    assert "Private" not in ordinary
    assert inner.count("Private") == 3
    assert "Public" not in inner
    for function in ("Runners/Intake", "Runners/Dispatch"):
        assert private.variables(function)["RUNSFLEET_PRIVATE"] == "true"
    launch = [
        flat(resource)
        for statement in private.statements("Runners/Dispatch")
        if "ec2:CreateFleet" in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]
    assert len([r for r in launch if "Private" in r and ":subnet/" in r]) == 3


def test_the_default_network_offers_none(library: Template) -> None:
    """Without a gateway there is no private subnet, and the label is refused by both functions."""
    for function in ("Runners/Intake", "Runners/Dispatch"):
        assert library.variables(function)["RUNSFLEET_PRIVATE"] == "false"
    assert library.variables("Runners/Dispatch")["RUNSFLEET_PRIVATE_SUBNET_IDS"] == "[]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nat_gateways": 4}, "nat_gateways must be between 0 and 3, got 4"),
        ({"nat_gateways": -1}, "nat_gateways must be between 0 and 3, got -1"),
        ({"nat_gateways": 1, "zones": 4}, "zones must be between 1 and 3, got 4"),
    ],
)
def test_gateways_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    """No more gateways than zones, and with them no more zones than there is room for."""
    stack = cdk.Stack(cdk.App(), "Stack", env=cdk.Environment(region="eu-central-1"))
    with pytest.raises(ValueError, match=message):
        RunnerNetwork(stack, "Network", **options)
