"""What the hypervisor asks of the emulator, as AWS itself: past the record and the fault rules.

Launch templates, instances, the role behind an instance profile, keys for it, and EventBridge.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from multidict import CIMultiDict

from runsfleet_cli.local.hypervisor.metadata import RoleCredentials
from runsfleet_cli.local.interceptor.aws_request import AwsRequest, Operation
from runsfleet_cli.local.interceptor.callers import ROOT

if TYPE_CHECKING:
    from runsfleet_cli.local.interceptor.aws_request import Answer
    from runsfleet_cli.local.interceptor.proxy import Interceptor

_EC2_VERSION = "2016-11-15"
_IAM_VERSION = "2010-05-08"
_STS_VERSION = "2011-06-15"
# the longest session that a role allows unless it says otherwise; asked for anew before it ends
_SESSION_SECONDS = 3_600


class Ec2Error(Exception):
    """The emulator refused what EC2 itself would have done."""


@dataclass(frozen=True, slots=True)
class TemplateReference:
    """Which launch template an instance came from.

    Args:
        key: `LaunchTemplateId` or `LaunchTemplateName`.
        value: Its id or name.
        version: A number, `$Latest` or `$Default`.
    """

    key: str
    value: str
    version: str


@dataclass(frozen=True, slots=True)
class Template:
    """What a launch template says that matters to a running instance.

    Args:
        user_data: Decoded; empty if there is none.
        profile: Name of the instance profile; empty if there is none.
        terminates_on_shutdown: Whether a shutdown from inside ends the instance for good.
        tags_shown: Whether the metadata service shows tags.
    """

    user_data: str = ""
    profile: str = ""
    terminates_on_shutdown: bool = False
    tags_shown: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """An instance as DescribeInstances has it."""

    instance_type: str = ""
    zone: str = ""
    private_ip: str = ""
    architecture: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Role:
    """The role of an instance profile."""

    name: str
    arn: str


class Ec2:
    """The emulator as EC2 sees it from inside.

    Args:
        interceptor: Its way to the emulator, and its book of keys: what an instance does with keys
            from here is recorded as that instance's doing.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor
        self._backend = interceptor.backend
        self._templates: dict[TemplateReference, Template] = {}
        self._roles: dict[str, Role] = {}

    async def template(self, reference: TemplateReference, region: str) -> Template:
        """Read a launch template."""
        if reference in self._templates and reference.version.isdigit():
            return self._templates[reference]
        answer = await self._ask(
            "ec2",
            "DescribeLaunchTemplateVersions",
            {reference.key: reference.value, "LaunchTemplateVersion.1": reference.version},
            _EC2_VERSION,
            region,
        )
        data = _first(ET.fromstring(answer.body), "launchTemplateData")  # noqa: S314 (emulator's)
        template = _template(data) if data is not None else Template()
        self._templates[reference] = template
        return template

    async def describe(self, instance_id: str, region: str) -> Description:
        """Read an instance."""
        answer = await self._ask(
            "ec2", "DescribeInstances", {"InstanceId.1": instance_id}, _EC2_VERSION, region
        )
        root = ET.fromstring(answer.body)  # noqa: S314  (the emulator's own)
        item = _first(root, "instancesSet")
        if item is None:
            return Description()
        return Description(
            instance_type=_text(item, "instanceType"),
            zone=_text(item, "availabilityZone"),
            private_ip=_text(item, "privateIpAddress"),
            architecture=_text(item, "architecture"),
            tags=_tags(item),
        )

    async def role(self, profile: str) -> Role | None:
        """The role of an instance profile."""
        if profile not in self._roles:
            answer = await self._ask(
                "iam", "GetInstanceProfile", {"InstanceProfileName": profile}, _IAM_VERSION, ""
            )
            root = ET.fromstring(answer.body)  # noqa: S314  (the emulator's own)
            roles = _first(root, "Roles")
            if roles is None or not _text(roles, "RoleName"):
                return None
            self._roles[profile] = Role(_text(roles, "RoleName"), _text(roles, "Arn"))
        return self._roles[profile]

    async def credentials(self, role: Role, instance_id: str, region: str) -> RoleCredentials:
        """Keys of a role for one instance: `aws:userid` is `<role id>:<instance id>`."""
        answer = await self._ask(
            "sts",
            "AssumeRole",
            {
                "RoleArn": role.arn,
                "RoleSessionName": instance_id,
                "DurationSeconds": str(_SESSION_SECONDS),
            },
            _STS_VERSION,
            region,
        )
        self._let_recognise(answer, region)
        root = ET.fromstring(answer.body)  # noqa: S314  (the emulator's own)
        expires = _text(root, "Expiration").replace("Z", "+00:00")
        return RoleCredentials(
            access_key=_text(root, "AccessKeyId"),
            secret_key=_text(root, "SecretAccessKey"),
            token=_text(root, "SessionToken"),
            expires_at=datetime.fromisoformat(expires).astimezone(UTC),
        )

    async def change(self, action: str, instance_id: str, region: str) -> None:
        """Terminate, stop or start an instance as EC2 itself does it."""
        await self._ask("ec2", action, {"InstanceId.1": instance_id}, _EC2_VERSION, region)

    async def publish(
        self, detail_type: str, detail: Mapping[str, Any], resources: Sequence[str], region: str
    ) -> None:
        """Put an event with source `aws.ec2` on the default bus."""
        entry = {
            "Source": "aws.ec2",
            "DetailType": detail_type,
            "Detail": json.dumps(detail),
            "Resources": list(resources),
            "Time": int(time.time()),
        }
        answer = await self._backend.ask(
            "events", "PutEvents", {"Entries": [entry]}, target="AWSEvents", region=region
        )
        result = json.loads(answer.body) if answer.ok else {"FailedEntryCount": 1}
        if result.get("FailedEntryCount"):
            msg = f"the event {detail_type} was not taken: {answer.text()[:300]}"
            raise Ec2Error(msg)

    def _let_recognise(self, answer: Answer, region: str) -> None:
        request = AwsRequest(
            method="POST",
            target="/",
            headers=CIMultiDict(),
            body=None,
            operation=Operation("sts", "AssumeRole", region, "", "query"),
            caller=ROOT,
            now=time.time(),
        )
        self._interceptor.callers.learn(request, answer)

    async def _ask(
        self,
        service: str,
        action: str,
        parameters: Mapping[str, Any],
        version: str,
        region: str,
    ) -> Answer:
        answer = await self._backend.ask(
            service, action, parameters, version=version, region=region
        )
        if not answer.ok:
            msg = f"{service}:{action} of the hypervisor was refused: {answer.text()[:300]}"
            raise Ec2Error(msg)
        return answer


