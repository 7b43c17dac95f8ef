"""Stale configurations, of both stores: deleted whole when their instance is gone for long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime.contract.messages import RunnerConfig
from runsfleet_runtime.contract.tables import RunnerAttr
from runsfleet_runtime.housekeeping.dynamodb import DynamoDBConfigurations
from runsfleet_runtime.housekeeping.leftovers import Leftover
from runsfleet_runtime.housekeeping.model import TaskReport
from runsfleet_runtime.housekeeping.orphaned_instances import Configured
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.ssm import SsmConfigurations
from runsfleet_runtime.housekeeping.stale_configurations import StaleConfigurations
from runsfleet_runtime.runners.dynamodb import DynamoDBRunnerStore
from runsfleet_runtime.runners.ssm import SsmRunnerStore
from tests.unit.housekeeping.frame import NOW, Ec2, Frame

ROLE = "AROAEXAMPLE"
PREFIX = "/runs-fleet/dev/runners"
CONFIG = RunnerConfig(
    instance_id="i-1",
    job_id=5,
    run_id=7,
    repository="octo-org/hello",
    server_url="https://github.com",
    runner_url="https://github.com/octo-org",
    runner_name="runsfleet-i-1",
    labels=("l",),
    jit_config="x" * 4200,
)


class Store:
    """A store of configurations."""

    runners: Any
    configurations: Any
    now: float

    def write(self, *ids: str) -> None:
        for instance_id in ids:
            self.runners.put(replace(CONFIG, instance_id=instance_id), NOW)

    def left(self) -> list[str]:
        return sorted(c.instance_id for page in self.configurations.pages() for c in page)


class Table(Store):
    """The store in DynamoDB."""

    def __init__(self) -> None:
        self.client: Any = boto3.client("dynamodb")
        self.client.create_table(
            TableName="runners",
            KeySchema=[{"AttributeName": RunnerAttr.KEY.value, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": RunnerAttr.KEY.value, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.runners = DynamoDBRunnerStore(
            lambda _: self.client, table="runners", role_id=ROLE, clock=lambda: NOW
        )
        self.configurations = DynamoDBConfigurations(self.client, "runners", role_id=ROLE)
        self.now = NOW


class Parameters(Store):
    """The store in Parameter Store, two parts and more each."""

    def __init__(self) -> None:
        self.client: Any = boto3.client("ssm")
        self.runners = SsmRunnerStore(lambda _: self.client, prefix=PREFIX, role_id=ROLE)
        self.configurations = SsmConfigurations(self.client, prefix=PREFIX)
        self.now = datetime.now(UTC).timestamp()  # Parameter Store stamps by its own clock


@pytest.fixture(params=[Table, Parameters])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Both stores."""
    with mock_aws():
        yield request.param()


def sweep(store: Store, ec2: Ec2, *, later: float = 7200.0) -> TaskReport:
    """Run the task some time after the configurations were written."""
    frame = Frame(now=store.now + later)
    task = StaleConfigurations(
        configurations=store.configurations, runners=store.runners, instances=ec2
    )
    return frame.run(task)


def test_configuration_of_an_instance_that_is_gone_is_deleted_whole(store: Store) -> None:
    """All its parts go; that of a living instance stays."""
    store.write("i-1", "i-2")
    report = sweep(store, Ec2().add(Leftover(key="i-2", state="running")))
    assert (report.acted, report.spared) == (1, 1)
    assert store.left() == ["i-2"]


def test_young_configuration_is_left_alone(store: Store) -> None:
    """Its instance may be so new that EC2 does not show it."""
    store.write("i-1")
    assert sweep(store, Ec2(), later=3000).verdicts == {"spared: young": 1}


def test_instance_that_shows_up_in_the_second_look_keeps_its_configuration(store: Store) -> None:
    """EC2 is asked once more right before the deletion."""
    store.write("i-1")
    ec2 = Ec2()
    ec2.on_find = lambda key: ec2.add(Leftover(key=key, state="pending"))
    assert sweep(store, ec2).verdicts == {"spared: its instance lives": 1}
    assert store.left() == ["i-1"]


def test_ec2_that_does_not_answer_deletes_nothing(store: Store) -> None:
    """Without the list of instances every configuration would look stale."""
    store.write("i-1")
    with pytest.raises(SweepError):
        sweep(store, Ec2(is_down=True))
    assert store.left() == ["i-1"]


def test_every_page_is_read(store: Store) -> None:
    """More than a page of either store: none is overlooked."""
    ids = [f"i-{n:02}" for n in range(25)]
    store.write(*ids)
    assert store.left() == ids
    assert sweep(store, Ec2()).acted == 25


def test_unstamped_configuration_is_left_alone() -> None:
    """Scenario 51: an age that cannot be read is never old."""
    with mock_aws():
        table = Table()
        table.write("i-1")
        table.client.update_item(
            TableName="runners",
            Key={RunnerAttr.KEY.value: {"S": f"{ROLE}:i-1"}},
            UpdateExpression=f"REMOVE {RunnerAttr.CREATED_AT}",
        )
        assert sweep(table, Ec2()).verdicts == {"spared: its age is unknown": 1}


def test_what_is_kept_tells_of_an_instance() -> None:
    """The repository while the configuration is there, and the end once that was taken."""
    with mock_aws():
        table = Table()
        assert table.configurations.find("i-1") is None
        table.write("i-1")
        assert table.configurations.find("i-1") == Configured("octo-org/hello", has_ended=False)
        table.runners.delete("i-1")
        assert table.configurations.find("i-1") == Configured("", has_ended=True)
        parameters = Parameters()
        assert parameters.configurations.find("i-1") is None
        parameters.write("i-1")
        assert parameters.configurations.find("i-1") == Configured("", has_ended=False)
