"""The machine image that instances start from."""

from __future__ import annotations

import re
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
    WINDOWS_X64 = "windows-x64"


@dataclass(frozen=True, kw_only=True)
class WindowsPython:
    """A Python that Windows instances install when their image has none from 3.11 on.

    Attributes:
        url: Where it is: a ``.tar.gz``, ``.zip`` or ``.nupkg`` that holds ``python.exe`` at its
            top, in ``python`` or in ``tools``. Not Python's embeddable package, which finds no
            modules but its own.
        sha256: What the file's SHA-256 must be, as 64 hexadecimal digits.

    Example:
        >>> WindowsPython(url="https://files.example.com/python.zip", sha256="0" * 64).url
        'https://files.example.com/python.zip'
    """

    url: str
    sha256: str

    def __post_init__(self) -> None:
        """Check it as soon as it is written."""
        if not cdk.Token.is_unresolved(self.url) and not self.url.startswith("https://"):
            raise ValueError(f"url must be an https address, got {self.url!r}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(
                f"sha256 must be 64 hexadecimal digits in lower case, got {self.sha256!r}; "
                "certutil -hashfile FILE SHA256 or sha256sum shows it"
            )


WINDOWS_PYTHON = WindowsPython(
    url=(
        "https://github.com/astral-sh/python-build-standalone/releases/download/20260814/"
        "cpython-3.13.15%2B20260814-x86_64-pc-windows-msvc-install_only_stripped.tar.gz"
    ),
    sha256="07c977bbe4abad07e3bbc314608633e6c74eab482a7bae81f4361cda970b45e6",
)
"""CPython as the project python-build-standalone builds it, from a host that runners need anyway.
The digest is the one that uv pins (crates/uv-python/download-metadata.json)."""

WINDOWS_SERVER_2022 = (
    f"{_RESOLVE}/aws/service/ami-windows-latest/Windows_Server-2022-English-Full-Base"
)
"""Amazon's newest image of Windows Server 2022 with a desktop, found at each launch."""


@dataclass(frozen=True, kw_only=True)
class RunnerImage:
    """An image for each platform.

    The default is Ubuntu 24.04, found by its public parameter when an instance is launched: no
    look-up at synthesis, and each launch has the newest. Any image will do that boots with
    cloud-init and has, or can install, Python 3.11 or newer.

    Windows is offered too unless ``windows_x64`` is ``None``: a launch template costs nothing. Its
    image needs EC2Launch v2 and the AWS Tools for PowerShell, as Amazon's have.

    Attributes:
        linux_arm64: AMI id or ``resolve:ssm:`` and a parameter's name, for arm64.
        linux_x64: The same for x86_64.
        root_device: Name of the root device in both.
        windows_x64: The same for Windows; default Amazon's Windows Server 2022. ``None`` for a
            fleet without Windows, which refuses such labels.
        windows_root_device: Name of the root device in that.
        windows_python: What Windows instances install when their image has no Python from 3.11 on;
            ``None`` when the image is sure to have one.

    Example:
        >>> RunnerImage.ubuntu_24_04().root_device
        '/dev/sda1'
    """

    linux_arm64: str
    linux_x64: str
    root_device: str
    windows_x64: str | None = WINDOWS_SERVER_2022
    windows_root_device: str = "/dev/sda1"
    windows_python: WindowsPython | None = WINDOWS_PYTHON

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
        for image in self._references.values():
            if not cdk.Token.is_unresolved(image) and not image.startswith(("ami-", _RESOLVE)):
                raise ValueError(
                    f"an image must be an AMI id or {_RESOLVE}PARAMETER, got {image!r}; "
                    "use RunnerImage.from_ssm_parameters for names of parameters"
                )
        check_root_device(self.root_device)
        check_root_device(self.windows_root_device)

    @property
    def _references(self) -> dict[RunnerPlatform, str]:
        found = {
            RunnerPlatform.LINUX_ARM64: self.linux_arm64,
            RunnerPlatform.LINUX_X64: self.linux_x64,
        }
        if self.windows_x64 is not None:
            found[RunnerPlatform.WINDOWS_X64] = self.windows_x64
        return found

    @property
    def platforms(self) -> tuple[RunnerPlatform, ...]:
        """The platforms that there is an image for."""
        return tuple(self._references)

    def reference(self, platform: RunnerPlatform) -> str:
        """Return the image of a platform, as a launch template takes it."""
        return self._references[platform]

    def root_device_of(self, platform: RunnerPlatform) -> str:
        """Return the name of the root device of a platform's image."""
        is_windows = platform is RunnerPlatform.WINDOWS_X64
        return self.windows_root_device if is_windows else self.root_device

    def parameter_arns(self, scope: Construct) -> list[str]:
        """Return the parameters that whoever launches must be able to read."""
        return image_parameter_arns(scope, list(self._references.values()))


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
