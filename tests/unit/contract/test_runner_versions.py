from __future__ import annotations

import math

import pytest

from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.contract.runner_versions import (
    REGISTRATION_FLOOR,
    Outdated,
    days_left,
    outdated,
)

DAY = 86_400.0
THIRD, TENTH = "1970-01-04T00:00:00Z", "1970-01-11T00:00:00+00:00"


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
        (None, None, math.inf),
        (THIRD, TENTH, 3.0),
        (TENTH, THIRD, 3.0),
        (None, TENTH, 10.0),
        (THIRD, None, 3.0),
        ("soon", TENTH, None),
        ("1970-01-04T00:00:00", None, None),
        (12, None, None),
    ],
)
def test_the_earlier_end_of_a_version_counts(
    registration: object, runtime: object, expected: float | None
) -> None:
    """No end is for ever; an answer that cannot be read is no answer."""
    answer = {"registration_deprecates_at": registration, "runtime_deprecates_at": runtime}
    assert days_left(answer, now=0) == expected


def test_a_version_may_be_over() -> None:
    """Then the days are negative."""
    answer = {"registration_deprecates_at": THIRD, "runtime_deprecates_at": None}
    assert days_left(answer, now=5 * DAY) == -2.0


@pytest.mark.parametrize("answer", [{}, {"registration_deprecates_at": None}])
def test_an_answer_without_the_days_tells_nothing(answer: dict[str, object]) -> None:
    """A server without that endpoint, or with another form of it, says nothing about a version."""
    assert days_left(answer, now=0) is None
