"""EC2: the very request of a launch, and what its answers mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.session import get_session
from botocore.validate import validate_parameters

from runsfleet_runtime.contract.environment import LaunchTarget, OfferedImage
from runsfleet_runtime.fleet.ec2 import Ec2Fleet
from runsfleet_runtime.fleet.plan import (
    MAX_OVERRIDES,
    CapacityType,
    LaunchRequest,
    client_token,
)
from runsfleet_runtime.labels import Accepted, LabelSettings, RunnerSpec, resolve


def spec(label: str = "runs-fleet/runner=2cpu-linux-arm64") -> RunnerSpec:
    """Return the spec of a label."""
    outcome = resolve([label], LabelSettings())
    assert isinstance(outcome, Accepted)
    return outcome.spec


REQUEST = LaunchRequest(
    spec=spec(),
    count=3,
    capacity=CapacityType.SPOT,
    instance_types=("t4g.medium", "c7g.large"),
    subnet_ids=("subnet-a", "subnet-b"),
    target=LaunchTarget(
        platform="linux-arm64",
        launch_template_id="lt-1",
        launch_template_version="7",
        root_device="/dev/sda1",
    ),
    image=None,
    client_token=client_token(["a", "b", "c"], CapacityType.SPOT),
)


class Client:
    """Records the requests; checks each against EC2's own model; answers as told."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer or {"Instances": [], "Errors": []}
        self.requests: list[dict[str, Any]] = []
        self.gone: set[str] = set()
        self._model = get_session().get_service_model("ec2")

    def create_fleet(self, **parameters: Any) -> Any:
        shape = self._model.operation_model("CreateFleet").input_shape
        assert shape is not None
        validate_parameters(parameters, shape)
        self.requests.append(parameters)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def terminate_instances(self, *, InstanceIds: list[str]) -> Any:  # noqa: N803 - EC2's name
        self.requests.append({"InstanceIds": InstanceIds})
        if self.gone & set(InstanceIds):
            raise error("InvalidInstanceID.NotFound")
        if isinstance(self.answer, Exception):
            raise self.answer
        return {}


def error(code: str) -> ClientError:
    """Return EC2's error of that code."""
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "CreateFleet")


def test_spot_request_is_instant_over_every_type_and_subnet() -> None:
    """The request spells its type, strategy, token and tags; EC2's defaults would be wrong."""
    client = Client()
    Ec2Fleet(client, fleet="dev").launch(REQUEST)
    (request,) = client.requests
    assert request["Type"] == "instant"
    assert request["SpotOptions"] == {"AllocationStrategy": "price-capacity-optimized"}
    assert request["TargetCapacitySpecification"] == {
        "TotalTargetCapacity": 3,
        "DefaultTargetCapacityType": "spot",
    }
    (config,) = request["LaunchTemplateConfigs"]
    pairs = [(o["InstanceType"], o["SubnetId"]) for o in config["Overrides"]]
    assert pairs == [(t, s) for t in REQUEST.instance_types for s in REQUEST.subnet_ids]
    assert len(request["ClientToken"]) == 64
    tagged = {t["ResourceType"]: t["Tags"] for t in request["TagSpecifications"]}
    assert set(tagged) == {"fleet", "instance", "volume", "network-interface"}
    for tags in tagged.values():
        assert {"Key": "runs-fleet:managed", "Value": "true"} in tags
        assert {"Key": "runs-fleet:fleet", "Value": "dev"} in tags


def test_root_volume_has_the_size_of_the_spec_and_is_encrypted() -> None:
    """A label's disk resizes the root device itself, not a second disk beside it."""
    client = Client()
    large = replace(REQUEST, spec=spec("runs-fleet/runner=2cpu-linux-arm64/disk=200"))
    Ec2Fleet(client, fleet="dev").launch(large)
    for override in client.requests[0]["LaunchTemplateConfigs"][0]["Overrides"]:
        (mapping,) = override["BlockDeviceMappings"]
        assert mapping["DeviceName"] == "/dev/sda1"
        assert mapping["Ebs"]["VolumeSize"] == 200
        assert mapping["Ebs"]["Encrypted"] is True


def test_on_demand_follows_the_order_of_preference() -> None:
    """On-demand takes the first choice first: its priorities ascend with the list."""
    client = Client()
    Ec2Fleet(client, fleet="dev").launch(replace(REQUEST, capacity=CapacityType.ON_DEMAND))
    (request,) = client.requests
    assert "SpotOptions" not in request
    assert request["OnDemandOptions"] == {"AllocationStrategy": "prioritized"}
    overrides = request["LaunchTemplateConfigs"][0]["Overrides"]
    assert [o["Priority"] for o in overrides] == [0.0, 0.0, 1.0, 1.0]


