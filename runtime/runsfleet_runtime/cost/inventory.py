"""What a fleet is made of: its inventory, and what its housekeeping function knows by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runsfleet_runtime.contract.environment import HousekeepingEnvironment
from runsfleet_runtime.contract.inventory import Inventory
from runsfleet_runtime.contract.tables import InstanceIndex, JobIndex
from runsfleet_runtime.cost.aws_usage import Services

_FIFO: Final = ".fifo"


def services(
    inventory: Inventory, environment: HousekeepingEnvironment, environ: Mapping[str, str]
) -> Services:
    """Return what a fleet is made of.

    Args:
        inventory: What its stack tells.
        environment: The housekeeping function's environment.
        environ: Its variables; those that Lambda sets are read.

    Raises:
        KeyError: If Lambda did not set them.
    """
    functions = {
        **inventory.functions,
        environ["AWS_LAMBDA_FUNCTION_NAME"]: int(environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]),
    }
    urls = [url for pair in environment.dead_letter_queue_urls for url in pair.values()]
    names = [url.rpartition("/")[2] for url in urls]
    tables: dict[str, tuple[str, ...]] = {
        environment.jobs_table: tuple(index.value for index in JobIndex),
        environment.instances_table: tuple(index.value for index in InstanceIndex),
        environment.leases_table: (),
        environment.slots_table: (),
    }
    if environment.runners_table is not None:
        tables[environment.runners_table] = ()
    return Services(
        functions=functions,
        queues={name: name.endswith(_FIFO) for name in names},
        tables=tables | dict.fromkeys(inventory.tables, ()),
        log_groups=[*inventory.log_groups, environ["AWS_LAMBDA_LOG_GROUP_NAME"]],
        bucket=environment.cache_bucket,
        secrets=inventory.secrets,
        alarms=inventory.alarms,
    )