def template_of(request: AwsRequest) -> TemplateReference | None:
    """The launch template that a CreateFleet or RunInstances request names, if it names one."""
    parameters = request.parameters
    configs = parameters.get("LaunchTemplateConfigs") or [{}]
    found = configs[0].get("LaunchTemplateSpecification") or parameters.get("LaunchTemplate") or {}
    for key in ("LaunchTemplateId", "LaunchTemplateName"):
        if found.get(key):
            return TemplateReference(key, found[key], found.get("Version") or "$Default")
    return None


def decode_user_data(text: str) -> str:
    """User data as the instance sees it: base64 undone, gzip too, as cloud-init does."""
    try:
        raw = base64.b64decode(text, validate=False)
    except (ValueError, binascii.Error):
        return text
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    return raw.decode("utf-8", "replace")


def _template(data: ET.Element) -> Template:
    profile = _first(data, "iamInstanceProfile")
    options = _first(data, "metadataOptions")
    name = ""
    if profile is not None:
        name = _text(profile, "name") or _text(profile, "arn").rpartition("/")[2]
    return Template(
        user_data=decode_user_data(_text(data, "userData")),
        profile=name,
        terminates_on_shutdown=_text(data, "instanceInitiatedShutdownBehavior") == "terminate",
        tags_shown=options is not None and _text(options, "instanceMetadataTags") == "enabled",
    )


def _name(node: ET.Element) -> str:
    return node.tag.rpartition("}")[2]


def _first(root: ET.Element, name: str) -> ET.Element | None:
    return next((node for node in root.iter() if _name(node) == name), None)


def _text(root: ET.Element, name: str) -> str:
    found = _first(root, name)
    return (found.text or "").strip() if found is not None else ""


def _tags(item: ET.Element) -> dict[str, str]:
    found = _first(item, "tagSet")
    pairs = [{_name(leaf): leaf.text or "" for leaf in tag} for tag in found or ()]
    return {pair["key"]: pair.get("value", "") for pair in pairs if "key" in pair}
