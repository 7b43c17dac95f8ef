"""The fleet's inventory, a parameter of Parameter Store."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.inventory import Inventory


class InventoryUnavailableError(Exception):
    """Nobody knows what the fleet is made of: no report is better than one that is too low."""


def read_inventory(client: Any, name: str) -> Inventory:
    """Read the inventory of a fleet.

    Args:
        client: An SSM client.
        name: Name of the parameter.

    Raises:
        InventoryUnavailableError: If it could not be read.
        ContractError: If it is malformed.
    """
    try:
        answer = client.get_parameter(Name=name)
    except (ClientError, BotoCoreError) as error:
        raise InventoryUnavailableError(f"parameter {name}: {error}") from error
    return Inventory.from_json(answer["Parameter"]["Value"])
