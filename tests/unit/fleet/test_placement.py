"""``private=``, ``disk=`` and ``image=``: from the label to the very CreateFleet request."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.session import get_session
from botocore.validate import validate_parameters

from runsfleet_runtime.composition import label_settings
from runsfleet_runtime.contract.environment import (
    DispatchEnvironment,
    LaunchTarget,
    OfferedImage,
)
from runsfleet_runtime.fleet.catalogue import candidates
from runsfleet_runtime.fleet.ec2 import Ec2Fleet
from runsfleet_runtime.labels import Accepted, Refused, resolve
from tests.unit.jobs.test_dispatch import World, job

PUBLIC, PRIVATE = ("subnet-a", "subnet-b"), ("subnet-p",)
IMAGES = (
    OfferedImage(name="al2023", reference="ami-al", root_device="/dev/xvda"),
    OfferedImage(name="same", reference="ami-same", platform="linux-x64", min_disk_gib=60),
    OfferedImage(
        name="win", reference="resolve:ssm:/own/windows", platform="windows-x64", min_disk_gib=80
    ),
)


def environment(*, private: bool = True) -> DispatchEnvironment:
    """Return dispatch's environment, read from variables as the function reads it."""
    targets = tuple(
        LaunchTarget(
            platform=platform,
            launch_template_id=f"lt-{number}",
            launch_template_version="1",
            root_device=root,
        )
        for number, (platform, root) in enumerate(
            {
                "linux-arm64": "/dev/sda1",
                "linux-x64": "/dev/sda1",
                "windows-x64": "/dev/sda1",
            }.items()
        )
    )
    written = DispatchEnvironment(
        fleet="dev",
        platforms=tuple(target.platform for target in targets),
        private=private,
        images=IMAGES,
        github_app_secret="ssm:/app",
        jobs_table="jobs",
        instances_table="instances",
        jobs_queue_url="https://sqs/jobs",
        instance_role_id="AROA",
        circuit_table="circuit",
        audit_table="audit",
        slots_table="slots",
        launch_targets=targets,
        subnet_ids=PUBLIC,
        private_subnet_ids=PRIVATE if private else (),
    ).to_environ()
    return DispatchEnvironment.from_environ(written)


