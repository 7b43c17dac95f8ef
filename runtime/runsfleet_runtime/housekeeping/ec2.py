"""EC2 as the sweeps see it: what carries this fleet's tags, marks on it, and its end.

Gotchas:

- Everything is asked for by a filter, never by id: EC2 refuses an id that it does not know, and a
  filter finds nothing then.
- ``DescribeInstances`` without page size or filter is throttled sooner; every call here has both.
- EC2 forgets a terminated instance about an hour after its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tags import MANAGED_VALUE, Tag
from runsfleet_runtime.housekeeping.leftovers import Leftover
from runsfleet_runtime.housekeeping.ports import SweepError

_PAGE: Final = 1000  # most that a page of DescribeInstances may hold
_PRESENT: Final = ("pending", "running", "stopping", "stopped")


class _Tagged:
    """Marks and unmarks what belongs to a fleet, and finds it by its tags."""

    def __init__(self, client: Any, *, fleet: str) -> None:
        self._client = client
        self._fleet = fleet

    def mark(self, key: str, *, at: float) -> None:
        """Note on a resource that it is condemned.

        Raises:
            SweepError: If EC2 did not take it.
        """
        tag = {"Key": Tag.CONDEMNED.value, "Value": str(int(at))}
        _asked(lambda: self._client.create_tags(Resources=[key], Tags=[tag]))

    def unmark(self, key: str) -> None:
        """Take that note away.

        Raises:
            SweepError: If EC2 did not take it.
        """
        tag = {"Key": Tag.CONDEMNED.value}
        _asked(lambda: self._client.delete_tags(Resources=[key], Tags=[tag]))

    def _filters(self, **further: Sequence[str]) -> list[dict[str, Any]]:
        wanted = {
            f"tag:{Tag.FLEET}": [self._fleet],
            f"tag:{Tag.MANAGED}": [MANAGED_VALUE],
            **{name.replace("_", "-"): list(values) for name, values in further.items()},
        }
        return [{"Name": name, "Values": values} for name, values in wanted.items()]


class Ec2FleetInstances(_Tagged):
    """The instances of a fleet.

    Args:
        client: An EC2 client.
        fleet: Name of the fleet; only what has its tag is seen.
    """

    def pages(self) -> Iterator[Sequence[Leftover]]:
        """Yield all instances that are not ended, up to a thousand at a time.

        Raises:
            SweepError: If EC2 could not be asked.
        """
        filters = self._filters(instance_state_name=_PRESENT)
        answers = _answers(
            lambda **token: self._client.describe_instances(
                Filters=filters, MaxResults=_PAGE, **token
            )
        )
        for answer in answers:
            yield [
                _instance(found)
                for reservation in answer.get("Reservations", [])
                for found in reservation.get("Instances", [])
            ]

    def find(self, key: str) -> Leftover | None:
        """Return an instance as it is now; ``None`` when it has ended, or is none of ours.

        Raises:
            SweepError: If EC2 could not be asked.
        """
        filters = self._filters(instance_id=[key], instance_state_name=_PRESENT)
        answer = _asked(lambda: self._client.describe_instances(Filters=filters))
        found = (
            _instance(instance)
            for reservation in answer.get("Reservations", [])
            for instance in reservation.get("Instances", [])
        )
        return _named(found, key)

    def end(self, key: str) -> None:
        """Terminate an instance; one that is gone is done with.

        Raises:
            SweepError: If that is not certain.
        """
        _asked(
            lambda: self._client.terminate_instances(InstanceIds=[key]),
            done="InvalidInstanceID.NotFound",
        )


class Ec2Presence:
    """Whether an instance exists at all, whoever it belongs to.

    Args:
        client: An EC2 client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def exists(self, instance_id: str) -> bool:
        """Tell whether an instance of this account and region exists and is not terminated.

        Raises:
            SweepError: If EC2 could not be asked.
        """
        filters = [
            {"Name": "instance-id", "Values": [instance_id]},
            {"Name": "instance-state-name", "Values": [*_PRESENT, "shutting-down"]},
        ]
        answer = _asked(lambda: self._client.describe_instances(Filters=filters))
        return any(
            found["InstanceId"] == instance_id
            for reservation in answer.get("Reservations", [])
            for found in reservation.get("Instances", [])
        )