def test_image_and_pool_are_passed_on() -> None:
    """An image of a label replaces the template's, and pool instances carry their pool's tag."""
    client = Client()
    image = OfferedImage(name="own", reference="ami-1")
    pooled = replace(REQUEST, image=image, spec=spec("runs-fleet/cpu=2/pool=default"))
    Ec2Fleet(client, fleet="dev").launch(pooled)
    (request,) = client.requests
    assert request["LaunchTemplateConfigs"][0]["Overrides"][0]["ImageId"] == "ami-1"
    assert {"Key": "runs-fleet:pool", "Value": "default"} in request["TagSpecifications"][1]["Tags"]


def test_overrides_stay_within_the_quota() -> None:
    """More pairs than EC2 takes are cut from the end: the best types stay."""
    many = replace(
        REQUEST,
        instance_types=tuple(f"t{n}.large" for n in range(100)),
        subnet_ids=("a", "b", "c", "d"),
    )
    assert len(many.overrides()) == MAX_OVERRIDES
    assert many.overrides()[0] == ("t0.large", "a")


def test_ids_count_and_errors_may_stand_beside_them() -> None:
    """A partial answer gives the instances that there are, with type and zone."""
    override = {"InstanceType": "c7g.large", "AvailabilityZone": "eu-central-1b"}
    answer = {
        "Instances": [
            {
                "InstanceIds": ["i-1", "i-2"],
                "InstanceType": "t4g.medium",
                "AvailabilityZone": "eu-central-1a",
            }
        ],
        "Errors": [
            {
                "ErrorCode": "InsufficientInstanceCapacity",
                "LaunchTemplateAndOverrides": {"Overrides": override},
            }
        ],
    }
    result = Ec2Fleet(Client(answer), fleet="dev").launch(REQUEST)
    assert [i.instance_id for i in result.instances] == ["i-1", "i-2"]
    assert result.instances[0].availability_zone == "eu-central-1a"
    (lacking,) = result.errors
    assert (lacking.instance_type, lacking.availability_zone) == ("c7g.large", "eu-central-1b")
    assert not result.failed


def test_a_subnet_stands_for_its_zone() -> None:
    """Where EC2 names the subnet that was asked for, the zone is known from it."""
    answer = {
        "Instances": [
            {"InstanceIds": ["i-1"], "InstanceType": "t4g.medium", "SubnetId": "subnet-a"}
        ],
        "Errors": [
            {
                "ErrorCode": "InsufficientInstanceCapacity",
                "LaunchTemplateAndOverrides": {
                    "Overrides": {"InstanceType": "c7g.large", "SubnetId": subnet}
                },
            }
            for subnet in ("subnet-b", "subnet-c")
        ],
    }
    request = replace(REQUEST, zones={"subnet-a": "zone-a", "subnet-b": "zone-b"})
    result = Ec2Fleet(Client(answer), fleet="dev").launch(request)
    assert result.instances[0].availability_zone == "zone-a"
    assert [e.availability_zone for e in result.errors] == ["zone-b", "subnet-c"]


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded"])
def test_capacity_as_an_error_of_the_call_is_a_shortfall(code: str) -> None:
    """EC2 at times answers a lack of capacity by failing the call: on-demand may still do."""
    result = Ec2Fleet(Client(error(code)), fleet="dev").launch(REQUEST)
    assert (result.instances, result.failed) == ((), "")
    assert result.errors[0].code == code


@pytest.mark.parametrize(
    "failure",
    [
        error("RequestLimitExceeded"),
        error("UnauthorizedOperation"),
        ReadTimeoutError(endpoint_url="x"),
    ],
)
def test_any_other_error_is_a_failed_call(failure: Exception) -> None:
    """Throttles, refusals and timeouts are told as such; nothing is raised."""
    result = Ec2Fleet(Client(failure), fleet="dev").launch(REQUEST)
    assert result.failed
    assert result.errors == ()


def test_token_depends_on_claims_and_capacity_alone() -> None:
    """A repeated call has the same token; another claim or way of buying has another."""
    spot = client_token(["a", "b"], CapacityType.SPOT)
    assert spot == client_token(["b", "a"], CapacityType.SPOT)
    assert spot != client_token(["a", "b"], CapacityType.ON_DEMAND)
    assert spot != client_token(["a", "c"], CapacityType.SPOT)


def test_one_gone_instance_does_not_save_the_others() -> None:
    """Instances are terminated one by one: an unknown id fails only its own call."""
    client = Client()
    client.gone = {"i-2"}
    assert Ec2Fleet(client, fleet="dev").terminate(["i-1", "i-2", "i-3"])
    assert [r["InstanceIds"] for r in client.requests] == [["i-1"], ["i-2"], ["i-3"]]


def test_refused_termination_is_told() -> None:
    """A termination that is not certain is False."""
    assert not Ec2Fleet(Client(error("UnauthorizedOperation")), fleet="dev").terminate(["i-1"])
