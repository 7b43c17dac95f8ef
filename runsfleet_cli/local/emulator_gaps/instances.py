"""What EC2 knows of an instance and MiniStack does not: how it was bought, where, which image.

`InstanceBook` is filled by CreateFleet (`fleet.py`) and read by the gaps here; the local
hypervisor may subscribe to it instead of polling DescribeInstances.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

from runsfleet_cli.local.interceptor.answers import EC2_NAMESPACE, error_answer
from runsfleet_cli.local.interceptor.aws_request import Answer, AwsRequest
from runsfleet_cli.local.interceptor.proxy import Forward

Change = Literal["launched", "started", "stopped", "rebooted", "terminated"]
_CHANGES: dict[str, Change] = {
    "RunInstances": "launched",
    "StartInstances": "started",
    "StopInstances": "stopped",
    "RebootInstances": "rebooted",
    "TerminateInstances": "terminated",
}
_INSTANCE_ID = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")
_MUTATIONS = re.compile(
    r"^(Create|Run|Start|Stop|Reboot|Terminate|Modify|Delete|Attach|Detach|Associate|Allocate)"
)


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What a launch was like.

    Args:
        instance_id: `i-...`.
        lifecycle: `spot` or `on-demand`.
        instance_type: For example `c7g.xlarge`; empty if only the launch template says.
        zone: Availability zone; empty if unknown.
        image_id: Resolved `ami-...`; empty if unknown.
        metadata_options: The launch template's, e.g. `{"httpTokens": "required"}`.
        fleet_id: `fleet-...`, or empty.
        launched_at: Unix time, seconds.
    """

    instance_id: str
    lifecycle: str
    instance_type: str
    zone: str
    image_id: str
    metadata_options: tuple[tuple[str, str], ...]
    fleet_id: str
    launched_at: float


Listener = Callable[[Change, tuple[str, ...], AwsRequest], None]


class InstanceBook:
    """Facts by instance id, and who wants to hear of changes.

    Example:
        >>> book.subscribe(lambda change, ids, request: print(change, ids))
    """

    def __init__(self) -> None:
        self._facts: dict[str, InstanceFacts] = {}
        self._listeners: list[Listener] = []

    def add(self, facts: InstanceFacts) -> None:
        """Remember a launch."""
        self._facts[facts.instance_id] = facts

    def get(self, instance_id: str) -> InstanceFacts | None:
        """What is known of an instance, if it was launched by a fleet."""
        return self._facts.get(instance_id)

    def subscribe(self, listener: Listener) -> None:
        """Be told, once a request has succeeded, which instances it launched, stopped, ..."""
        self._listeners.append(listener)

    def tell(self, change: Change, ids: tuple[str, ...], request: AwsRequest) -> None:
        """Tell the listeners."""
        for listener in tuple(self._listeners):
            listener(change, ids, request)


class DryRunAnswered:
    """EC2 answers a DryRun with an error and does nothing; MiniStack does it.

    CreateFleet has its own way (`fleet.py`), which asks the emulator for permission too.
    """

    def wants(self, request: AwsRequest) -> bool:
        """Changes with DryRun, but for CreateFleet."""
        return (
            request.service == "ec2"
            and request.action != "CreateFleet"
            and str(request.parameters.get("DryRun", "")).lower() == "true"
            and bool(_MUTATIONS.match(request.action))
        )

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:  # noqa: ARG002
        """Say that it would have worked."""
        return dry_run_answer(request)


class SpotCannotBeStopped:
    """A spot instance of a fleet cannot be stopped, only terminated.

    Args:
        book: Tells which are spot.
    """

    def __init__(self, book: InstanceBook) -> None:
        self._book = book

    def wants(self, request: AwsRequest) -> bool:
        """StopInstances."""
        return request.is_call("ec2", "StopInstances")

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Refuse as a whole if one of them is spot."""
        for instance_id in instance_ids(request):
            facts = self._book.get(instance_id)
            if facts is not None and facts.lifecycle == "spot":
                message = (
                    f"You can't stop the Spot Instance '{instance_id}' because it is associated "
                    "with a one-time Spot Instance request. You can only stop Spot Instances "
                    "associated with persistent Spot Instance requests."
                )
                return error_answer(request, "UnsupportedOperation", 400, message)
        return await forward(request)


class SelfTerminationOnly:
    """An instance's credentials may terminate that instance and no other.

    The condition that says so in the role's policy (`aws:userid` against `ec2:InstanceID`) is one
    that MiniStack denies always, so the deployed copy lacks it and it is kept here.
    """

    def wants(self, request: AwsRequest) -> bool:
        """Changes to instances by an instance."""
        return request.caller.kind == "instance" and request.is_call(
            "ec2", "TerminateInstances", "StopInstances", "RebootInstances"
        )

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Refuse if it names another instance."""
        others = [one for one in instance_ids(request) if one != request.caller.name]
        if others:
            message = (
                "You are not authorized to perform this operation. User: "
                f"{request.caller} is not authorized to perform: ec2:{request.action} "
                f"on {others[0]}"
            )
            return error_answer(request, "UnauthorizedOperation", 403, message)
        return await forward(request)


