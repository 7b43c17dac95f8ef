"""CreateFleet's plan, and what is added to the emulator's EC2."""

from __future__ import annotations

import asyncio
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from multidict import CIMultiDict

from runsfleet_cli.local.emulator_gaps.fleet import known_instance_types
from runsfleet_cli.local.emulator_gaps.fleet_model import (
    FleetRequest,
    Refusal,
    fingerprint,
    fleet_xml,
    parse_fleet,
    plan_fleet,
    rewritten_form,
    unknown_type,
)
from runsfleet_cli.local.emulator_gaps.instances import (
    DryRunAnswered,
    InstanceBook,
    InstanceChangesTold,
    InstanceFacts,
    InstancesDescribed,
    SelfTerminationOnly,
    SpotCannotBeStopped,
)
from runsfleet_cli.local.interceptor.aws_request import (
    Answer,
    AwsRequest,
    Operation,
    error_code,
)
from runsfleet_cli.local.interceptor.callers import ROOT, Caller
from runsfleet_cli.local.interceptor.faults import Closure, Pool

ZONES = {"subnet-a": "eu-1a", "subnet-b": "eu-1b"}
MINE, OTHER = "i-0123456789abcdef0", "i-0123456789abcdef1"


def _parameters(total: int = 4, **more: Any) -> dict[str, Any]:
    return {
        "Type": "instant",
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateId": "lt-1", "Version": "7"},
                "Overrides": [
                    {"InstanceType": "c7g.large", "SubnetId": "subnet-a", "Priority": "2"},
                    {"InstanceType": "m7g.large", "SubnetId": "subnet-b", "Priority": "1"},
                    {"InstanceType": "c7g.large", "SubnetId": "subnet-b"},
                ],
            }
        ],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": str(total),
            "DefaultTargetCapacityType": "spot",
        },
    } | more


def _fleet(total: int = 4, **more: Any) -> FleetRequest:
    parsed = parse_fleet(_parameters(total, **more))
    assert isinstance(parsed, FleetRequest)
    return parsed


def _closure(*pools: tuple[str, str], deliver: int = 0) -> Closure:
    closed = frozenset(Pool(kind, zone, "spot") for kind, zone in pools)
    return Closure("r", closed, deliver, "InsufficientInstanceCapacity", "none left")


def _call(action: str, caller: Caller = ROOT, **parameters: Any) -> AwsRequest:
    operation = Operation("ec2", action, "eu-1", "k", "ec2", parameters)
    return AwsRequest("POST", "/", CIMultiDict(), b"", operation, caller, 5.0)


async def _unreachable(request: AwsRequest) -> Answer:
    raise AssertionError(request.action)


def _answering(body: str) -> Any:
    async def forward(request: AwsRequest) -> Answer:
        assert request.service == "ec2"
        return Answer(200, CIMultiDict(), body.encode())

    return forward


def test_lowest_priority_goes_first() -> None:
    """All capacity comes from the override of lowest priority; those without come last."""
    plan = plan_fleet(_fleet(), ZONES, [])
    assert [(one.override.instance_type, one.count) for one in plan.launches] == [("m7g.large", 4)]
    assert plan.shortages == ()


def test_closed_pools_are_passed_over_and_told() -> None:
    """What a closed pool cannot give comes from the next; the closed one is an error."""
    plan = plan_fleet(_fleet(), ZONES, [_closure(("m7g.large", "eu-1b"), deliver=1)])
    assert [(one.override.instance_type, one.count) for one in plan.launches] == [
        ("m7g.large", 1),
        ("c7g.large", 3),
    ]
    assert [one.override.instance_type for one in plan.shortages] == ["m7g.large"]
    assert plan.rules == ("r",)


def test_delivery_in_part_is_shared_by_the_closed_pools() -> None:
    """Three pools closed together with two to give: two in all, and an error for each pool."""
    everywhere = [("c7g.large", "eu-1a"), ("m7g.large", "eu-1b"), ("c7g.large", "eu-1b")]
    plan = plan_fleet(_fleet(), ZONES, [_closure(*everywhere, deliver=2)])
    assert sum(one.count for one in plan.launches) == 2
    assert len(plan.shortages) == 3


def test_minimum_is_all_or_nothing() -> None:
    """Below MinTargetCapacity nothing is launched."""
    closure = _closure(
        ("c7g.large", "eu-1a"), ("m7g.large", "eu-1b"), ("c7g.large", "eu-1b"), deliver=2
    )
    fleet = _fleet(SpotOptions={"MinTargetCapacity": "3"})
    assert plan_fleet(fleet, ZONES, [closure]).launches == ()