class Ec2:
    """Records CreateFleet, checked against EC2's own model."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self._model = get_session().get_service_model("ec2").operation_model("CreateFleet")

    def create_fleet(self, **parameters: Any) -> dict[str, Any]:
        assert self._model.input_shape is not None
        validate_parameters(parameters, self._model.input_shape)
        self.requests.append(parameters)
        return {"Instances": [], "Errors": []}


def request_for(label: str) -> dict[str, Any]:
    """Return the CreateFleet request of one job with that label."""
    told = environment()
    world = World()
    world.dispatch(
        job(1, label),
        labels=label_settings(told, region="eu-central-1"),
        targets={target.platform: target for target in told.launch_targets},
        subnet_ids=told.subnet_ids,
        private_subnet_ids=told.private_subnet_ids,
        images={image.name: image for image in told.images},
    )
    (launched,) = world.requests
    ec2 = Ec2()
    Ec2Fleet(ec2, fleet="dev").launch(launched)
    (request,) = ec2.requests
    return request


def overrides(label: str) -> list[dict[str, Any]]:
    """Return the overrides of that request."""
    (config,) = request_for(label)["LaunchTemplateConfigs"]
    return list(config["Overrides"])


def root(override: dict[str, Any]) -> tuple[str, int]:
    """Return name and size of the one volume of an override."""
    (volume,) = [d for d in override["BlockDeviceMappings"] if "Ebs" in d]
    assert volume["Ebs"]["Encrypted"] is True
    return volume["DeviceName"], volume["Ebs"]["VolumeSize"]


@pytest.mark.parametrize(
    ("label", "subnets"),
    [
        ("runs-fleet/cpu=2", PUBLIC),
        ("runs-fleet/cpu=2/private=false", PUBLIC),
        ("runs-fleet/cpu=2/private=true", PRIVATE),
        ("runs-fleet/runner=4cpu-windows-x64/private=true", PRIVATE),
    ],
)
def test_private_jobs_are_placed_in_private_subnets_alone(
    label: str, subnets: tuple[str, ...]
) -> None:
    """No override of a private job names a public subnet, and the other way round."""
    assert {override["SubnetId"] for override in overrides(label)} == set(subnets)


def test_private_is_refused_where_there_is_no_private_subnet() -> None:
    """A fleet without private subnets says so at the webhook and launches nothing public."""
    settings = label_settings(environment(private=False), region="eu-central-1")
    outcome = resolve(["runs-fleet/cpu=2/private=true"], settings)
    assert isinstance(outcome, Refused)
    assert str(outcome.findings[0]).endswith("this fleet has no private subnets; drop private=true")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("runs-fleet/runner=4cpu-linux-x64", ("/dev/sda1", 50)),
        ("runs-fleet/runner=4cpu-linux-x64/disk=120", ("/dev/sda1", 120)),
        ("runs-fleet/runner=4cpu-linux-x64+large-disk", ("/dev/sda1", 200)),
        ("runs-fleet/runner=4cpu-windows-x64", ("/dev/sda1", 50)),
        ("runs-fleet/runner=4cpu-windows-x64/disk=150", ("/dev/sda1", 150)),
        ("runs-fleet/arch=x64/image=same", ("/dev/sda1", 60)),
        ("runs-fleet/arch=arm64/image=al2023/disk=90", ("/dev/xvda", 90)),
    ],
)
def test_disk_resizes_the_real_root_device(label: str, expected: tuple[str, int]) -> None:
    """The size goes to the root device of the image that is launched, whatever its name."""
    assert {root(override) for override in overrides(label)} == {expected}


def test_no_second_disk_beside_a_root_of_another_name() -> None:
    """The device that only the template's image has is taken away, not left as an empty disk."""
    for override in overrides("runs-fleet/image=al2023"):
        others = [d for d in override["BlockDeviceMappings"] if "Ebs" not in d]
        assert others == [{"DeviceName": "/dev/sda1", "NoDevice": ""}]
    for override in overrides("runs-fleet/cpu=2"):
        assert len(override["BlockDeviceMappings"]) == 1


@pytest.mark.parametrize(
    ("label", "image", "template"),
    [
        ("runs-fleet/cpu=2", None, "lt-0"),
        ("runs-fleet/image=same", "ami-same", "lt-1"),
        ("runs-fleet/image=win", "resolve:ssm:/own/windows", "lt-2"),
    ],
)
def test_image_is_launched_from_the_template_of_its_platform(
    label: str, image: str | None, template: str
) -> None:
    """An image brings its platform: template, types and image of the request agree."""
    request = request_for(label)
    (config,) = request["LaunchTemplateConfigs"]
    assert config["LaunchTemplateSpecification"]["LaunchTemplateId"] == template
    assert {override.get("ImageId") for override in config["Overrides"]} == {image}
    outcome = resolve([label], label_settings(environment(), region="eu-central-1"))
    assert isinstance(outcome, Accepted)
    types = {kind.name for kind in candidates(outcome.spec)}
    assert {override["InstanceType"] for override in config["Overrides"]} <= types


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("runs-fleet/runner=4cpu-linux-arm64/image=same", "is arm64"),
        ("runs-fleet/os=linux/image=win", "is linux"),
        ("runs-fleet/image=win/disk=50", "the image alone takes 80 GiB"),
        ("runs-fleet/image=none", "image=none"),
    ],
)
def test_image_that_does_not_fit_is_refused(label: str, reason: str) -> None:
    """An image of another platform, too small a disk and an unknown name launch nothing."""
    outcome = resolve([label], label_settings(environment(), region="eu-central-1"))
    assert isinstance(outcome, Refused)
    assert reason in "\n".join(map(str, outcome.findings))
