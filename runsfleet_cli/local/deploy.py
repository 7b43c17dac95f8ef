"""Bootstrap and deploy a cloud assembly into the local AWS with the real CDK CLI.

Lifecycle: `adapt_assembly` makes the copy that the emulator can take -> `CdkCli.bootstrap` and
`CdkCli.deploy` run the CLI against the interceptor, each line of its output going to a callback ->
`read_back` asks CloudFormation what came of it: outputs and physical names, by construct path.

Gotchas:
    * The CLI gets a home of its own: it caches account ids by access key, and reads profiles.
    * Its first three tries of anything go unheard if notices or version checks have no network, so
      both are off, as is telemetry.

Example:
    >>> cli = CdkCli(find_cdk(Path(".")), target, home=Path("/tmp/run/cdk"))
    >>> await cli.bootstrap(progress=print)
    >>> await cli.deploy(adapted.directory, progress=print)
    >>> deployment = await read_back(target, adapted.directory)
    >>> deployment.output("WebhookUrl")
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_cli.local.emulator import ROOT_ACCESS_KEY, ROOT_SECRET_KEY
from runsfleet_cli.local.emulator_gaps.templates import stack_templates

if TYPE_CHECKING:
    from runsfleet_cli.local.tls import TlsFiles

Progress = Callable[[str], None]

# the CLI prints one line a resource event; the last ones hold the reason
_KEPT_LINES = 60
_LINE_LIMIT = 1_048_576
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT")
_NOT_PROGRESS = re.compile(r"^\s*$|NOTICES|newer version of CDK|EndOfLife|end-of-life")
_LEFT_OVER_HOST = re.compile(r"^https?://([a-z0-9]+)\.execute-api\.[^/]+(/.*)?$")


class DeployError(Exception):
    """Bootstrap or deploy failed; the message names the resource and the reason."""


@dataclass(frozen=True, slots=True)
class AwsTarget:
    """Where to deploy to, and as whom.

    Args:
        endpoint: The interceptor's address.
        account: Twelve digits.
        region: For example `eu-central-1`.
        tls: Given in strict mode.
        access_key: Default: the emulator's root.
        secret_key: Of that key.
    """

    endpoint: str
    account: str
    region: str
    tls: TlsFiles | None = None
    access_key: str = ROOT_ACCESS_KEY
    secret_key: str = ROOT_SECRET_KEY

    def environment(self) -> dict[str, str]:
        """What any AWS client, SDK or CLI needs to talk to it."""
        environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return environment | (self.tls.client_environment() if self.tls else {})

    def client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client of the operator's. Clients are thread-safe; making them is not."""
        session = boto3.session.Session(
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=region or self.region,
        )
        # typed per service by boto3-stubs only when the name is a literal
        make: Any = session.client
        return make(
            service,
            endpoint_url=self.endpoint,
            verify=str(self.tls.ca) if self.tls else None,
            config=Config(retries={"total_max_attempts": 3}),
        )

    def http_api_url(self, url: str) -> str:
        """The local address of an HTTP API's URL as a stack output has it.

        Example:
            >>> target.http_api_url("https://a1b2c3d4.execute-api.eu-central-1.amazonaws.com/hook")
            'http://127.0.0.1:4599/_aws/execute-api/a1b2c3d4/$default/hook'
        """
        found = _LEFT_OVER_HOST.match(url)
        if found is None:
            return url
        return f"{self.endpoint}/_aws/execute-api/{found[1]}/$default{found[2] or '/'}"


@dataclass(frozen=True, slots=True)
class DeployedResource:
    """A resource of a stack.

    Args:
        stack: Stack name.
        logical_id: In the template.
        physical_id: What exists: a name, URL, ARN or id, as `Ref` gives it.
        type: CloudFormation type.
        path: Construct path, e.g. `dev/Runners/Jobs/Queue/Resource`; may be empty.
    """

    stack: str
    logical_id: str
    physical_id: str
    type: str
    path: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """What came of a deployment.

    Args:
        outputs: By stack name, then output name.
        resources: All resources of all stacks.
    """

    outputs: Mapping[str, Mapping[str, str]]
    resources: tuple[DeployedResource, ...]

    def output(self, name: str) -> str:
        """The value of an output whose name is, or begins with, `name`.

        Raises:
            KeyError: None or several; the message lists what there is.
        """
        everything = [
            (key, value) for values in self.outputs.values() for key, value in values.items()
        ]
        exact = [value for key, value in everything if key == name]
        found = exact or [value for key, value in everything if key.startswith(name)]
        if len(found) != 1:
            msg = f"{len(found)} outputs named {name}; there are {sorted(k for k, _ in everything)}"
            raise KeyError(msg)
        return found[0]

    def find(self, type_name: str, path: str = "") -> list[DeployedResource]:
        """Resources of a type whose construct path (or logical id) contains `path`."""
        return [
            resource
            for resource in self.resources
            if resource.type == type_name and (path in resource.path or path in resource.logical_id)
        ]

    def one(self, type_name: str, path: str = "") -> str:
        """The physical id of the only resource that `find` finds.

        Raises:
            KeyError: None or several; the message lists them.
        """
        found = self.find(type_name, path)
        if len(found) != 1:
            candidates = [item.path or item.logical_id for item in found or self.find(type_name)]
            msg = f"{len(found)} of {type_name} match {path!r}; candidates: {candidates}"
            raise KeyError(msg)
        return found[0].physical_id