class InstancesDescribed:
    """Adds what DescribeInstances lacks: lifecycle, zone, resolved image, metadata options.

    Args:
        book: The facts.
    """

    def __init__(self, book: InstanceBook) -> None:
        self._book = book

    def wants(self, request: AwsRequest) -> bool:
        """DescribeInstances."""
        return request.is_call("ec2", "DescribeInstances")

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Forward, then complete the answer."""
        answer = await forward(request)
        if not answer.ok:
            return answer
        lifecycles = {
            value
            for item in request.parameters.get("Filter", [])
            if item.get("Name") == "instance-lifecycle"
            for value in item.get("Value", [])
        }
        answer.body = describe_completely(answer.body, self._book, lifecycles)
        return answer


class InstanceChangesTold:
    """Tells the listeners of the book what happened to instances. Changes nothing.

    Args:
        book: Who listens.
    """

    def __init__(self, book: InstanceBook) -> None:
        self._book = book

    def wants(self, request: AwsRequest) -> bool:
        """All changes but CreateFleet, which tells them itself."""
        return request.service == "ec2" and request.action in _CHANGES

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Forward, then tell."""
        answer = await forward(request)
        if answer.ok:
            if request.action == "RebootInstances":
                ids = tuple(instance_ids(request))
            else:
                ids = tuple(found.decode() for found in _INSTANCE_ID.findall(answer.body))
            request.notes["instances"] = list(ids)
            self._book.tell(_CHANGES[request.action], ids, request)
        return answer


def dry_run_answer(request: AwsRequest) -> Answer:
    """What EC2 says to a DryRun that would have worked."""
    message = "Request would have succeeded, but DryRun flag is set."
    return error_answer(request, "DryRunOperation", 412, message)


def instance_ids(request: AwsRequest) -> list[str]:
    """The instances that a request names."""
    given = request.parameters.get("InstanceId", [])
    return [given] if isinstance(given, str) else list(given)


def describe_completely(body: bytes, book: InstanceBook, lifecycles: set[str]) -> bytes:
    """Complete a DescribeInstancesResponse.

    Args:
        body: As the emulator gave it.
        book: The facts.
        lifecycles: Keep only instances of these (`spot`), if any are given.
    """
    ET.register_namespace("", EC2_NAMESPACE)
    root = ET.fromstring(body)  # noqa: S314  (the emulator's own)
    prefix = root.tag.rpartition("}")[0] + "}" if root.tag.startswith("{") else ""
    reservations = root.find(f"{prefix}reservationSet")
    if reservations is None:
        return body
    for reservation in list(reservations):
        for item in reservation.findall(f"{prefix}instancesSet/{prefix}item"):
            facts = book.get(item.findtext(f"{prefix}instanceId", ""))
            spot = facts is not None and facts.lifecycle == "spot"
            if lifecycles and not (spot and "spot" in lifecycles):
                reservations.remove(reservation)
                break
            if facts is not None:
                _complete(item, facts, prefix)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _complete(item: ET.Element, facts: InstanceFacts, prefix: str) -> None:
    if facts.lifecycle == "spot":
        ET.SubElement(item, f"{prefix}instanceLifecycle").text = "spot"
    zone = item.find(f"{prefix}placement/{prefix}availabilityZone")
    if zone is not None and facts.zone:
        zone.text = facts.zone
    image = item.find(f"{prefix}imageId")
    if image is not None and facts.image_id:
        image.text = facts.image_id
    if facts.metadata_options and item.find(f"{prefix}metadataOptions") is None:
        options = ET.SubElement(item, f"{prefix}metadataOptions")
        ET.SubElement(options, f"{prefix}state").text = "applied"
        for name, value in facts.metadata_options:
            ET.SubElement(options, f"{prefix}{name}").text = value
