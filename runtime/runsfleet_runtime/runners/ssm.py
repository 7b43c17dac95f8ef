"""Runner configurations as SecureString parameters, for accounts that keep secrets there.

A configuration takes two standard parameters or more. Each carries the tag that an IAM policy
compares with the instance's identity.

Gotchas: ``PutParameter`` refuses tags together with ``Overwrite``, so a new parameter is created
with its tag and an existing one (tagged when it was created) is overwritten without. Parameter
Store takes about three writes a second without higher throughput switched on: it suits small
fleets, DynamoDB suits all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.messages import RunnerConfig
from runsfleet_runtime.contract.paths import runner_config_parameter
from runsfleet_runtime.contract.tables import instance_key
from runsfleet_runtime.contract.tags import InstanceParameterTag
from runsfleet_runtime.runners.parts import MAX_PARTS, split
from runsfleet_runtime.runners.ports import (
    RunnerConfigTooLargeError,
    RunnerStoreError,
    TransactEntry,
)
from runsfleet_runtime.telemetry.log import get_logger

_log = get_logger("runners.ssm")
_EXISTS = "ParameterAlreadyExists"
_TAGGING_FAULTS = frozenset(
    {"AccessDeniedException", "InvalidKeyId.Tag", "TooManyTagsError", "TooManyUpdates"}
)


class SsmRunnerStore:
    """Keeps configurations in Parameter Store; see ``StoresRunnerConfig``.

    Args:
        clients: Makes the client of a service by its name; called at the first request only.
        prefix: Prefix of the parameters, such as ``/runs-fleet/dev/runners``.
        role_id: Unique id of the instances' role (``AROA…``).
        key_id: KMS key of the parameters; the account's own key for Parameter Store when ``None``.
    """

    def __init__(
        self,
        clients: Callable[[str], Any],
        *,
        prefix: str,
        role_id: str,
        key_id: str | None = None,
    ) -> None:
        self._clients = clients
        self._prefix = prefix
        self._role_id = role_id
        self._key_id = key_id

    def transact_put(self, config: RunnerConfig, now: float) -> tuple[TransactEntry, ...]:
        """Return nothing: parameters take no part in DynamoDB's transactions."""
        del config, now
        return ()

    def put(self, config: RunnerConfig, now: float) -> None:
        """Write a configuration, its first part last; arguments and errors as in the port."""
        del now  # parameters of the standard tier know no expiry
        instance = config.instance_id
        # "{{" would be a reference to another parameter; within JSON it stands in strings only
        content = config.to_json().replace("{{", "{\\u007b")
        try:
            parts = split(content)
        except ValueError as error:
            raise RunnerConfigTooLargeError(f"configuration of {instance}: {error}") from None
        for number in reversed(range(len(parts))):
            self._put_part(instance, number, parts[number])

    def transact_delete(self, instance_id: str) -> tuple[TransactEntry, ...]:
        """Return nothing: parameters take no part in DynamoDB's transactions."""
        del instance_id
        return ()

    def delete(self, instance_id: str) -> None:
        """Delete all parts there may be with one request; arguments and errors as in the port."""
        names = [self._name(instance_id, number) for number in range(MAX_PARTS)]
        try:
            # names that do not exist come back as InvalidParameters, which is no error
            self._clients("ssm").delete_parameters(Names=names)
        except (BotoCoreError, ClientError) as error:
            raise RunnerStoreError(
                f"deleting the configuration of {instance_id} failed: {error}"
            ) from error

    def _name(self, instance_id: str, part: int) -> str:
        return runner_config_parameter(self._prefix, instance_id, part)

    def _put_part(self, instance_id: str, number: int, value: str) -> None:
        name = self._name(instance_id, number)
        tag = {
            "Key": InstanceParameterTag.INSTANCE_KEY.value,
            "Value": instance_key(self._role_id, instance_id),
        }
        try:
            try:
                self._put(name, value, Tags=[tag])
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                if code != _EXISTS and code not in _TAGGING_FAULTS:
                    raise
                self._put(name, value, Overwrite=True)
                if code != _EXISTS:
                    _log.warning(
                        "parameter not tagged, so its instance may not read it; "
                        "grant ssm:AddTagsToResource",
                        extra={"parameter": name, "error": code},
                    )
        except (BotoCoreError, ClientError) as error:
            raise RunnerStoreError(f"writing parameter {name} failed: {error}") from error

    def _put(self, name: str, value: str, **more: Any) -> None:
        if self._key_id is not None:
            more["KeyId"] = self._key_id
        self._clients("ssm").put_parameter(
            Name=name, Value=value, Type="SecureString", Tier="Standard", **more
        )
