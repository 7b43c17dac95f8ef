"""A network for runners: public subnets, no NAT by default, gateway endpoints for nothing."""

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
    and 0.045 USD for each GB. Whoever wants jobs labelled ``private=true`` all the same, whose
    instances have no address of their own, asks for ``nat_gateways``. The zones are chosen at
    deployment, so that a synthesis needs neither an account nor a look-up.

    The VPC's default security group stays as EC2 makes it (it admits only its own members) and has
    no member: emptying it takes a custom resource, which is more to trust than it removes.

    Args:
        scope: Parent.
        construct_id: Id.
        cidr: Addresses of the VPC, ``/16`` to ``/24``; default ``10.91.0.0/16``.
        zones: Number of availability zones, each with one subnet; 1 to 4. Default 3 when the region
            of the stack is known and has as many, else 2.
        nat_gateways: Gateways for private subnets, of which there is then one in each zone; default
            0, and no private subnet. With fewer than zones some traffic crosses zones, and a zone
            that fails may take others' way out with it. They can be added later: the private
            subnets lie in addresses that a network of up to three zones leaves free.

    Raises:
        ValueError: If the addresses, or the number of zones or gateways, are out of range.

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
        nat_gateways: int = 0,
    ) -> None:
        super().__init__(scope, construct_id)
        blocks = _subnet_blocks(cidr)
        count = _zone_count(cdk.Stack.of(self).region) if zones is None else zones
        most = _MAX_ZONES - 1 if nat_gateways else _MAX_ZONES
        check_between("zones", count, 1, most, "leave it out for 2 or 3")
        check_between("nat_gateways", nat_gateways, 0, count, "one for each zone is the most")
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
        gateways = [
            self._nat_gateway(index + 1, subnets[index], attachment)
            for index in range(nat_gateways)
        ]
        private = (
            [
                self._private_subnet(index + 1, vpc.ref, names[index], block, gateways)
                for index, block in enumerate(_private_blocks(blocks[-1])[:count])
            ]
            if gateways
            else []
        )
        region = cdk.Stack.of(self).region
        for name, service in (("S3", "s3"), ("DynamoDb", "dynamodb")):
            ec2.CfnVPCEndpoint(
                self,
                name,
                vpc_id=vpc.ref,
                service_name=f"com.amazonaws.{region}.{service}",
                vpc_endpoint_type="Gateway",
                route_table_ids=[routes.ref, *(table for _, table in private)],
            )
        self.vpc: ec2.IVpc = ec2.Vpc.from_vpc_attributes(
            self,
            "Network",
            vpc_id=vpc.ref,
            vpc_cidr_block=cidr,
            availability_zones=names,
            public_subnet_ids=subnets,
            public_subnet_route_table_ids=[routes.ref] * count,
            private_subnet_ids=[subnet for subnet, _ in private] or None,
            private_subnet_route_table_ids=[table for _, table in private] or None,
        )

    def _nat_gateway(
        self, number: int, subnet: str, attachment: ec2.CfnVPCGatewayAttachment
    ) -> str:
        address = ec2.CfnEIP(self, f"NatAddress{number}", domain="vpc")
        # an address of a network that has no way out yet cannot be had
        address.add_resource_dependency(attachment)
        gateway = ec2.CfnNatGateway(
            self,
            f"Nat{number}",
            subnet_id=subnet,
            allocation_id=address.attr_allocation_id,
        )
        return gateway.ref

    def _private_subnet(
        self, number: int, vpc: str, zone: str, block: str, gateways: list[str]
    ) -> tuple[str, str]:
        """Make a subnet that gets out by a gateway, of its own zone where there is one."""
        name = f"Private{number}"
        subnet = ec2.CfnSubnet(self, name, vpc_id=vpc, availability_zone=zone, cidr_block=block)
        routes = ec2.CfnRouteTable(self, f"{name}Routes", vpc_id=vpc)
        ec2.CfnRoute(
            self,
            f"{name}ToNat",
            route_table_id=routes.ref,
            destination_cidr_block="0.0.0.0/0",
            nat_gateway_id=gateways[(number - 1) % len(gateways)],
        )
        ec2.CfnSubnetRouteTableAssociation(
            self, f"{name}Association", route_table_id=routes.ref, subnet_id=subnet.ref
        )
        return subnet.ref, routes.ref


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


def _private_blocks(block: str) -> list[str]:
    # a quarter of the quarter that public subnets leave free
    return [str(part) for part in ipaddress.IPv4Network(block).subnets(prefixlen_diff=2)]
