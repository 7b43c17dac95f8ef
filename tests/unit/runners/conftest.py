"""An AWS in memory, whose requests are recorded: it accepts some that AWS refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.session import get_session
from moto import mock_aws

from runsfleet_runtime.contract.messages import RunnerConfig

REGION = "eu-central-1"
TABLE = "runners"
JOBS = "jobs"


class Clients:
    """Makes clients and records what they send, as (action, parameters)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._made: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        if service not in self._made:
            made = get_session().create_client(service, region_name=REGION)
            made.meta.events.register("provide-client-params.*.*", self._record)
            self._made[service] = made
        return self._made[service]

    client = __call__  # the name that the agent uses

    def _record(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.calls.append((model.name, params))

    def sent(self, action: str) -> list[dict[str, Any]]:
        return [params for name, params in self.calls if name == action]


@pytest.fixture
def clients() -> Iterator[Clients]:
    """Start an AWS in memory with the two tables."""
    with mock_aws():
        made = Clients()
        for table, key in ((TABLE, "instance_key"), (JOBS, "job_id")):
            made("dynamodb").create_table(
                TableName=table,
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        made.calls.clear()
        yield made


@pytest.fixture
def config() -> Callable[..., RunnerConfig]:
    """Make a configuration of real size."""

    def make(**changes: Any) -> RunnerConfig:
        values: dict[str, Any] = {
            "instance_id": "i-0123456789abcdef0",
            "job_id": 55_812_345_678,
            "dispatch": 3,
            "run_id": 19_512_345_678,
            "repository": "octo/spoon",
            "server_url": "https://github.com",
            "runner_url": "https://github.com/octo",
            "runner_name": "runsfleet-i-0123456789abcdef0",
            "runner_group_id": 7,
            "labels": ("runs-fleet=1/runner=4cpu-linux-arm64", " Ünïcode ", "a{{b}}c"),
            "jit_config": "eyJ" + "0aB+/" * 820 + "==",  # 4.1k characters
            "package_url": "https://github.com/actions/runner/releases/download/v2/p.tar.gz",
            "package_filename": "actions-runner-linux-arm64-2.337.0.tar.gz",
            "package_sha256": "ab" * 32,
            "max_runtime_seconds": 7200,
            "idle_timeout_seconds": 300,
        }
        return RunnerConfig(**(values | changes))

    return make
