"""Which offerings a launch asks for, and what EC2's answer says of each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.circuit_breaker.model import Offering
from runsfleet_runtime.contract.environment import LaunchTarget
from runsfleet_runtime.fleet.plan import (
    MAX_OVERRIDES,
    CapacityError,
    CapacityType,
    LaunchedInstance,
    LaunchRequest,
    LaunchResult,
    client_token,
    judge,
)
from runsfleet_runtime.labels import Accepted, LabelSettings, resolve

SPOT, ON_DEMAND = CapacityType.SPOT, CapacityType.ON_DEMAND
ACCEPTED = resolve(["runs-fleet/runner=2cpu-linux-arm64"], LabelSettings())
assert isinstance(ACCEPTED, Accepted)

REQUEST = LaunchRequest(
    spec=ACCEPTED.spec,
    count=3,
    capacity=SPOT,
    instance_types=("t4g.medium", "c7g.large"),
    subnet_ids=("subnet-a", "subnet-b"),
    zones={"subnet-a": "a", "subnet-b": "b"},
    target=LaunchTarget(
        platform="linux-arm64",
        launch_template_id="lt-1",
        launch_template_version="7",
        root_device="/dev/sda1",
    ),
    image=None,
    client_token=client_token(["a", "b", "c"], SPOT),
)
NO_CAPACITY = "InsufficientInstanceCapacity"


def offering(kind: str, zone: str) -> Offering:
    """Return a spot offering."""
    return Offering(capacity_type="spot", instance_type=kind, availability_zone=zone)


def made(kind: str, zone: str) -> LaunchedInstance:
    """Return an instance of an offering."""
    return LaunchedInstance(
        instance_id="i-1", instance_type=kind, availability_zone=zone, capacity=SPOT
    )


def error(code: str = NO_CAPACITY, kind: str = "", zone: str = "") -> CapacityError:
    """Return an error, of an offering or of none."""
    return CapacityError(
        code=code, message="", instance_type=kind, availability_zone=zone, capacity=SPOT
    )


def test_what_is_left_out_is_not_asked_for() -> None:
    """A type is left out in one zone, or whole, and all can be."""
    open_now = frozenset({offering("t4g.medium", "a")})
    assert REQUEST.without(open_now).overrides() == [
        ("t4g.medium", "subnet-b"),
        ("c7g.large", "subnet-a"),
        ("c7g.large", "subnet-b"),
    ]
    assert REQUEST.without(frozenset(REQUEST.offerings())).overrides() == []
    dearer = replace(REQUEST, capacity=ON_DEMAND).without(open_now)
    assert len(dearer.overrides()) == 4


def test_subnet_of_an_unknown_zone_is_always_asked_for() -> None:
    """The breaker knows nothing of it, so nothing can be held against it."""
    request = replace(REQUEST, zones={"subnet-a": "a"})
    assert request.offerings() == [offering(kind, "a") for kind in REQUEST.instance_types]
    left = request.without(frozenset(request.offerings()))
    assert left.overrides() == [("t4g.medium", "subnet-b"), ("c7g.large", "subnet-b")]


def test_two_subnets_of_a_zone_take_turns() -> None:
    """EC2 refuses two pairs of a type and zone; over many launches both subnets are used."""
    crowded = replace(
        REQUEST,
        subnet_ids=("subnet-a", "subnet-b", "subnet-c"),
        zones={"subnet-a": "a", "subnet-b": "b", "subnet-c": "a"},
    )
    used = set()
    for number in range(20):
        request = replace(crowded, client_token=client_token([str(number)], SPOT))
        subnets = [subnet for _, subnet in request.overrides()]
        assert len(subnets) == 4
        assert request.overrides() == request.overrides()
        used |= set(subnets)
    assert used == {"subnet-a", "subnet-b", "subnet-c"}


@given(st.data())
def test_whatever_is_left_out_every_zone_stays(data: st.DataObject) -> None:
    """Among many types and zones the cut to EC2's quota takes no zone its last pair."""
    zones = [f"z{n}" for n in range(data.draw(st.integers(1, 8)))]
    kinds = tuple(f"c{n}.large" for n in range(data.draw(st.integers(1, 120))))
    request = replace(
        REQUEST, instance_types=kinds, subnet_ids=tuple(zones), zones={z: z for z in zones}
    )
    # in each zone the first so many types are open
    depth = {zone: data.draw(st.integers(0, len(kinds))) for zone in zones}
    left_out = frozenset(offering(k, z) for z in zones for k in kinds[: depth[z]])
    pairs = request.without(left_out).overrides()
    assert len(pairs) <= MAX_OVERRIDES
    assert len(set(pairs)) == len(pairs)
    assert not {offering(*pair) for pair in pairs} & left_out
    assert {zone for _, zone in pairs} == {z for z in zones if depth[z] < len(kinds)}
    assert pairs == sorted(pairs, key=lambda pair: kinds.index(pair[0]))


def test_an_offering_that_delivered_did_not_fail() -> None:
    """In part launched: only what had nothing counts against its offering."""
    result = LaunchResult(
        (made("t4g.medium", "a"),),
        (error(kind="t4g.medium", zone="a"), error(kind="c7g.large", zone="b")),
    )
    verdict = judge(REQUEST, result)
    assert verdict.delivered == (offering("t4g.medium", "a"),)
    assert verdict.lacking == (offering("c7g.large", "b"),)


def test_an_error_without_a_name_speaks_of_all_if_nothing_came() -> None:
    """The call as a whole had no capacity: all that was asked for lacks, what was left out not."""
    open_now = frozenset({offering("t4g.medium", "a")})
    request = REQUEST.without(open_now)
    assert set(judge(request, LaunchResult((), (error(),))).lacking) == (
        set(REQUEST.offerings()) - open_now
    )
    in_part = LaunchResult((made("c7g.large", "a"),), (error("UnfulfillableCapacity"),))
    assert judge(request, in_part).lacking == ()


@pytest.mark.parametrize(
    "code",
    [
        "MaxSpotInstanceCountExceeded",
        "VcpuLimitExceeded",
        "InsufficientFreeAddressesInSubnet",
        "TargetCapacityLimitExceededException",
    ],
)
def test_limits_of_the_account_are_no_offerings_fault(code: str) -> None:
    """They hold for every type alike: to leave one out would not help."""
    result = LaunchResult((), (error(code, "t4g.medium", "a"), error(code)))
    assert judge(REQUEST, result).lacking == ()


@pytest.mark.parametrize("code", ["Unsupported", "InvalidFleetConfiguration"])
def test_type_that_a_zone_does_not_have_is_learnt(code: str) -> None:
    """It counts beside instances; alone, the request itself may be wrong."""
    errors = (error(code, "c7g.large", "b"),)
    assert judge(REQUEST, LaunchResult((), errors)).lacking == ()
    beside = LaunchResult((made("t4g.medium", "a"),), errors)
    assert judge(REQUEST, beside).lacking == (offering("c7g.large", "b"),)


def test_failed_call_says_nothing() -> None:
    """A throttled call neither delivered nor lacked."""
    verdict = judge(REQUEST, LaunchResult(failed="RequestLimitExceeded"))
    assert (verdict.delivered, verdict.lacking) == ((), ())
