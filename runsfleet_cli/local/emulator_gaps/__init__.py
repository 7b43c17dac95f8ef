"""The one place for what the emulator (MiniStack 1.5.33) lacks or gets wrong.

Two kinds of help:
    * `templates.adapt_assembly` leaves out of a copy of the cloud assembly what the emulator
      rejects, and says what it left out. What is left out is proven by template tests instead.
    * The classes below answer, or complete, requests as AWS would; each is a `Gap` of the
      interceptor, small, and tested by itself. `close_gaps` puts them all in its path.

| What AWS does | Where |
|---|---|
| CreateFleet: client token, DryRun, types, priorities, spot split, capacity | `fleet.py` |
| CreateFleet: token, DryRun, types, priorities, spot split, capacity | `fleet.py` |
| an instance may only terminate itself | `instances.py` |
| public image parameters; 4 KB in a standard parameter | `parameters.py` |
| no delay for one message on a FIFO queue | `sqs.py` |
| sources of AWS on EventBridge | `events.py` |
| IAM conditions on tags, namespaces, leading keys | `conditions.py` |
| a rejected resource type, `Ref` of a secret, the ARN of a log group | `templates.py` |

Example:
    >>> gaps = close_gaps(interceptor)
    >>> gaps.instances.subscribe(lambda change, ids, request: print(change, ids))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runsfleet_cli.local.emulator_gaps.conditions import ConditionsKept
from runsfleet_cli.local.emulator_gaps.events import ServiceEventsRefused
from runsfleet_cli.local.emulator_gaps.fleet import CreateFleetAsEc2Does
from runsfleet_cli.local.emulator_gaps.instances import (
    DryRunAnswered,
    InstanceBook,
    InstanceChangesTold,
    InstanceFacts,
    InstancesDescribed,
    SelfTerminationOnly,
    SpotCannotBeStopped,
)
from runsfleet_cli.local.emulator_gaps.parameters import (
    PublicParameters,
    StandardParametersAreSmall,
)
from runsfleet_cli.local.emulator_gaps.sqs import FifoDelayRefused

if TYPE_CHECKING:
    from runsfleet_cli.local.interceptor.proxy import Interceptor

__all__ = ["EmulatorGaps", "InstanceBook", "InstanceFacts", "close_gaps"]


@dataclass(frozen=True, slots=True)
class EmulatorGaps:
    """What others may want of the gaps.

    Args:
        instances: Facts of fleet instances, and notice of every launch, stop and termination.
        conditions: Kept in strict mode; filled once the deployment's names are known.
    """

    instances: InstanceBook
    conditions: ConditionsKept | None


def close_gaps(interceptor: Interceptor, *, strict: bool = False) -> EmulatorGaps:
    """Put every gap in the interceptor's path.

    Args:
        interceptor: The one in front of the emulator.
        strict: Also keep the IAM conditions that the emulator cannot evaluate.
    """
    book = InstanceBook()
    parameters = PublicParameters(interceptor.backend)
    conditions = ConditionsKept(interceptor.backend) if strict else None
    if conditions is not None:
        interceptor.add_gaps([conditions])
    interceptor.add_gaps(
        [
            DryRunAnswered(),
            SelfTerminationOnly(),
            SpotCannotBeStopped(book),
            InstanceChangesTold(book),
            InstancesDescribed(book),
            CreateFleetAsEc2Does(interceptor, book, parameters),
            parameters,
            StandardParametersAreSmall(),
            FifoDelayRefused(interceptor),
            ServiceEventsRefused(interceptor),
        ]
    )
    return EmulatorGaps(book, conditions)
