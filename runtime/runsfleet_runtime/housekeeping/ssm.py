"""Parameter Store as the sweeps see it: names and times of configurations, never their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.paths import runner_config_parameter
from runsfleet_runtime.housekeeping.orphaned_instances import Configured
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.stale_configurations import Configuration


class SsmConfigurations:
    """The runner configurations in Parameter Store.

    A configuration's time is that of its newest part: it is being written as long as parts appear.

    Args:
        client: An SSM client.
        prefix: Prefix of the parameters, such as ``/runs-fleet/dev/runners``.
    """

    def __init__(self, client: Any, *, prefix: str) -> None:
        self._client = client
        self._prefix = prefix.rstrip("/")

    def pages(self) -> Iterator[Sequence[Configuration]]:
        """Yield the configurations of all instances, in one page.

        Raises:
            SweepError: If Parameter Store did not answer.
        """
        written: dict[str, float] = {}
        token: dict[str, str] = {}
        while True:
            answer = self._page(token)
            for parameter in answer.get("Parameters", []):
                instance_id = _instance_of(parameter["Name"], self._prefix)
                at = parameter["LastModifiedDate"].timestamp()
                written[instance_id] = max(at, written.get(instance_id, 0.0))
            if not answer.get("NextToken"):
                break
            token = {"NextToken": answer["NextToken"]}
        yield [Configuration(instance_id=i, written_at=at) for i, at in written.items() if i]

    def _page(self, token: dict[str, str]) -> Any:
        try:
            # encrypted values come back as they are stored
            return self._client.get_parameters_by_path(
                Path=self._prefix, Recursive=True, WithDecryption=False, **token
            )
        except (ClientError, BotoCoreError) as error:
            raise SweepError(f"configurations under {self._prefix}: {error}") from error

    def find(self, instance_id: str) -> Configured | None:
        """Return whether an instance has a configuration; see ``KnowsConfigurations``.

        Its repository stays unknown, as that stands in the encrypted value.
        """
        name = runner_config_parameter(self._prefix, instance_id, 0)
        try:
            answer = self._client.get_parameters(Names=[name], WithDecryption=False)
        except (ClientError, BotoCoreError) as error:
            raise SweepError(f"parameter {name}: {error}") from error
        return Configured("", has_ended=False) if answer.get("Parameters") else None


def _instance_of(name: str, prefix: str) -> str:
    """Return the instance of a parameter; empty when its name has another form.

    Example:
        >>> _instance_of("/runs-fleet/dev/runners/i-1/config/0", "/runs-fleet/dev/runners")
        'i-1'
    """
    instance_id, _, rest = name.removeprefix(f"{prefix}/").partition("/")
    return instance_id if rest.startswith("config/") else ""
