"""Configurations in DynamoDB, read back by what the agent reads with."""

from __future__ import annotations

from typing import Any

import pytest

from runsfleet_runtime.agent.dynamodb import DynamoDbConfigurations
from runsfleet_runtime.contract.messages import RunnerConfig
from runsfleet_runtime.runners.dynamodb import DynamoDBRunnerStore
from runsfleet_runtime.runners.ports import RunnerStoreError

ROLE = "AROAEXAMPLE"
NOW = 1_800_000_000.5


@pytest.fixture
def store(clients: Any) -> DynamoDBRunnerStore:
    """Make the store under test."""
    return DynamoDBRunnerStore(clients, table="runners", role_id=ROLE)


def read(clients: Any, instance_id: str, *, now: float = NOW, role: str = ROLE) -> str | None:
    """Read as the agent of an instance does."""
    return DynamoDbConfigurations(clients, table="runners", role_id=role).read(instance_id, now=now)


def test_configuration_and_job_are_written_in_one_transaction(
    store: DynamoDBRunnerStore, clients: Any, config: Any
) -> None:
    """The write joins the job's in one transaction and comes back byte for byte."""
    wanted = config()
    flip = {"Put": {"TableName": "jobs", "Item": {"job_id": {"S": "1"}}}}
    clients("dynamodb").transact_write_items(TransactItems=[*store.transact_put(wanted, NOW), flip])
    text = read(clients, wanted.instance_id)
    assert text == wanted.to_json()
    assert RunnerConfig.from_json(text or "") == wanted
    assert [name for name, _ in clients.calls if name != "GetItem"] == ["TransactWriteItems"]


def test_failed_transaction_writes_no_configuration(
    store: DynamoDBRunnerStore, clients: Any, config: Any
) -> None:
    """When the job's record refuses, the configuration is not written either."""
    flip = {
        "Put": {
            "TableName": "jobs",
            "Item": {"job_id": {"S": "1"}},
            "ConditionExpression": "attribute_exists(job_id)",
        }
    }
    client = clients("dynamodb")
    with pytest.raises(client.exceptions.TransactionCanceledException):
        client.transact_write_items(TransactItems=[*store.transact_put(config(), NOW), flip])
    assert read(clients, config().instance_id) is None


def test_plain_write_equals_the_one_in_a_transaction(
    store: DynamoDBRunnerStore, clients: Any, config: Any
) -> None:
    """A write by itself stores the same item."""
    store.put(config(), NOW)
    (entry,) = store.transact_put(config(), NOW)
    assert clients.sent("PutItem")[0] == entry["Put"]
    assert read(clients, config().instance_id) == config().to_json()


def test_second_write_replaces_the_first(
    store: DynamoDBRunnerStore, clients: Any, config: Any
) -> None:
    """A configuration written twice for one instance is the later one."""
    store.put(config(dispatch=1), NOW)
    store.put(config(dispatch=2), NOW)
    assert RunnerConfig.from_json(read(clients, config().instance_id) or "").dispatch == 2


def test_key_is_what_iam_knows_the_instance_by(
    store: DynamoDBRunnerStore, clients: Any, config: Any
) -> None:
    """The item is keyed by role and instance, so that no other instance's key finds it."""
    store.put(config(), NOW)
    item = clients.sent("PutItem")[0]["Item"]
    assert item["instance_key"] == {"S": f"{ROLE}:i-0123456789abcdef0"}
    assert item["instance_id"] == {"S": "i-0123456789abcdef0"}
    assert item["job_id"] == {"S": "55812345678"}
    assert read(clients, "i-another") is None
    assert read(clients, config().instance_id, role="AROAOTHER") is None


def test_item_outlives_the_longest_run_by_a_day(
    store: DynamoDBRunnerStore, clients: Any, config: Any
) -> None:
    """The item expires a day after its job could have ended, and counts as gone from then on."""
    store.put(config(), NOW)
    expires_at = int(clients.sent("PutItem")[0]["Item"]["expires_at"]["N"])
    assert expires_at == int(NOW) + 7200 + 300 + 86400
    assert read(clients, config().instance_id, now=expires_at - 1)
    assert read(clients, config().instance_id, now=expires_at) is None


def test_deletion_in_a_transaction(store: DynamoDBRunnerStore, clients: Any, config: Any) -> None:
    """The configuration disappears together with the closing of its job."""
    store.put(config(), NOW)
    entries = [*store.transact_delete(config().instance_id)]
    clients("dynamodb").transact_write_items(TransactItems=entries)
    assert read(clients, config().instance_id) is None


def test_deletion_may_be_repeated(clients: Any, config: Any) -> None:
    """The secret is gone at once; that and when the instance ended stays known for a day."""
    times = iter([NOW, NOW + 60])
    store = DynamoDBRunnerStore(clients, table="runners", role_id=ROLE, clock=lambda: next(times))
    store.put(config(), NOW - 60)
    for _ in range(2):
        store.delete(config().instance_id)
    assert read(clients, config().instance_id) is None
    key = {"instance_key": {"S": f"{ROLE}:{config().instance_id}"}}
    item = clients("dynamodb").get_item(TableName="runners", Key=key)["Item"]
    assert "config" not in item
    assert float(item["ended_at"]["N"]) == NOW
    assert int(item["expires_at"]["N"]) == int(NOW) + 60 + 86400


def test_failures_name_the_instance_and_no_secret(clients: Any, config: Any) -> None:
    """A store that cannot be written says for which instance, without the configuration."""
    store = DynamoDBRunnerStore(clients, table="absent", role_id=ROLE)
    with pytest.raises(RunnerStoreError, match="i-0123456789abcdef0") as caught:
        store.put(config(), NOW)
    assert config().jit_config not in str(caught.value)
    with pytest.raises(RunnerStoreError, match="i-0123456789abcdef0"):
        store.delete("i-0123456789abcdef0")
