"""What use cases ask of the store of runner configurations, whichever service it is.

A configuration and the job that it belongs to are written together where that is possible::

    entries = store.transact_put(config, now)
    if not entries:  # the store cannot take part in a transaction:
        store.put(config, now)  # durable write first, then the record flips
    transact_write(*entries, job_flip)

and likewise with ``transact_delete`` and ``delete``. Both writes may be repeated: the last one
holds, and deleting what is not there is done already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from runsfleet_runtime.contract.messages import RunnerConfig

TransactEntry = dict[str, Any]
"""One element of ``TransactItems`` of DynamoDB's ``TransactWriteItems``, low-level form."""


class RunnerStoreError(Exception):
    """A configuration could not be written or deleted; whether it was in part is unknown."""


class RunnerConfigTooLargeError(RunnerStoreError):
    """A configuration exceeds what the store can hold."""


class ForgetsRunners(Protocol):
    """The store of runner configurations, as the end of an instance needs it."""

    def transact_delete(self, instance_id: str) -> Sequence[Mapping[str, Any]]:
        """Return what to add to a transaction to delete an instance's configuration.

        Args:
            instance_id: The EC2 instance.

        Returns:
            Nothing when the store cannot take part in a transaction; call ``delete`` then.
        """

    def delete(self, instance_id: str) -> None:
        """Delete an instance's configuration by itself, all parts of it; may be repeated.

        Args:
            instance_id: The EC2 instance.

        Raises:
            RunnerStoreError: If it could not be deleted.
        """


class StoresRunnerConfig(ForgetsRunners, Protocol):
    """Keeps the configuration of each instance until it reads it."""

    def transact_put(self, config: RunnerConfig, now: float) -> tuple[TransactEntry, ...]:
        """Return what to add to a transaction to write a configuration.

        Args:
            config: The configuration.
            now: Epoch seconds.

        Returns:
            Nothing when the store cannot take part in a transaction; call ``put`` then.
        """

    def put(self, config: RunnerConfig, now: float) -> None:
        """Write a configuration by itself.

        Args:
            config: The configuration.
            now: Epoch seconds.

        Raises:
            RunnerStoreError: If it could not be written.
        """
