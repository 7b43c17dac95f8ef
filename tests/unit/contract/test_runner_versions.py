from __future__ import annotations

import pytest

from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.contract.runner_versions import (
    REGISTRATION_FLOOR,
    Outdated,
    days_left,
    outdated,
)

DAY = 86_400.0


@pytest.mark.parametrize(
    ("version", "offered", "expected"),
    [
        ("2.337.0", "2.337.0", None),
        ("2.337.0", "", None),
        ("2.338.0", "2.337.0", None),
        ("2.337.0", "2.337.1", Outdated.SUPERSEDED),
        ("2.99.0", "2.337.0", Outdated.BELOW_FLOOR),
        ("2.328.9", "", Outdated.BELOW_FLOOR),
        (REGISTRATION_FLOOR, "", None),
        (REGISTRATION_FLOOR, "2.400.0", Outdated.SUPERSEDED),
        ("", "2.337.0", None),
        ("latest", "2.337.0", None),
    ],
)
def test_a_runner_is_judged_by_its_version(
    version: str, offered: str, expected: Outdated | None
) -> None:
    """Below the floor GitHub refuses it, behind the offered one it will; unknown is neither."""
    assert outdated(version, offered=offered) is expected


def test_the_metric_knows_every_reason() -> None:
    """Each reason is a value of the metric's dimension."""
    assert set(Metric.RUNNERS_OUTDATED.values) == {reason.value for reason in Outdated}


@pytest.mark.parametrize(
    ("registration", "runtime", "expected"),
    [
        (None, None, None),
        (3 * DAY, 10 * DAY, 2.0),
        (10 * DAY, 3 * DAY, 2.0),
        (None, 10 * DAY, 9.0),
        (3 * DAY, None, 2.0),
        (0.5 * DAY, 3 * DAY, -0.5),
    ],
)
def test_the_earlier_end_of_a_version_counts(
    registration: float | None, runtime: float | None, expected: float | None
) -> None:
    """No end is no number; a version that is over has less than no days."""
    left = days_left(registration_ends_at=registration, runtime_ends_at=runtime, now=DAY)
    assert left == expected
