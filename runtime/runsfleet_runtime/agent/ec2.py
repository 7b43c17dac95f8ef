"""The end of an instance, by EC2. Satisfies ``EndsInstance``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

    from runsfleet_runtime.agent.aws import AwsClients


class Ec2Instances:
    """Terminates this instance; IAM lets it terminate no other.

    Args:
        clients: AWS.
    """

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients

    def terminate(self, instance_id: str) -> None:
        """Terminate the instance."""
        client = cast("EC2Client", self._clients.client("ec2"))
        client.terminate_instances(InstanceIds=[instance_id])
