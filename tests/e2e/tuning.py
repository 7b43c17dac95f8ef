"""Change a deployed fleet for a while, as an operator would: by AWS's own calls."""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import boto3

if TYPE_CHECKING:
    from tests.e2e.clouds import Cloud

TARGETS = "RUNSFLEET_LAUNCH_TARGETS"
AFTER_VARIABLES = 'export HOME="'
BEFORE_AGENT = '"$python" -I - '


def client(cloud: Cloud, service: str) -> Any:
    """A client of AWS, as the developer."""
    endpoints = cloud.running.endpoints
    make: Any = boto3.client  # its overloads know services by their literal names only
    return make(
        service,
        endpoint_url=endpoints.aws,
        region_name=endpoints.region,
        aws_access_key_id=endpoints.access_key,
        aws_secret_access_key=endpoints.secret_key,
        verify=endpoints.ca_bundle,
    )


@contextlib.contextmanager
def tuned(
    cloud: Cloud,
    *,
    dispatch: Mapping[str, str] | None = None,
    agent: Mapping[str, str] | None = None,
    setup: Sequence[str] = (),
) -> Iterator[None]:
    """Have other variables of dispatch and of instances, and other setup commands, in force.

    Instances get them by new versions of their launch templates.
    """
    functions = client(cloud, "lambda")
    name, before = next(
        (one["FunctionName"], one["Environment"]["Variables"])
        for one in functions.list_functions()["Functions"]
        if TARGETS in one["Environment"]["Variables"]
    )
    targets = json.loads(before[TARGETS])
    for target in (one for one in targets if one["platform"].startswith("linux-")):
        target["launch_template_version"] = _version(cloud, target, agent or {}, setup)
    changed = {**before, **(dispatch or {}), TARGETS: json.dumps(targets)}
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": changed})
    try:
        yield
    finally:
        functions.update_function_configuration(
            FunctionName=name, Environment={"Variables": before}
        )


def _version(
    cloud: Cloud, target: Mapping[str, str], variables: Mapping[str, str], setup: Sequence[str]
) -> str:
    ec2 = client(cloud, "ec2")
    template, version = target["launch_template_id"], target["launch_template_version"]
    found = ec2.describe_launch_template_versions(LaunchTemplateId=template, Versions=[version])
    data = found["LaunchTemplateVersions"][0]["LaunchTemplateData"]["UserData"]
    script = base64.b64decode(data).decode()
    exports = "".join(f"export {name}={shlex.quote(text)}\n" for name, text in variables.items())
    commands = "".join(f"{command}\n" for command in setup)
    for anchor, text in ((AFTER_VARIABLES, exports), (BEFORE_AGENT, commands)):
        assert script.count(anchor) == 1
        script = script.replace(anchor, text + anchor)
    made = ec2.create_launch_template_version(
        LaunchTemplateId=template,
        SourceVersion=version,
        LaunchTemplateData={"UserData": base64.b64encode(script.encode()).decode()},
    )
    return str(made["LaunchTemplateVersion"]["VersionNumber"])
