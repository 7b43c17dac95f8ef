"""A job's record as a story."""

from __future__ import annotations

from typing import Any

from runsfleet_cli.operate.story import story
from runsfleet_runtime.contract.tables import JobAttr
from runsfleet_runtime.jobs.items import to_attribute

QUEUED_AT = 1_000_000.0


def item(**values: Any) -> dict[str, Any]:
    """Return a record as DynamoDB does."""
    common = {
        "ID": "42",
        "STATUS": "queued",
        "RUN_ID": 7,
        "RUN_ATTEMPT": 1,
        "REPOSITORY": "acme/web",
        "LABELS": ["runs-fleet=42/cpu=2"],
        "QUEUED_AT": QUEUED_AT,
    }
    return {JobAttr[n].value: to_attribute(v) for n, v in (common | values).items()}


def told(now: float = QUEUED_AT + 10, **values: Any) -> list[tuple[str, str]]:
    """Return what is told, each with its word."""
    return [(event.what, event.text) for event in story(item(**values), now=now)]


def test_a_job_that_went_well() -> None:
    """Each step stands in order with how long it took, and nothing comes next."""
    assert told(
        STATUS="completed",
        CLAIMED_AT=QUEUED_AT + 1,
        LAUNCHED_AT=QUEUED_AT + 3,
        STARTED_AT=QUEUED_AT + 40,
        COMPLETED_AT=QUEUED_AT + 140,
        INSTANCE_ID="i-0abc",
        INSTANCE_TYPE="c7g.large",
        CAPACITY_TYPE="spot",
        ZONE="eu-central-1a",
        OUTCOME="success",
        EXIT_CODE=0,
    ) == [
        ("queued", "at GitHub, for runs-fleet=42/cpu=2"),
        ("claimed", "by dispatch, 1 s after it was queued"),
        ("launched", "i-0abc (spot c7g.large in eu-central-1a)"),
        ("started", "40 s after it was queued"),
        ("ended", "success, exit code 0 of the runner"),
    ]


def test_an_interrupted_job_tells_what_ec2_said_and_of_its_rerun() -> None:
    """Interruption, end and re-run are told with their reasons."""
    lines = told(
        STATUS="completed",
        STARTED_AT=QUEUED_AT + 40,
        INTERRUPTED_AT=QUEUED_AT + 50,
        INTERRUPTION="spot notice",
        COMPLETED_AT=QUEUED_AT + 60,
        OUTCOME="interrupted",
        RERUN="done",
        RERUN_REASON="attempt 2",
    )
    assert lines[-3:] == [
        ("interrupted", "spot notice"),
        ("ended", "interrupted"),
        ("re-run", "re-run at GitHub: attempt 2"),
    ]


def test_a_job_that_waits_for_its_next_try() -> None:
    """The number of tries, the time of the next one and the deadline are told."""
    lines = told(
        REQUEUES=2, CLAIMED_AT=QUEUED_AT + 1, NOT_BEFORE=QUEUED_AT + 60, DEADLINE=QUEUED_AT + 86400
    )
    assert lines[1] == ("tried", "dispatched again 2 times; what follows is the last try")
    assert lines[-2:] == [
        ("next", "it is dispatched again, at the earliest"),
        ("deadline", "GitHub fails it then"),
    ]


def test_a_claim_that_ended_is_told_from_one_that_holds() -> None:
    """Whoever looks at a stuck job sees whether a worker still has it."""
    holds = told(STATUS="claimed", CLAIM_EXPIRES_AT=QUEUED_AT + 90)
    ended = told(STATUS="claimed", CLAIM_EXPIRES_AT=QUEUED_AT + 5)
    assert holds[-1] == ("next", "dispatch launches for it until then")
    assert ended[-1] == ("next", "its claim ended; whoever gets its message has it")


def test_a_job_that_was_given_up() -> None:
    """The reason is the end of the story."""
    lines = told(STATUS="expired", COMPLETED_AT=QUEUED_AT + 9, ERROR="no capacity anywhere")
    assert lines[-1] == ("given up", "no capacity anywhere")
