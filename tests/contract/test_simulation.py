"""The simulated fleet is set up as the constructs deploy the real one."""

from __future__ import annotations

import re

from runsfleet_constructs import (
    dispatch_function,
    events_function,
    housekeeping_function,
    job_queues,
    termination_function,
    webhook_intake,
)
from runsfleet_constructs.housekeeping_schedules import DEFAULT_SCHEDULES
from runsfleet_runtime.contract.environment import DispatchEnvironment
from tests.simulation import world

_SECONDS = {"minute": 60, "hour": 3600}


def test_functions_have_the_same_limits() -> None:
    """Timeouts and batches; no batch waits longer for more messages than the simulated one."""
    modules = {
        "dispatch": dispatch_function,
        "termination": termination_function,
        "events": events_function,
        "housekeeping": housekeeping_function,
    }
    for name, module in modules.items():
        timeout, batch, window = world.FUNCTIONS[name]
        assert (timeout, batch) == (module.TIMEOUT, module.BATCH)
        assert getattr(module, "BATCHING_WINDOW", 0) <= window
    assert world.FUNCTIONS["webhook"][0] == webhook_intake.TIMEOUT
    assert modules.keys() | {"webhook"} == world.FUNCTIONS.keys()


def test_queues_hide_and_bury_messages_alike() -> None:
    """Visibility timeouts and receives, and the lease of a claim below the timeout."""
    assert job_queues.MAX_RECEIVES == world.MAX_RECEIVES
    assert world.VISIBILITY == {
        "jobs": job_queues.VISIBILITY,
        "termination": job_queues.VISIBILITY,
        "events": job_queues.VISIBILITY,
        "housekeeping": job_queues.HOUSEKEEPING_VISIBILITY,
    }
    defaults = {f.name: f.default for f in DispatchEnvironment.__dataclass_fields__.values()}
    assert defaults["claim_lease_seconds"] == dispatch_function.CLAIM_LEASE


def test_sweeps_are_due_as_often() -> None:
    """A sweep of a time of day is due once a day; what people read changes nothing of jobs."""
    found = {}
    for task, schedule in DEFAULT_SCHEDULES.items():
        if task.value == "cost_report":
            continue
        rate = re.fullmatch(r"rate\((\d+) (minute|hour)s?\)", schedule)
        found[task] = int(rate[1]) * _SECONDS[rate[2]] if rate else 24 * 3600
    assert found == world.SCHEDULES
