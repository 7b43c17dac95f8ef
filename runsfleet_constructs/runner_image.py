"""The machine image that instances start from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import aws_cdk as cdk
from constructs import Construct

from runsfleet_constructs._checks import check_root_device

_RESOLVE = "resolve:ssm:"


class RunnerPlatform(StrEnum):
    """A system and processor that instances run on."""

    LINUX_ARM64 = "linux-arm64"
    LINUX_X64 = "linux-x64"


@dataclass(frozen=True, kw_only=True)
class RunnerImage:
    """An image for each platform.

    The default is Ubuntu 24.04, found by its public parameter when an instance is launched: no
    look-up at synthesis, and each launch has the newest. Any image will do that boots with
    cloud-init and has, or can install, Python 3.11 or newer.

    Attributes:
        linux_arm64: AMI id or ``resolve:ssm:`` and a parameter's name, for arm64.
        linux_x64: The same for x86_64.
        root_device: Name of the root device in both.

    Example:
        >>> RunnerImage.ubuntu_24_04().root_device
        '/dev/sda1'
    """

    linux_arm64: str
    linux_x64: str
    root_device: str

    @classmethod
    def ubuntu_24_04(cls) -> RunnerImage:
        """Canonical's Ubuntu 24.04, the system of GitHub's own ``ubuntu-24.04`` runners."""
        path = "/aws/service/canonical/ubuntu/server/24.04/stable/current"
        return cls.from_ssm_parameters(
            linux_arm64=f"{path}/arm64/hvm/ebs-gp3/ami-id",
            linux_x64=f"{path}/amd64/hvm/ebs-gp3/ami-id",
            root_device="/dev/sda1",
        )

    @classmethod
    def amazon_linux_2023(cls) -> RunnerImage:
        """Amazon Linux 2023: boots fastest; installs a newer Python at each start."""
        path = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default"
        return cls.from_ssm_parameters(
            linux_arm64=f"{path}-arm64", linux_x64=f"{path}-x86_64", root_device="/dev/xvda"
        )

    @classmethod
    def from_ssm_parameters(
        cls, *, linux_arm64: str, linux_x64: str, root_device: str
    ) -> RunnerImage:
        """Find the image by parameters that are read at each launch.

        Args:
            linux_arm64: Name of the parameter with the AMI id for arm64.
            linux_x64: Name of the parameter with the AMI id for x86_64.
            root_device: Name of the root device in both, such as ``/dev/sda1``.
        """
        return cls(
            linux_arm64=f"{_RESOLVE}{linux_arm64}",
            linux_x64=f"{_RESOLVE}{linux_x64}",
            root_device=root_device,
        )

    def __post_init__(self) -> None:
        """Check the image as soon as it is written."""
        for image in (self.linux_arm64, self.linux_x64):
            if not cdk.Token.is_unresolved(image) and not image.startswith(("ami-", _RESOLVE)):
                raise ValueError(
                    f"an image must be an AMI id or {_RESOLVE}PARAMETER, got {image!r}; "
                    "use RunnerImage.from_ssm_parameters for names of parameters"
                )
        check_root_device(self.root_device)

    def reference(self, platform: RunnerPlatform) -> str:
        """Return the image of a platform, as a launch template takes it."""
        return self.linux_arm64 if platform is RunnerPlatform.LINUX_ARM64 else self.linux_x64

    def parameter_arns(self, scope: Construct) -> list[str]:
        """Return the parameters that whoever launches must be able to read."""
        return image_parameter_arns(scope, [self.linux_arm64, self.linux_x64])


def image_parameter_arns(scope: Construct, references: list[str]) -> list[str]:
    """Return the ARNs of the parameters among image references.

    Args:
        scope: Any construct of the stack whose account and region hold them.
        references: AMI ids and ``resolve:ssm:`` references.
    """
    stack = cdk.Stack.of(scope)
    arns: list[str] = []
    for reference in references:
        if cdk.Token.is_unresolved(reference) or not reference.startswith(_RESOLVE):
            continue
        # NAME, NAME:VERSION or NAME:LABEL
        name = reference.removeprefix(_RESOLVE).split(":")[0]
        public = name.startswith("/aws/service/")
        arns.append(
            stack.format_arn(
                service="ssm",
                # public parameters belong to no account
                account="" if public else None,
                resource="parameter",
                resource_name=name.removeprefix("/"),
            )
        )
    return arns
