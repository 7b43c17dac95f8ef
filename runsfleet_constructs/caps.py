"""How many runners may exist at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from runsfleet_constructs._checks import Findings


@dataclass(frozen=True, kw_only=True)
class RunnerCaps:
    """Caps on runners that exist at once; by default there is none.

    A job that finds its cap reached waits its turn, on the record and without a try being spent,
    and is launched when a runner has ended.

    Attributes:
        max_runners: Most runners of the fleet.
        max_runners_per_owner: Most runners of one organisation or user.
        max_runners_per_repository: Most runners of one repository.

    Raises:
        ValueError: With all that is wrong, if a cap is below 1.

    Example:
        >>> RunnerCaps(max_runners=200, max_runners_per_repository=50).max_runners
        200
    """

    max_runners: int | None = None
    max_runners_per_owner: int | None = None
    max_runners_per_repository: int | None = None

    def __post_init__(self) -> None:
        """Check the caps as soon as they are written."""
        findings = Findings()
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                findings.at_least(field.name, value, 1, "leave it out for no cap")
        findings.raise_all()

    def environment(self) -> dict[str, Any]:
        """Return the fields that tell the runtime of the caps."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
