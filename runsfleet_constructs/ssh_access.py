"""Who may log in to Linux instances by SSH, where Session Manager is not enough."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2

from runsfleet_constructs._checks import Findings

SSH_PORT = 22

_SHORTEST = {4: 8, 6: 16}
"""Shortest prefixes that are let in. ``0.0.0.0/1`` and its other half are the whole world too."""


@dataclass(frozen=True, kw_only=True)
class SshAccess:
    """A key and the networks that it may be used from; port 22 and nothing else.

    Session Manager needs none of this: no key to lose, no port to scan, and its sessions are
    logged. SSH is for tools that know nothing else. Who has the key is root on any runner, and
    nothing here logs what is done.

    Attributes:
        key_pair: The key of the image's first user (``ubuntu`` on Ubuntu).
        peers: Networks or security groups that may connect. The whole world is refused.

    Raises:
        ValueError: If nobody may connect, or everybody.

    Example:
        >>> SshAccess(  # doctest: +SKIP
        ...     key_pair=ec2.KeyPair.from_key_pair_name(self, "Key", "platform-team"),
        ...     peers=[ec2.Peer.ipv4("10.0.0.0/8")],
        ... )
    """

    key_pair: ec2.IKeyPair
    peers: Sequence[ec2.IPeer]

    def __post_init__(self) -> None:
        findings = Findings()
        if not self.peers:
            findings.add(
                "peers of SshAccess must name who may connect, got none; leave ssh out to let "
                "nobody in, as Session Manager needs no open port"
            )
        for peer in self.peers:
            name = peer.unique_id
            if not cdk.Token.is_unresolved(name) and is_the_world(name):
                findings.add(
                    f"peers of SshAccess must be networks of your own, got {name!r}, which is the "
                    "internet or a large part of it; name your network, such as "
                    'ec2.Peer.ipv4("10.0.0.0/8"), or use Session Manager'
                )
        findings.raise_all()

    def open(self, connections: ec2.Connections) -> None:
        """Let the peers in.

        Args:
            connections: The instances' door.
        """
        for peer in self.peers:
            connections.allow_from(peer, ec2.Port.tcp(SSH_PORT), "SSH")


def is_the_world(name: str) -> bool:
    """Tell whether a network is the internet or a large part of it.

    Args:
        name: A network such as ``10.0.0.0/8``, or the name of anything else.

    Example:
        >>> is_the_world("0.0.0.0/0"), is_the_world("10.0.0.0/8"), is_the_world("sg-0abc")
        (True, False, False)
    """
    try:
        network = ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False  # a security group or a prefix list
    return network.prefixlen < _SHORTEST[network.version]
