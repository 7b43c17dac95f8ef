"""What the world is told of a fleet's health."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from runsfleet_runtime.health.model import (
    SWEEPS_STAND_STILL_SECONDS,
    Findings,
    LastRun,
    QueueDepth,
    reasons,
    to_document,
)

NOW = 1_700_000_000.0
WELL = Findings(
    jobs=QueueDepth(waiting=3, in_flight=1),
    dead_jobs=0,
    open_circuits=2,
    sweeps=[LastRun(task="waiting_jobs", ran_at=NOW - 60, outcome="succeeded")],
)


def test_a_fleet_that_is_well() -> None:
    """Counts, times and names of ours; jobs that wait and circuits that are open are no illness."""
    assert to_document(WELL, fleet="dev", region="eu-central-1", version="1.2.3", now=NOW) == {
        "status": "ok",
        "reasons": [],
        "fleet": "dev",
        "region": "eu-central-1",
        "version": "1.2.3",
        "at": "2023-11-14T22:13:20Z",
        "jobs": {"waiting": 3, "in_flight": 1, "dead_letters": 0},
        "open_circuits": 2,
        "sweeps": {"waiting_jobs": {"ran_at": "2023-11-14T22:12:20Z", "outcome": "succeeded"}},
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"jobs": None}, "not known: queue"),
        ({"dead_jobs": None}, "not known: dead letters"),
        ({"open_circuits": None}, "not known: circuits"),
        ({"sweeps": None}, "not known: sweeps"),
        ({"dead_jobs": 1}, "jobs were given up by dispatch: see the dead-letter queue"),
        (
            {"sweeps": [LastRun(task="old_jobs", ran_at=NOW, outcome="failed")]},
            "sweeps failed: old_jobs",
        ),
        (
            {
                "sweeps": [
                    LastRun(
                        task="old_jobs",
                        ran_at=NOW - SWEEPS_STAND_STILL_SECONDS - 1,
                        outcome="succeeded",
                    )
                ]
            },
            "no sweep ran for an hour",
        ),
    ],
)
def test_each_illness_has_a_reason(change: dict[str, object], reason: str) -> None:
    """What is not known is not well."""
    ill = replace(WELL, **change)  # type: ignore[arg-type]  # of the field's own type
    assert reasons(ill, now=NOW) == [reason]
    assert to_document(ill, fleet="f", region="r", version="v", now=NOW)["status"] == "degraded"


def test_a_fleet_of_which_nothing_is_known() -> None:
    """All reads failed: it is degraded, and nothing is made up."""
    nothing = Findings(jobs=None, dead_jobs=None, open_circuits=None, sweeps=None)
    told = to_document(nothing, fleet="f", region="r", version="v", now=NOW)
    assert told["jobs"] == {"waiting": None, "in_flight": None, "dead_letters": None}
    assert told["open_circuits"] is told["sweeps"] is None
    assert len(told["reasons"]) == 4
    json.dumps(told)


def test_a_new_fleet_is_well() -> None:
    """Before the first sweep there is nothing to complain about."""
    assert reasons(replace(WELL, sweeps=[]), now=NOW) == []
