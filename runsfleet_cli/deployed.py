"""A deployed fleet, found again by its functions: their variables name all that belongs to it.

Nothing here depends on how a stack is called or built: a fleet's functions carry the fleet's name
and the physical names of its tables (see `runsfleet_runtime.contract.environment`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runsfleet_runtime.contract.environment import (
    BreakerEnvironment,
    MalformedEnvironmentError,
    SubnetZone,
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
        for variables in self._functions():
            try:
                told = FleetEnvironment.from_environ(variables)
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

    def _functions(self) -> Iterator[dict[str, str]]:
        """Yield the variables of every function of the account in the region."""
        for page in self.client("lambda").get_paginator("list_functions").paginate():
            for function in page["Functions"]:
                yield function.get("Environment", {}).get("Variables", {})