class Ec2Volumes(_Tagged):
    """The volumes of a fleet that no instance uses."""

    def pages(self) -> Iterator[Sequence[Leftover]]:
        """Yield them, up to five hundred at a time; raises ``SweepError``."""
        filters = self._filters(status=["available"])
        answers = _answers(
            lambda **token: self._client.describe_volumes(Filters=filters, MaxResults=500, **token)
        )
        for answer in answers:
            yield [_volume(found) for found in answer.get("Volumes", [])]

    def find(self, key: str) -> Leftover | None:
        """Return a volume if it is still unused; raises ``SweepError``."""
        filters = self._filters(volume_id=[key], status=["available"])
        answer = _asked(lambda: self._client.describe_volumes(Filters=filters))
        return _named((_volume(found) for found in answer.get("Volumes", [])), key)

    def end(self, key: str) -> None:
        """Delete a volume; EC2 refuses it while an instance has it. Raises ``SweepError``."""
        _asked(lambda: self._client.delete_volume(VolumeId=key), done="InvalidVolume.NotFound")


class Ec2Interfaces(_Tagged):
    """The network interfaces of a fleet that nothing uses."""

    def pages(self) -> Iterator[Sequence[Leftover]]:
        """Yield them, up to a thousand at a time; raises ``SweepError``."""
        filters = self._filters(status=["available"])
        answers = _answers(
            lambda **token: self._client.describe_network_interfaces(
                Filters=filters, MaxResults=_PAGE, **token
            )
        )
        for answer in answers:
            yield [_interface(found) for found in answer.get("NetworkInterfaces", [])]

    def find(self, key: str) -> Leftover | None:
        """Return an interface if it is still unused; raises ``SweepError``."""
        filters = self._filters(network_interface_id=[key], status=["available"])
        answer = _asked(lambda: self._client.describe_network_interfaces(Filters=filters))
        return _named((_interface(found) for found in answer.get("NetworkInterfaces", [])), key)

    def end(self, key: str) -> None:
        """Delete an interface; EC2 refuses it while it is attached. Raises ``SweepError``."""
        _asked(
            lambda: self._client.delete_network_interface(NetworkInterfaceId=key),
            done="InvalidNetworkInterfaceID.NotFound",
        )


def _named(found: Iterable[Leftover], key: str) -> Leftover | None:
    """Return what has this id, whatever a filter let through: emulators do not know all of them."""
    return next((leftover for leftover in found if leftover.key == key), None)


def _asked(call: Callable[[], Any], *, done: str = "") -> Any:
    try:
        return call()
    except ClientError as error:
        if done and error.response["Error"]["Code"] == done:
            return {}
        raise SweepError(str(error)) from error
    except BotoCoreError as error:
        raise SweepError(str(error)) from error


def _answers(ask: Callable[..., Any]) -> Iterator[Mapping[str, Any]]:
    """Yield an answer for each page; each is asked for when it is its turn."""
    token: dict[str, str] = {}
    while True:
        answer = _asked(partial(ask, **token))
        yield answer
        if not answer.get("NextToken"):
            return
        token = {"NextToken": answer["NextToken"]}


def _instance(found: Mapping[str, Any]) -> Leftover:
    return _leftover(
        found["InstanceId"],
        found.get("Tags", []),
        state=str(found.get("State", {}).get("Name", "")),
        since=found["LaunchTime"].timestamp(),
    )


def _volume(found: Mapping[str, Any]) -> Leftover:
    since = found["CreateTime"].timestamp()
    return _leftover(found["VolumeId"], found.get("Tags", []), state="available", since=since)


def _interface(found: Mapping[str, Any]) -> Leftover:
    # EC2 does not tell since when an interface exists
    return _leftover(found["NetworkInterfaceId"], found.get("TagSet", []), state="available")


def _leftover(
    key: str, tags: Sequence[Mapping[str, str]], *, state: str, since: float = 0.0
) -> Leftover:
    named = {tag["Key"]: tag["Value"] for tag in tags}
    condemned = named.get(Tag.CONDEMNED, "")
    return Leftover(
        key=key,
        state=state,
        since=since,
        pool=named.get(Tag.POOL, ""),
        is_kept=Tag.KEEP in named,
        # a mark that cannot be read is none: it is written anew, and its time begins again
        condemned_at=float(condemned) if condemned.isascii() and condemned.isdigit() else 0.0,
    )
