"""What a fleet is made of, as its stack tells the cost report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runsfleet_runtime.contract._codec import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory(Message):
    """What a fleet is made of, beside its instances and what its housekeeping function knows.

    Kept as a parameter of Parameter Store. The housekeeping function is not in it: its variables
    name the parameter, and CloudFormation makes no two things that name each other. It knows
    itself from what Lambda tells it.

    Attributes:
        functions: Memory in MiB by name of each other function.
        log_groups: Names of all other log groups.
        tables: Tables that the function's variables do not name.
        secrets: How many secrets there are in Secrets Manager.
        alarms: How many alarms there are; a composite one counts as the five it is billed as.
        version: Version of this form.
    """

    VERSION: ClassVar[int] = 1

    functions: dict[str, int]
    log_groups: tuple[str, ...]
    tables: tuple[str, ...]
    secrets: int
    alarms: int
    version: int = 1
