"""Checks that the constructs share: early, in lower case, with the value and the cure."""

from __future__ import annotations

import re

import aws_cdk as cdk

FLEET_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]")
"""Fits a tag value, an SSM path, a log group's name and the ``env=`` key of a label."""


def check_fleet_name(name: str) -> str:
    """Return the fleet's name if it can be used everywhere that a fleet is named.

    Raises:
        ValueError: If it cannot.
    """
    if cdk.Token.is_unresolved(name):
        raise ValueError(
            "fleet_name must be known at synthesis, got a token; it is part of tags, paths and "
            "labels, so give it as text"
        )
    if not FLEET_NAME.fullmatch(name):
        raise ValueError(
            f"fleet_name must be 2 to 32 characters of a-z, 0-9 and -, begin with a letter and not "
            f"end with -, got {name!r}; choose one like 'dev'"
        )
    return name


def check_between(name: str, value: float, least: float, most: float, cure: str) -> None:
    """Check a number.

    Raises:
        ValueError: If it is outside ``least`` and ``most``, both included.
    """
    if cdk.Token.is_unresolved(value):
        return
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least:g} and {most:g}, got {value:g}; {cure}")


_OTLP_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")


def check_otlp_endpoint(endpoint: str | None) -> str | None:
    """Return the base URL of a collector if it is one.

    Raises:
        ValueError: If it is not.
    """
    if endpoint is None or cdk.Token.is_unresolved(endpoint):
        return endpoint
    if not _OTLP_ENDPOINT.fullmatch(endpoint):
        raise ValueError(
            f"otlp_endpoint must be an http or https URL without query, got {endpoint!r}; give "
            "the collector's base URL, like https://otel.example.com:4318"
        )
    if endpoint.rstrip("/").endswith("/v1/traces"):
        raise ValueError(
            f"otlp_endpoint must be the collector's base URL, got {endpoint!r}; leave /v1/traces "
            "out, it is added"
        )
    return endpoint


def check_duration(name: str, value: cdk.Duration, least: int, most: int, cure: str) -> int:
    """Return a duration in whole seconds.

    Raises:
        ValueError: If it is outside ``least`` and ``most`` seconds, both included.
    """
    seconds = int(value.to_seconds())
    if not least <= seconds <= most:
        raise ValueError(f"{name} must be between {least} s and {most} s, got {seconds} s; {cure}")
    return seconds


class Findings:
    """All that is wrong with a group of values, told at once.

    Example:
        >>> findings = Findings()
        >>> findings.at_least("max_runners", 5, 1, "leave it out for no cap")
        >>> findings.raise_all()
    """

    def __init__(self) -> None:
        self._found: list[str] = []

    def add(self, finding: str) -> None:
        """Take note of something, with the value and the cure."""
        self._found.append(finding)

    def at_least(self, name: str, value: float, least: float, cure: str) -> None:
        """Take note of a number that is too small."""
        if not cdk.Token.is_unresolved(value) and value < least:
            self.add(f"{name} must be at least {least:g}, got {value:g}; {cure}")

    def between(self, name: str, value: float, least: float, most: float, cure: str) -> None:
        """Take note of a number that is out of range."""
        try:
            check_between(name, value, least, most, cure)
        except ValueError as error:
            self.add(str(error))

    def raise_all(self) -> None:
        """Raise what was found.

        Raises:
            ValueError: With each finding in a line of its own, if there is any.
        """
        if self._found:
            raise ValueError("\n".join(self._found))


def check_root_device(name: str) -> str:
    """Return the name of a root device if EC2 could know one by it.

    Raises:
        ValueError: If it cannot.
    """
    if not cdk.Token.is_unresolved(name) and not name.startswith("/dev/"):
        raise ValueError(
            f"root_device must be a device name like /dev/sda1, got {name!r}; "
            "aws ec2 describe-images shows it as RootDeviceName"
        )
    return name
