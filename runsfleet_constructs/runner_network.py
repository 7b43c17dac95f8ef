"""A network for runners: public subnets, no NAT, gateway endpoints that cost nothing."""

from __future__ import annotations

import ipaddress

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from runsfleet_constructs._acknowledge import acknowledge
from runsfleet_constructs._checks import check_between

DEFAULT_CIDR = "10.91.0.0/16"
"""Three subnets of 16,379 usable addresses: room for 15,000 runners even in a single zone."""

WIDEST_PREFIX = 16
"""The widest that a VPC may have."""

NARROWEST_PREFIX = 24
"""Each subnet gets a quarter, and below this a quarter would hold fewer than 59 instances."""

_TWO_ZONE_REGIONS = frozenset({"us-west-1"})
"""Regions where an account may see only two zones."""

_MAX_ZONES = 4


class RunnerNetwork(Construct):
    """A VPC whose instances reach the internet with public addresses and are reached by nobody.

    Runners need to get out, not to be reached: a NAT gateway would cost 32 USD a month and zone,
    and 0.045 USD for each GB. The zones are chosen at deployment, so that a synthesis needs neither
    an account nor a look-up.

    The VPC's default security group stays as EC2 makes it (it admits only its own members) and has
    no member: emptying it takes a custom resource, which is more to trust than it removes.

    Args:
        scope: Parent.
        construct_id: Id.
        cidr: Addresses of the VPC, ``/16`` to ``/24``; default ``10.91.0.0/16``.
        zones: Number of availability zones, each with one subnet; 1 to 4. Default 3 when the region
            of the stack is known and has as many, else 2.

    Raises:
        ValueError: If the addresses or the number of zones are out of range.

    Attributes:
        vpc: The network.

    Example:
        >>> network = RunnerNetwork(self, "Network", cidr="10.20.0.0/18")  # doctest: +SKIP
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        cidr: str = DEFAULT_CIDR,
        zones: int | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        blocks = _subnet_blocks(cidr)
        count = _zone_count(cdk.Stack.of(self).region) if zones is None else zones
        check_between("zones", count, 1, _MAX_ZONES, "leave it out for 2 or 3")
        vpc = ec2.CfnVPC(
            self, "Vpc", cidr_block=cidr, enable_dns_hostnames=True, enable_dns_support=True
        )
        acknowledge(
            vpc,
            "AwsSolutions-VPC7",
            "flow logs of short-lived runners cost more than the fleet at rest; add them to the "
            "vpc where a policy asks for them",
        )
        cdk.Tags.of(self).add("Name", self.node.path)
        gateway = ec2.CfnInternetGateway(self, "Internet")
        attachment = ec2.CfnVPCGatewayAttachment(
            self, "InternetAttachment", vpc_id=vpc.ref, internet_gateway_id=gateway.ref
        )
        routes = ec2.CfnRouteTable(self, "Routes", vpc_id=vpc.ref)
        ec2.CfnRoute(
            self,
            "ToInternet",
            route_table_id=routes.ref,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.ref,
        ).add_resource_dependency(attachment)
        subnets: list[str] = []
        names = [cdk.Fn.select(index, cdk.Fn.get_azs()) for index in range(count)]
        for index, zone in enumerate(names):
            subnet = ec2.CfnSubnet(
                self,
                f"Public{index + 1}",
                vpc_id=vpc.ref,
                availability_zone=zone,
                cidr_block=blocks[index],
                map_public_ip_on_launch=True,
            )
            ec2.CfnSubnetRouteTableAssociation(
                self,
                f"Public{index + 1}Routes",
                route_table_id=routes.ref,
                subnet_id=subnet.ref,
            )
            subnets.append(subnet.ref)
        region = cdk.Stack.of(self).region
        for name, service in (("S3", "s3"), ("DynamoDb", "dynamodb")):
            ec2.CfnVPCEndpoint(
                self,
                name,
                vpc_id=vpc.ref,
                service_name=f"com.amazonaws.{region}.{service}",
                vpc_endpoint_type="Gateway",
                route_table_ids=[routes.ref],
            )
        self.vpc: ec2.IVpc = ec2.Vpc.from_vpc_attributes(
            self,
            "Network",
            vpc_id=vpc.ref,
            vpc_cidr_block=cidr,
            availability_zones=names,
            public_subnet_ids=subnets,
            public_subnet_route_table_ids=[routes.ref] * count,
        )


def _zone_count(region: str) -> int:
    known = not cdk.Token.is_unresolved(region) and region not in _TWO_ZONE_REGIONS
    return 3 if known else 2


def _subnet_blocks(cidr: str) -> list[str]:
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise ValueError(
            f"cidr must be an IPv4 network like {DEFAULT_CIDR}, got {cidr!r} ({error})"
        ) from None
    check_between(
        "prefix length of cidr",
        network.prefixlen,
        WIDEST_PREFIX,
        NARROWEST_PREFIX,
        f"use {DEFAULT_CIDR}",
    )
    return [str(block) for block in network.subnets(prefixlen_diff=2)]
