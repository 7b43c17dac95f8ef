"""Whether an instance exists at all, whoever it belongs to."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from runsfleet_runtime.housekeeping.ec2 import Ec2Presence
from runsfleet_runtime.housekeeping.ports import SweepError


@mock_aws
def test_instance_of_anybody_exists_until_it_is_terminated() -> None:
    """No tag is asked for: another fleet's instance is there as well."""
    client = boto3.client("ec2")
    image = client.describe_images()["Images"][0]["ImageId"]
    made = client.run_instances(ImageId=image, MinCount=1, MaxCount=1)
    instance_id = made["Instances"][0]["InstanceId"]
    presence = Ec2Presence(client)
    assert presence.exists(instance_id)
    client.stop_instances(InstanceIds=[instance_id])
    assert presence.exists(instance_id)
    client.terminate_instances(InstanceIds=[instance_id])
    assert not presence.exists(instance_id)
    assert not presence.exists("i-0123456789abcdef0")


def test_no_answer_is_no_absence() -> None:
    """A failed question is told as such."""

    class Down:
        def describe_instances(self, **parameters: Any) -> Any:
            raise ClientError({"Error": {"Code": "RequestLimitExceeded"}}, "DescribeInstances")

    with pytest.raises(SweepError):
        Ec2Presence(Down()).exists("i-0123456789abcdef0")
