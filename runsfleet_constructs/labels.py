"""What a fleet's labels are resolved against."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LabelAlias:
    """Lets the fleet take over a label that workflows already use.

    Attributes:
        match: The label, or with ``pattern`` a regular expression that the whole label must match.
        spec: What it stands for, in the label grammar, such as ``runner=4cpu-linux-arm64``.
        pattern: Whether ``match`` is a regular expression.

    Example:
        >>> LabelAlias(match="ubuntu-arm-4", spec="runner=4cpu-linux-arm64").match
        'ubuntu-arm-4'
    """

    match: str
    spec: str
    pattern: bool = False

    def __post_init__(self) -> None:
        """Check the alias as soon as it is written."""
        if not self.match or not self.spec:
            raise ValueError(
                f"a label alias needs match and spec, got match={self.match!r} spec={self.spec!r}"
            )
        if self.pattern:
            try:
                re.compile(self.match)
            except re.error as error:
                raise ValueError(
                    f"match must be a regular expression, got {self.match!r} ({error}); "
                    "drop pattern=True if it is the label itself"
                ) from None


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """What labels may ask for.

    Attributes:
        aliases: Tried in order, the first that matches wins; the fleet's own labels come before.
        images: Name of an ``image=`` label -> AMI id, or ``resolve:ssm:`` and a parameter's name.
        max_cpu: Most vCPUs that a label may ask for.
    """

    aliases: Sequence[LabelAlias] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    max_cpu: int = 96

    def __post_init__(self) -> None:
        """Check the options as soon as they are written."""
        if not 1 <= self.max_cpu <= 192:  # noqa: PLR2004  # largest size of the families in use
            raise ValueError(f"max_cpu must be between 1 and 192, got {self.max_cpu}")
        for name, image in self.images.items():
            if not re.fullmatch(r"ami-[0-9a-f]{8,17}|resolve:ssm:[A-Za-z0-9/_.:-]+", image):
                raise ValueError(
                    f"image {name!r} must be an AMI id or resolve:ssm:PARAMETER, got {image!r}"
                )

    def to_environment(self) -> dict[str, Any]:
        """Return the fields of the runtime's ``LabelEnvironment`` that these options set."""
        return {
            "label_aliases": tuple(
                {"match": a.match, "pattern": a.pattern, "spec": a.spec} for a in self.aliases
            ),
            "images": dict(self.images),
            "max_cpu": self.max_cpu,
        }