def test_spot_and_on_demand_are_split() -> None:
    """Explicit capacities are kept, the rest is of the default type."""
    capacity = {
        "TotalTargetCapacity": "5",
        "OnDemandTargetCapacity": "1",
        "SpotTargetCapacity": "2",
        "DefaultTargetCapacityType": "on-demand",
    }
    fleet = _fleet(TargetCapacitySpecification=capacity)
    assert (fleet.on_demand, fleet.spot) == (3, 2)
    kinds = [(one.capacity_type, one.count) for one in plan_fleet(fleet, ZONES, []).launches]
    assert kinds == [("on-demand", 3), ("spot", 2)]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"LaunchTemplateConfigs": []}, "MissingParameter"),
        ({"TargetCapacitySpecification": {}}, "MissingParameter"),
        ({"TargetCapacitySpecification": {"TotalTargetCapacity": "x"}}, "InvalidParameterValue"),
        (
            {
                "TargetCapacitySpecification": {
                    "TotalTargetCapacity": "1",
                    "SpotTargetCapacity": "2",
                }
            },
            "InvalidTargetCapacitySpecification",
        ),
        ({"LaunchTemplateConfigs": [{}] * 51}, "InvalidFleetConfiguration"),
        (
            {"LaunchTemplateConfigs": [{"Overrides": [{"InstanceType": "a"}] * 301}]},
            "InvalidFleetConfiguration",
        ),
    ],
)
def test_impossible_fleets_are_refused(change: dict[str, Any], code: str) -> None:
    """What EC2 would not accept is refused with its code."""
    refusal = parse_fleet(_parameters() | change)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code


def test_unknown_instance_types_are_refused() -> None:
    """A type that EC2's model does not list does not launch."""
    known = known_instance_types()
    assert "c7g.xlarge" in known
    assert unknown_type(_fleet(), known) is None
    refusal = unknown_type(_fleet(), known - {"m7g.large"})
    assert refusal is not None
    assert "'m7g.large'" in refusal.message


def test_fingerprint_ignores_the_token_only() -> None:
    """Two requests are the same if they differ by token alone."""
    assert fingerprint(_parameters(ClientToken="a")) == fingerprint(_parameters(ClientToken="b"))
    assert fingerprint(_parameters(4)) != fingerprint(_parameters(5))


def test_rewritten_form_asks_for_one_launch_and_keeps_the_tags() -> None:
    """The forwarded form has one override, its count, and everything else of the request."""
    (launch,) = plan_fleet(_fleet(), ZONES, []).launches
    form = rewritten_form(
        {
            "Action": "CreateFleet",
            "ClientToken": "t",
            "TagSpecification.1.ResourceType": "instance",
            "LaunchTemplateConfigs.1.Overrides.3.InstanceType": "x",
            "TargetCapacitySpecification.TotalTargetCapacity": "9",
        },
        launch,
    )
    assert form == {
        "Action": "CreateFleet",
        "TagSpecification.1.ResourceType": "instance",
        "LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateId": "lt-1",
        "LaunchTemplateConfigs.1.LaunchTemplateSpecification.Version": "7",
        "LaunchTemplateConfigs.1.Overrides.1.InstanceType": "m7g.large",
        "LaunchTemplateConfigs.1.Overrides.1.SubnetId": "subnet-b",
        "TargetCapacitySpecification.TotalTargetCapacity": "4",
        "TargetCapacitySpecification.DefaultTargetCapacityType": "spot",
    }


def test_fleet_answer_names_where_instances_come_from() -> None:
    """Instances and errors carry their override, with the zone of its subnet."""
    plan = plan_fleet(_fleet(2), ZONES, [_closure(("m7g.large", "eu-1b"))])
    xml = fleet_xml("fleet-1", [(plan.launches[0], (MINE, OTHER))], plan.shortages, ZONES)
    root = ET.fromstring(f"<r>{xml}</r>")  # noqa: S314  (our own)
    assert [node.text for node in root.findall("fleetInstanceSet/item/instanceIds/item")] == [
        MINE,
        OTHER,
    ]
    place = "item/launchTemplateAndOverrides/overrides/availabilityZone"
    assert root.findtext(f"fleetInstanceSet/{place}") == "eu-1a"
    assert root.findtext(f"errorSet/{place}") == "eu-1b"
    assert root.findtext("errorSet/item/lifecycle") == "spot"


def _facts(instance_id: str, lifecycle: str) -> InstanceFacts:
    options = (("httpTokens", "required"),)
    return InstanceFacts(
        instance_id, lifecycle, "c7g.large", "eu-1b", "ami-1", options, "fleet-1", 1.0
    )