@dataclass(slots=True)
class CdkCli:
    """The CDK CLI, run against one target.

    Args:
        executable: `cdk`, as `find_cdk` gives it.
        target: Where to deploy to.
        home: Its cache folder.
        seconds: How long each command took, by name; for reports.
    """

    executable: Path
    target: AwsTarget
    home: Path
    seconds: dict[str, float] = field(default_factory=dict)

    async def bootstrap(self, progress: Progress = lambda _: None) -> None:
        """Create the bootstrap stack.

        Raises:
            DeployError: With the reason.
        """
        await self._run(
            "bootstrap",
            ["bootstrap", f"aws://{self.target.account}/{self.target.region}"],
            progress,
        )

    async def deploy(
        self,
        assembly: Path,
        stacks: Sequence[str] = ("**",),
        progress: Progress = lambda _: None,
    ) -> None:
        """Deploy stacks of an assembly.

        Args:
            assembly: A `cdk.out` folder.
            stacks: Patterns; default: all, those of stages included.
            progress: Told each line of the CLI.

        Raises:
            DeployError: With the failing resource and its reason.
        """
        await self._run(
            "deploy",
            [
                *("deploy", *stacks, "--app", str(assembly)),
                *(
                    "--require-approval",
                    "never",
                    "--method",
                    "direct",
                    "--concurrency",
                    "4",
                    "--progress",
                    "events",
                ),
            ],
            progress,
        )

    async def _run(self, name: str, arguments: Sequence[str], progress: Progress) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            self.executable,
            *arguments,
            *("--no-notices", "--ci", "--no-color"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment(),
            cwd=self.home,
            limit=_LINE_LIMIT,
        )
        kept: deque[str] = deque(maxlen=_KEPT_LINES)
        try:
            if process.stdout is not None:
                async for raw in process.stdout:
                    line = _ANSI.sub("", raw.decode("utf-8", "replace")).rstrip()
                    if not _NOT_PROGRESS.search(line):
                        kept.append(line)
                        progress(line)
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        self.seconds[name] = time.monotonic() - started
        if status != 0:
            msg = f"cdk {name} failed: {await self._reason(kept)}"
            raise DeployError(msg)

    def _environment(self) -> dict[str, str]:
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return (
            environment
            | self.target.environment()
            | {
                "HOME": str(self.home),
                "CDK_HOME": str(self.home),
                "CDK_DISABLE_CLI_TELEMETRY": "true",
                "CDK_DISABLE_VERSION_CHECK": "true",
                "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
                # which Node is recommended is said once, by the set-up
                "NODE_NO_WARNINGS": "1",
                "JSII_SILENCE_WARNING_DEPRECATED_NODE_VERSION": "20",
            }
        )

    async def _reason(self, lines: Sequence[str]) -> str:
        events = await asyncio.to_thread(self._failed_events)
        if events:
            return "; ".join(events)
        failed = [line.strip() for line in lines if "FAILED" in line or "rror" in line]
        return "; ".join(failed[:3]) or "\n".join(list(lines)[-10:]) or "it said nothing"

    def _failed_events(self) -> list[str]:
        """What failed first in each stack that is not complete."""
        client = self.target.client("cloudformation")
        found: list[str] = []
        try:
            for stack in client.describe_stacks()["Stacks"]:
                if stack["StackStatus"].endswith("_COMPLETE") and (
                    "ROLLBACK" not in stack["StackStatus"]
                ):
                    continue
                events = client.describe_stack_events(StackName=stack["StackName"])["StackEvents"]
                for event in reversed(events):
                    reason = event.get("ResourceStatusReason", "")
                    if event["ResourceStatus"].endswith("_FAILED") and "cancelled" not in reason:
                        found.append(
                            f"{stack['StackName']}: {event['LogicalResourceId']} "
                            f"({event['ResourceType']}): {reason}"
                        )
                        break
        except (ClientError, BotoCoreError, KeyError):
            return found
        return found


async def read_back(target: AwsTarget, assembly: Path) -> Deployment:
    """Ask CloudFormation for outputs and physical names of an assembly's stacks."""
    return await asyncio.to_thread(_read_back, target, assembly)


def find_cdk(project: Path, environ: Mapping[str, str] | None = None) -> Path:
    """The CDK CLI: `$RUNSFLEET_CDK`, the project's `node_modules`, else the one on PATH.

    Raises:
        DeployError: There is none; the message says how to get it.
    """
    variables = os.environ if environ is None else environ
    named = variables.get("RUNSFLEET_CDK")
    local = project / "node_modules" / ".bin" / "cdk"
    on_path = shutil.which("cdk", path=variables.get("PATH"))
    for candidate in (Path(named) if named else None, local, Path(on_path) if on_path else None):
        if candidate is not None and candidate.is_file():
            return candidate.absolute()
    msg = "the CDK CLI is not installed; run `npm ci` in the project, or set RUNSFLEET_CDK"
    raise DeployError(msg)


def _read_back(target: AwsTarget, assembly: Path) -> Deployment:
    client = target.client("cloudformation")
    outputs: dict[str, dict[str, str]] = {}
    resources: list[DeployedResource] = []
    for template in stack_templates(assembly):
        name = template.name
        try:
            stack = client.describe_stacks(StackName=name)["Stacks"][0]
            pages = client.get_paginator("list_stack_resources").paginate(StackName=name)
            described = [item for page in pages for item in page["StackResourceSummaries"]]
        except ClientError:
            # not among those that were deployed
            continue
        outputs[name] = {
            item["OutputKey"]: item.get("OutputValue", "") for item in stack.get("Outputs", [])
        }
        resources += [
            DeployedResource(
                stack=name,
                logical_id=item["LogicalResourceId"],
                physical_id=item.get("PhysicalResourceId", ""),
                type=item["ResourceType"],
                path=template.paths.get(item["LogicalResourceId"], ""),
            )
            for item in described
        ]
    return Deployment(outputs, tuple(resources))
