"""What a fleet's labels are resolved against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runsfleet_constructs._checks import check_between, check_root_device
from runsfleet_runtime.contract.environment import OfferedImage
from runsfleet_runtime.labels import settings as grammar
from runsfleet_runtime.labels.named import CPU_COUNTS

MOST_CPU = max(CPU_COUNTS)
"""vCPUs of the largest instance of the catalogue."""


@dataclass(frozen=True, kw_only=True)
class LabelAlias:
    """Lets the fleet take over a label that workflows already use.

    Attributes:
        match: The label, or with ``pattern`` a regular expression, anchored by ``^`` and ``$``.
        spec: What it stands for, in the label grammar, such as ``runner=4cpu-linux-arm64``.
        pattern: Whether ``match`` is a regular expression.

    Example:
        >>> LabelAlias(match="ubuntu-arm-4", spec="runner=4cpu-linux-arm64").match
        'ubuntu-arm-4'
    """

    match: str
    spec: str
    pattern: bool = False


@dataclass(frozen=True, kw_only=True)
class LabelImage:
    """An image that labels may ask for by ``image=``.

    Attributes:
        reference: AMI id, or ``resolve:ssm:`` and the name of a parameter.
        platform: What it runs on, such as ``linux-arm64``; ``None`` leaves that unchecked.
        min_disk_gib: Size of its root snapshot in GiB; 0 when it is the default image's.
        root_device: Name of its root device, which a label's ``disk=`` resizes; ``None`` when it is
            that of the platform's default image. ``aws ec2 describe-images`` shows it as
            ``RootDeviceName``.
    """

    reference: str
    platform: str | None = None
    min_disk_gib: int = 0
    root_device: str | None = None

    def __post_init__(self) -> None:
        """Check the image as soon as it is written."""
        if not self.reference.startswith(("ami-", "resolve:ssm:")):
            raise ValueError(
                f"reference must be an AMI id or resolve:ssm:PARAMETER, got {self.reference!r}"
            )
        if self.root_device is not None:
            check_root_device(self.root_device)


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """What labels may ask for.

    Attributes:
        aliases: Tried in order, the first that matches wins; the fleet's own labels come before.
        images: Images by the name that labels call them.
        max_cpu: Most vCPUs that a label may ask for; by default, and at most, what the largest
            instance of the catalogue has.

    Raises:
        LabelSettingsError: If an alias or image could not be used; every finding at once.
        ValueError: If there is no instance with ``max_cpu``.

    Example:
        >>> LabelOptions(images={"gpu": LabelImage(reference="ami-0123456789abcdef0")}).max_cpu
        96
    """

    aliases: Sequence[LabelAlias] = ()
    images: Mapping[str, LabelImage] = field(default_factory=dict)
    max_cpu: int = MOST_CPU

    def __post_init__(self) -> None:
        """Check the options as soon as they are written, with the code that reads labels."""
        check_between("max_cpu", self.max_cpu, 1, MOST_CPU, f"leave it out for {MOST_CPU}")
        grammar.LabelSettings(
            aliases=tuple(grammar.LabelAlias(a.match, a.spec, a.pattern) for a in self.aliases),
            images={
                name: grammar.LabelImage(image.reference, image.platform, image.min_disk_gib)
                for name, image in self.images.items()
            },
            limits=grammar.LabelLimits(max_cpu=self.max_cpu),
        )

    def to_environment(self) -> dict[str, Any]:
        """Return the fields of the runtime's ``LabelEnvironment`` that these options set."""
        return {
            "label_aliases": tuple(
                {"match": a.match, "pattern": a.pattern, "spec": a.spec} for a in self.aliases
            ),
            "images": tuple(
                OfferedImage(
                    name=name,
                    reference=image.reference,
                    platform=image.platform,
                    min_disk_gib=image.min_disk_gib,
                    root_device=image.root_device,
                )
                for name, image in self.images.items()
            ),
            "max_cpu": self.max_cpu,
        }
