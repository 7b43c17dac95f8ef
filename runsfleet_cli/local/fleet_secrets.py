"""Writes the two secrets of a deployed fleet: those that its functions name in their environment.

As an operator would do after a first deployment; the names are read back and not known beforehand,
so an app that calls them otherwise works too.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runsfleet_runtime.contract.environment import variable_name

if TYPE_CHECKING:
    from runsfleet_cli.local.aws import LocalAws
    from runsfleet_cli.local.github import GitHubStandIn


class FleetSecretsError(Exception):
    """No deployed function names a secret: there is no fleet in this app."""


def write_secrets(aws: LocalAws, github: GitHubStandIn) -> str:
    """Write the App's id and key, and a new webhook secret.

    Args:
        aws: Where the fleet is deployed.
        github: Whose App it is.

    Returns:
        The webhook's secret.

    Raises:
        FleetSecretsError: No deployed function names one.
    """
    variables = _function_variables(aws)
    webhook_secret = secrets.token_hex(20)
    app = json.dumps({"app_id": str(github.app.id), "private_key": github.private_key})
    for field, value in (("webhook_secret", webhook_secret), ("github_app_secret", app)):
        name = variable_name(field)
        references = {entry[name] for entry in variables if name in entry}
        if not references:
            msg = (
                f"no deployed function has {name}; deploy an app that uses RunnerFleet, or start "
                "the local cloud in another folder"
            )
            raise FleetSecretsError(msg)
        for reference in references:
            _write(aws, reference, value)
    return webhook_secret


def _function_variables(aws: LocalAws) -> list[Mapping[str, str]]:
    found: list[Mapping[str, str]] = []
    for page in aws.client("lambda").get_paginator("list_functions").paginate():
        found += [
            function.get("Environment", {}).get("Variables", {}) for function in page["Functions"]
        ]
    return found


def _write(aws: LocalAws, reference: str, value: str) -> None:
    store, _, name = reference.partition(":")
    if store == "ssm":
        aws.client("ssm").put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)
        return
    client = aws.client("secretsmanager")
    try:
        client.create_secret(Name=name, SecretString=value)
    except client.exceptions.ResourceExistsException:
        # the app makes the secret itself and leaves its value to people
        client.put_secret_value(SecretId=name, SecretString=value)