def _described(*ids: str) -> str:
    items = "".join(
        f"<item><instancesSet><item><instanceId>{one}</instanceId><imageId>resolve:ssm:/x</imageId>"
        "<placement><availabilityZone>eu-1a</availabilityZone></placement></item></instancesSet>"
        "</item>"
        for one in ids
    )
    namespace = "http://ec2.amazonaws.com/doc/2016-11-15/"
    return f'<DescribeInstancesResponse xmlns="{namespace}"><reservationSet>{items}</reservationSet></DescribeInstancesResponse>'  # noqa: E501


def test_described_instances_are_completed() -> None:
    """Lifecycle, zone, image and metadata options are added; unknown instances are left alone."""
    book = InstanceBook()
    book.add(_facts(MINE, "spot"))
    gap = InstancesDescribed(book)
    request = _call("DescribeInstances")
    assert gap.wants(request)
    text = asyncio.run(gap.answer(request, _answering(_described(MINE, OTHER)))).text()
    assert text.count("<instanceLifecycle>spot</instanceLifecycle>") == 1
    assert "<availabilityZone>eu-1b</availabilityZone>" in text
    assert "<imageId>ami-1</imageId>" in text
    assert "<httpTokens>required</httpTokens>" in text
    assert text.count("resolve:ssm") == 1


def test_instances_are_filtered_by_lifecycle() -> None:
    """The filter instance-lifecycle, which the emulator ignores, is applied."""
    book = InstanceBook()
    book.add(_facts(MINE, "spot"))
    book.add(_facts(OTHER, "on-demand"))
    request = _call("DescribeInstances", Filter=[{"Name": "instance-lifecycle", "Value": ["spot"]}])
    answer = asyncio.run(
        InstancesDescribed(book).answer(request, _answering(_described(MINE, OTHER)))
    )
    assert MINE in answer.text()
    assert OTHER not in answer.text()


def test_spot_instances_are_not_stopped() -> None:
    """A spot instance of a fleet cannot be stopped, an on-demand one can."""
    book = InstanceBook()
    book.add(_facts(MINE, "spot"))
    book.add(_facts(OTHER, "on-demand"))
    gap = SpotCannotBeStopped(book)
    refused = asyncio.run(
        gap.answer(_call("StopInstances", InstanceId=[OTHER, MINE]), _unreachable)
    )
    assert error_code(refused) == "UnsupportedOperation"
    stopped = _call("StopInstances", InstanceId=[OTHER])
    assert asyncio.run(gap.answer(stopped, _answering("<ok/>"))).ok


def test_an_instance_only_terminates_itself() -> None:
    """With an instance's credentials only that instance is ended; others are not concerned."""
    gap = SelfTerminationOnly()
    me = Caller("instance", MINE)
    both = _call("TerminateInstances", me, InstanceId=[MINE, OTHER])
    assert gap.wants(both)
    refused = asyncio.run(gap.answer(both, _unreachable))
    assert error_code(refused) == "UnauthorizedOperation"
    mine = _call("TerminateInstances", me, InstanceId=[MINE])
    assert asyncio.run(gap.answer(mine, _answering("<ok/>"))).ok
    assert not gap.wants(_call("TerminateInstances", InstanceId=[OTHER]))


def test_dry_run_of_a_change_does_nothing() -> None:
    """DryRun is answered with DryRunOperation; reads and CreateFleet are not concerned."""
    gap = DryRunAnswered()
    request = _call("TerminateInstances", InstanceId=[MINE], DryRun="true")
    assert gap.wants(request)
    answer = asyncio.run(gap.answer(request, _unreachable))
    assert (answer.status, error_code(answer)) == (412, "DryRunOperation")
    assert not gap.wants(_call("DescribeInstances", DryRun="true"))
    assert not gap.wants(_call("CreateFleet", DryRun="true"))
    assert not gap.wants(_call("TerminateInstances", DryRun="false"))


def test_listeners_hear_of_changes_to_instances() -> None:
    """Who subscribes is told which instances were terminated, once it has happened."""
    book = InstanceBook()
    heard: list[tuple[str, tuple[str, ...]]] = []
    book.subscribe(lambda change, ids, _: heard.append((change, ids)))
    gap = InstanceChangesTold(book)
    request = _call("TerminateInstances", InstanceId=[MINE])
    body = f"<r><item><instanceId>{MINE}</instanceId></item></r>"
    asyncio.run(gap.answer(request, _answering(body)))
    assert heard == [("terminated", (MINE,))]
    assert request.notes == {"instances": [MINE]}
