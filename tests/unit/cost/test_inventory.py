"""What a fleet is made of, and who is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime.contract.environment import HousekeepingEnvironment
from runsfleet_runtime.contract.inventory import Inventory
from runsfleet_runtime.cost.aws_topic import SnsTopic
from runsfleet_runtime.cost.inventory import services
from runsfleet_runtime.cost.ssm import InventoryUnavailableError, read_inventory

INVENTORY = Inventory(
    functions={"dispatch": 512},
    log_groups=("/dispatch",),
    tables=("circuits",),
    secrets=2,
    alarms=23,
)
ENVIRONMENT = HousekeepingEnvironment(
    fleet="dev",
    github_app_secret="ssm:/app",
    slots_table="slots",
    jobs_table="jobs",
    instances_table="instances",
    jobs_queue_url="https://sqs/1/jobs.fifo",
    events_queue_url="https://sqs/1/events",
    instance_role_id="AROAEXAMPLE",
    leases_table="leases",
    cache_bucket="cache",
    termination_queue_url="https://sqs/1/termination",
    dead_letter_queue_urls=(
        {"queue": "https://sqs/1/jobs.fifo", "dead_letters": "https://sqs/1/dead.fifo"},
        {"queue": "https://sqs/1/events", "dead_letters": "https://sqs/1/dead-events"},
    ),
    runners_table="runners",
)
BY_LAMBDA = {
    "AWS_LAMBDA_FUNCTION_NAME": "housekeeping",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/housekeeping",
}


@pytest.fixture
def aws() -> Iterator[None]:
    """Give an account in memory."""
    with mock_aws():
        yield


def test_the_function_adds_itself_and_what_its_variables_name() -> None:
    """The inventory cannot hold the function that reads it."""
    found = services(INVENTORY, ENVIRONMENT, BY_LAMBDA)
    assert found.functions == {"dispatch": 512, "housekeeping": 256}
    assert set(found.log_groups) == {"/dispatch", "/housekeeping"}
    assert found.queues == {
        "jobs.fifo": True,
        "dead.fifo": True,
        "events": False,
        "dead-events": False,
    }
    assert set(found.tables) == {"jobs", "instances", "leases", "slots", "runners", "circuits"}
    assert found.tables["instances"] == ("by-day",)
    assert "by-status" in found.tables["jobs"]
    assert (found.bucket, found.secrets, found.alarms) == ("cache", 2, 23)


@pytest.mark.usefixtures("aws")
def test_the_inventory_is_read_as_it_was_written() -> None:
    """What is not there is unknown, and never empty."""
    client = boto3.client("ssm", region_name="us-east-1")
    client.put_parameter(Name="inventory", Value=INVENTORY.to_json(), Type="String")
    assert read_inventory(client, "inventory") == INVENTORY
    with pytest.raises(InventoryUnavailableError, match="parameter other"):
        read_inventory(client, "other")


@pytest.mark.usefixtures("aws")
def test_a_topic_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A topic that is gone is a line in the log."""
    sns: Any = boto3.client("sns", region_name="us-east-1")
    sqs: Any = boto3.client("sqs", region_name="us-east-1")
    url = sqs.create_queue(QueueName="people")["QueueUrl"]
    topic = sns.create_topic(Name="costs")["TopicArn"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"])
    SnsTopic(sns, topic).tell("dev cost 1.00 USD", "12 jobs")
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    body = json.loads(message["Body"])
    assert (body["Subject"], body["Message"]) == ("dev cost 1.00 USD", "12 jobs")
    sns.delete_topic(TopicArn=topic)
    SnsTopic(sns, topic).tell("dev cost 1.00 USD", "12 jobs")
    assert "nobody was told" in caplog.text
