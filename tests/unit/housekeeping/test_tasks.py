"""Every task of the contract can be made, and only the one that is due is imported."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from runsfleet_runtime.contract.environment import ConfigStore, HousekeepingEnvironment
from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping.tasks import Parts, make
from runsfleet_runtime.labels import LabelSettings
from tests.unit.housekeeping.frame import NOW, Frame, GitHub, Records, Redispatcher


class Gateway:
    """What tasks take of GitHub."""

    def __getattr__(self, name: str) -> Any:
        return GitHub()


def parts(store: ConfigStore) -> Parts:
    """Return parts that nothing is called of."""
    other: dict[str, Any] = {
        "github": Gateway,
        "runners": object,
        "records": Records,
        "redispatcher": Redispatcher,
        "labels": LabelSettings,
    }
    return Parts(
        environment=HousekeepingEnvironment(
            fleet="dev",
            github_app_secret="ssm:/app",
            slots_table="slots",
            jobs_table="jobs",
            instances_table="instances",
            jobs_queue_url="https://sqs/jobs.fifo",
            events_queue_url="https://sqs/events",
            instance_role_id="AROAEXAMPLE",
            leases_table="leases",
            cache_bucket="cache",
            termination_queue_url="https://sqs/termination",
            dead_letter_queue_urls=({"queue": "https://sqs/a", "dead_letters": "https://sqs/b"},),
            config_store=store,
            runners_table="runners",
            config_parameter_prefix="/runs-fleet/dev/runners",
        ),
        client=lambda service: object(),
        price_list=object,
        metrics=Frame(),
        clock=lambda: NOW,
        jitter=lambda: 0.5,
        new_id=lambda: "id",
        environ={},
        **other,
    )


@pytest.mark.parametrize("store", list(ConfigStore))
@pytest.mark.parametrize("name", list(HousekeepingTask))
def test_every_task_can_be_made(name: HousekeepingTask, store: ConfigStore) -> None:
    """With either store; each knows its own name, and its limit bounds what it may do."""
    task = make(name, parts(store))
    assert task.name is name
    assert 0 < task.limit <= 5000


def test_tasks_are_imported_when_they_are_due() -> None:
    """A function that runs one task does not load the others."""
    program = (
        "import sys; import runsfleet_runtime.housekeeping.tasks, "
        "runsfleet_runtime.housekeeping.runner, runsfleet_runtime.housekeeping.leases.dynamodb; "
        "print([m for m in sys.modules if m.endswith(('_instances', '_jobs', '_letters'))])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
