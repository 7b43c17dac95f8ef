"""A deployed fleet, found again by its functions: their variables name all that belongs to it.

Nothing here depends on how a stack is called or built: a fleet's functions carry the fleet's name
and the physical names of its tables (see `runsfleet_runtime.contract.environment`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runsfleet_runtime.contract.environment import (
    BreakerEnvironment,
    LaunchTarget,
    MalformedEnvironmentError,
    SlotsEnvironment,
    SubnetZone,
    variable_name,
)

if TYPE_CHECKING:
    import boto3

_SECONDS = 10
_ATTEMPTS = 4


class FleetNotFoundError(Exception):
    """No fleet, or more than one, is meant; the message says how to name it."""


@dataclass(frozen=True, kw_only=True)
class FleetEnvironment(BreakerEnvironment):
    """What a function of a fleet tells about it.

    Attributes:
        fleet: Name of the fleet.
        subnet_zones: Subnets of its instances, with their zones; only dispatch knows them.
    """

    fleet: str
    subnet_zones: tuple[SubnetZone, ...] = ()

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones that it launches in; empty when they are not known."""
        return tuple(sorted({subnet.availability_zone for subnet in self.subnet_zones}))


@dataclass(frozen=True, kw_only=True)
class OperatedEnvironment(FleetEnvironment, SlotsEnvironment):
    """What all functions of a fleet tell about it together: a variable means the same in each.

    Attributes:
        jobs_table: Table of jobs.
        instances_table: Table of instances.
        jobs_queue_url: The FIFO jobs queue.
        launch_targets: How instances of each platform are launched.
        dead_letter_queue_urls: Each queue and its dead-letter queue.
        job_deadline_seconds: GitHub fails a job that waited this long.
        job_retention_days: Closed jobs are kept this long.
    """

    jobs_table: str
    instances_table: str
    jobs_queue_url: str
    launch_targets: tuple[LaunchTarget, ...]
    dead_letter_queue_urls: tuple[dict[str, str], ...]
    job_deadline_seconds: int = 24 * 3600
    job_retention_days: int = 7


@dataclass(frozen=True)
class _Function:
    name: str
    variables: Mapping[str, str]


@dataclass(frozen=True)
class AwsAccess:
    """How to reach AWS, or what takes its place.

    Args:
        region: Region of the fleet; by default the profile's or the environment's.
        profile: Profile of the AWS configuration.
        local: Whether the local cloud of this project is meant.
    """

    region: str | None = None
    profile: str | None = None
    local: bool = False

    def session(self) -> AwsSession:
        """Return clients.

        Raises:
            CommandError: If the local cloud is meant and none is up.
            FleetNotFoundError: If no region is known.
            botocore.exceptions.BotoCoreError: If there is no such profile.
        """
        import boto3

        if not self.local:
            session = boto3.session.Session(region_name=self.region, profile_name=self.profile)
            if session.region_name is None:
                raise FleetNotFoundError(
                    "no region is known; give --region, or set AWS_REGION or a profile's region"
                )
            return AwsSession(session)
        from runsfleet_cli.local.found import connect

        found = connect().endpoints
        session = boto3.session.Session(
            aws_access_key_id=found.access_key,
            aws_secret_access_key=found.secret_key,
            region_name=found.region,
        )
        return AwsSession(session, endpoint=found.aws, ca_bundle=found.ca_bundle)


class AwsSession:
    """Clients of one account and region.

    Args:
        session: Credentials and region.
        endpoint: Where AWS is instead.
        ca_bundle: What to trust there.
    """

    def __init__(
        self,
        session: boto3.session.Session,
        *,
        endpoint: str | None = None,
        ca_bundle: str | None = None,
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._ca_bundle = ca_bundle
        self.region = session.region_name or ""
        self._found: Sequence[_Function] | None = None

    def client(self, service: str) -> Any:
        """Return a client of a service."""
        from botocore.config import Config

        make: Any = self._session.client
        return make(
            service,
            endpoint_url=self._endpoint,
            verify=self._ca_bundle,
            config=Config(
                connect_timeout=_SECONDS,
                read_timeout=_SECONDS,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            ),
        )

    def caller(self) -> str:
        """Return the ARN of whoever acts."""
        return str(self.client("sts").get_caller_identity()["Arn"])

    def fleet(self, name: str | None) -> FleetEnvironment:
        """Find a fleet.

        Args:
            name: Its name; may be left out where there is one only.

        Raises:
            FleetNotFoundError: If there is none, or if it is not clear which is meant.
        """
        found: dict[str, FleetEnvironment] = {}
        for function in self._functions():
            try:
                told = FleetEnvironment.from_environ(function.variables)
            except MalformedEnvironmentError:
                continue  # somebody else's, or a function that has no part in it
            if told.fleet not in found or told.subnet_zones:
                found[told.fleet] = told
        names = ", ".join(sorted(found))
        if name is not None and name not in found:
            others = f"those that there are: {names}" if found else "there is none at all"
            raise FleetNotFoundError(
                f"there is no fleet {name!r} in {self.region}; {others}; "
                "choose another region by --region or account by --profile"
            )
        if not found:
            raise FleetNotFoundError(
                f"there is no fleet in {self.region}; deploy one, or choose another region by "
                "--region or account by --profile"
            )
        if name is None and len(found) > 1:
            raise FleetNotFoundError(
                f"there are several fleets in {self.region}: {names}; name one by --fleet"
            )
        return found[name] if name is not None else next(iter(found.values()))

    def operated(self, name: str | None) -> OperatedEnvironment:
        """Find a fleet with all that its functions know.

        Args:
            name: Its name; may be left out where there is one only.

        Raises:
            FleetNotFoundError: If there is none, or if it is not clear which is meant.
            MalformedEnvironmentError: If it was deployed by another version of this package.
        """
        together: dict[str, str] = {}
        for function in self._of(self.fleet(name).fleet):
            together |= function.variables
        return OperatedEnvironment.from_environ(together)

    def sweep_queue_url(self, found: OperatedEnvironment) -> str:
        """Return the queue that wakes the function which carries out a fleet's sweeps.

        Raises:
            FleetNotFoundError: If nothing wakes it.
        """
        wanted = variable_name("dead_letter_queue_urls")
        urls = [pair["queue"] for pair in found.dead_letter_queue_urls]
        client = self.client("lambda")
        for function in self._of(found.fleet):
            if wanted not in function.variables:
                continue
            answer = client.list_event_source_mappings(FunctionName=function.name)
            sources = {
                m["EventSourceArn"].rpartition(":")[2] for m in answer["EventSourceMappings"]
            }
            for url in urls:
                if url.rpartition("/")[2] in sources:
                    return url
        raise FleetNotFoundError(
            f"no queue wakes the housekeeping function of the fleet {found.fleet}; deploy it again"
        )

    def _of(self, fleet: str) -> list[_Function]:
        """Return the functions of a fleet."""
        own = variable_name("fleet")
        return [f for f in self._functions() if f.variables.get(own) == fleet]

    def _functions(self) -> Sequence[_Function]:
        """Return every function of the account in the region."""
        if self._found is None:
            pages = self.client("lambda").get_paginator("list_functions").paginate()
            self._found = [
                _Function(f["FunctionName"], f.get("Environment", {}).get("Variables", {}))
                for page in pages
                for f in page["Functions"]
            ]
        return self._found
