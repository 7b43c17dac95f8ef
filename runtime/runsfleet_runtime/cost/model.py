"""What is measured of a day, and what a thing costs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from zoneinfo import ZoneInfo


def time_zone(name: str) -> tzinfo:
    """Return a time zone by its name; UTC also where there is no database of time zones.

    Raises:
        zoneinfo.ZoneInfoNotFoundError: If there is no such zone.
    """
    return UTC if name == "UTC" else ZoneInfo(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A day of a time zone; 23 or 25 hours long when the clocks change.

    Attributes:
        name: The day, as ISO 8601 has it.
        start: Epoch seconds of its beginning.
        end: Epoch seconds of the next day's beginning.
    """

    name: str
    start: float
    end: float

    @classmethod
    def of(cls, day: date, zone: str = "UTC") -> Day:
        """Return a day of a time zone.

        Args:
            day: The day.
            zone: Name of the zone, such as ``Europe/Berlin``.

        Raises:
            zoneinfo.ZoneInfoNotFoundError: If there is no such zone.

        Example:
            >>> Day.of(date(2026, 3, 29), "Europe/Berlin").hours
            23.0
        """
        at = time_zone(zone)
        start, end = (
            datetime.combine(day + timedelta(days=n), time(), at).timestamp() for n in (0, 1)
        )
        return cls(name=day.isoformat(), start=start, end=end)

    @property
    def hours(self) -> float:
        """How long it is."""
        return (self.end - self.start) / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceUse:
    """One instance, as the ledger has it.

    Attributes:
        instance_id: The instance.
        instance_type: Its type.
        availability_zone: Its zone.
        capacity_type: ``spot`` or ``on-demand``.
        is_windows: Whether it runs Windows, whose licence is part of its price.
        repository: For whose job it was launched.
        workflow: That job's workflow.
        pool: Its pool; empty for none.
        disk_gib: Size of its root volume.
        has_public_ipv4: Whether it has a public IPv4 address.
        launched_at: Epoch seconds.
        ended_at: Epoch seconds; ``None`` while it runs, or when its end was not seen.
    """

    instance_id: str
    instance_type: str
    availability_zone: str
    capacity_type: str
    is_windows: bool = False
    repository: str = ""
    workflow: str = ""
    pool: str = ""
    disk_gib: int = 0
    has_public_ipv4: bool = True
    launched_at: float
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUse:
    """One job that ran on an instance of the fleet.

    Attributes:
        job_id: GitHub's id of it.
        repository: Its repository.
        vcpus: vCPUs of its instance.
        arch: ``arm64`` or ``x64``.
        is_windows: Whether it ran on Windows.
        seconds: How long it ran.
    """

    job_id: int
    repository: str
    vcpus: int
    arch: str
    is_windows: bool
    seconds: float


class Item(StrEnum):
    """What else is billed, by its unit; the values are for people."""

    GP3_GIB_MONTH = "gp3 volumes"
    IPV4_HOUR = "public IPv4 addresses"
    LAMBDA_REQUEST = "Lambda requests"
    LAMBDA_GIB_SECOND = "Lambda time"
    SQS_FIFO_REQUEST = "SQS FIFO requests"
    SQS_REQUEST = "SQS requests"
    DYNAMODB_WRITE = "DynamoDB writes"
    DYNAMODB_READ = "DynamoDB reads"
    DYNAMODB_GIB_MONTH = "DynamoDB storage"
    S3_GIB_MONTH = "S3 storage"
    LOGS_GIB = "log ingestion"
    SECRET_MONTH = "secrets"  # noqa: S105 - what a secret costs
    METRIC_MONTH = "custom metrics"
    ALARM_MONTH = "alarms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one unit costs.

    Attributes:
        usd: US dollars.
        source: Where the number comes from, for people.
        is_listed: Whether it is a dated table's, because the current price could not be asked.
    """

    usd: float
    source: str
    is_listed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the bill.

    Attributes:
        section: ``compute``, ``storage``, ``network`` or ``services``.
        what: What it is, such as ``c7g.xlarge spot eu-central-1a``.
        quantity: How much of it.
        unit: Of what.
        price: What one unit costs; ``None`` when that is not known.
    """

    section: str
    what: str
    quantity: float
    unit: str
    price: Price | None

    @property
    def usd(self) -> float | None:
        """What it costs; ``None`` when that is not known."""
        return None if self.price is None else self.quantity * self.price.usd
