"""Caps on runners: a counter is the number of records that hold a slot, whatever happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from runsfleet_runtime.contract.messages import (
    JobEndedMessage,
    JobMessage,
    ReportStatus,
    RunnerReport,
)
from runsfleet_runtime.contract.tables import JobAttr, SlotAttr
from runsfleet_runtime.jobs.dynamodb import DynamoDBJobs
from runsfleet_runtime.jobs.items import record_from_item
from runsfleet_runtime.jobs.model import HOLDS_SLOT, Claimed, JobRecord, JobStatus, Launch, NoSlot
from runsfleet_runtime.jobs.ports import RecordUnknownError
from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader
from runsfleet_runtime.jobs.slots import Caps, scopes_of
from runsfleet_runtime.jobs.writing.dynamodb import TransactionWriter

NOW = 1_800_000_000.0
REPOSITORIES = ("acme/web", "acme/api", "acme/web", "octo/site", "acme/api", "octo/site")


def job(number: int, **changes: Any) -> JobMessage:
    """Return a queued job; several share a repository or an owner."""
    base = JobMessage(
        job_id=number,
        run_id=7,
        run_attempt=1,
        repository=REPOSITORIES[number % len(REPOSITORIES)],
        labels=("l",),
        queued_at=NOW - 5,
    )
    return replace(base, **changes)


class Cloud:
    """The adapter on emulated tables; the client's calls can be made to fail."""

    def __init__(self, **caps: int | None) -> None:
        self.client = boto3.client("dynamodb", region_name="eu-central-1")
        for table, key in (("jobs", JobAttr.ID.value), ("slots", SlotAttr.SCOPE.value)):
            self.client.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        self.now = NOW
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.calls: list[list[dict[str, Any]]] = []
        self.pauses: list[float] = []
        limits: dict[str, int | None] = {"fleet": None, "owner": None, "repository": None, **caps}
        self.caps = Caps.of(
            "slots",
            fleet=limits["fleet"],
            owner=limits["owner"],
            repository=limits["repository"],
        )
        writer = TransactionWriter(self, self.caps, jitter=lambda: 0.0, sleep=self.pauses.append)
        self.jobs = DynamoDBJobs(self, "jobs", lease_seconds=90, caps=self.caps, writer=writer)
        self.reader = DynamoDBJobReader(self.client, "jobs")

    def transact_write_items(self, **request: Any) -> Any:
        self.calls.append(request["TransactItems"])
        if self.before:
            raise self.before.pop(0)
        answer = self.client.transact_write_items(**request)
        if self.after:
            raise self.after.pop(0)
        return answer

    def get_item(self, **request: Any) -> Any:
        return self.client.get_item(**request)

    def used(self) -> dict[str, int]:
        """Return the counters that are not zero."""
        items = self.client.scan(TableName="slots")["Items"]
        counters = {i[SlotAttr.SCOPE.value]["S"]: int(i[SlotAttr.USED.value]["N"]) for i in items}
        return {scope: used for scope, used in counters.items() if used}

    def held(self) -> dict[str, int]:
        """Return how many records hold a slot, by scope."""
        held: Counter[str] = Counter()
        for record in self.records():
            if record.has_slot:
                held.update(scopes_of(record.job.repository))
        return dict(held)

    def records(self) -> list[JobRecord]:
        found = [record_from_item(item) for item in self.client.scan(TableName="jobs")["Items"]]
        return sorted(found, key=lambda record: record.job.job_id)

    def claim(self, *jobs: JobMessage, claim_id: str = "c") -> list[Any]:
        ids = [f"{claim_id}-{j.job_id}" for j in jobs]
        return list(self.jobs.claim(jobs, claim_ids=ids, now=self.now))

    def launch(self, number: int, claim_id: str = "c") -> bool | None:
        launch = Launch(
            job=job(number),
            claim_id=f"{claim_id}-{number}",
            instance_id=f"i-{number}",
            instance_type="t4g.medium",
            availability_zone="a",
            capacity_type="spot",
            runner_name="r",
            pool=None,
            platform="linux-arm64",
            disk_gib=50,
        )
        (done,) = self.jobs.record_launches([(launch, ())], now=self.now)
        return done


@pytest.fixture
def aws() -> Iterator[None]:
    """An account of its own."""
    with mock_aws():
        yield


def conflict(*codes: str) -> ClientError:
    """Return the error of a transaction that met another one."""
    return ClientError(
        {
            "Error": {"Code": "TransactionCanceledException"},
            "CancellationReasons": [{"Code": code} for code in codes],
        },
        "TransactWriteItems",
    )


@pytest.mark.usefixtures("aws")
def test_without_caps_nothing_of_slots_is_written() -> None:
    """A fleet without caps pays nothing for them: the same calls, and no counter."""
    cloud = Cloud()
    assert cloud.caps is None
    assert cloud.claim(job(0), job(1)) == [Claimed(job(0), "c-0"), Claimed(job(1), "c-1")]
    cloud.launch(0)
    cloud.jobs.end(
        [(RunnerReport(instance_id="i-0", job_id=0, status=ReportStatus.SUCCESS), ())], now=NOW
    )
    assert cloud.jobs.release(job(1), "c-1", not_before=NOW, now=NOW)
    assert [len(actions) for actions in cloud.calls] == [2, 1, 1, 1]
    assert (cloud.used(), cloud.held()) == ({}, {})


@pytest.mark.usefixtures("aws")
def test_batch_of_one_scope_is_one_update_of_its_counter() -> None:
    """Six jobs are one transaction: six records, and each counter once."""
    cloud = Cloud(fleet=10)
    batch = [job(n) for n in range(6)]
    assert cloud.claim(*batch) == [Claimed(j, f"c-{j.job_id}") for j in batch]
    assert [len(actions) for actions in cloud.calls] == [6 + 1 + 2 + 3]
    assert cloud.used() == {
        "fleet": 6,
        "owner:acme": 4,
        "owner:octo": 2,
        "repository:acme/web": 2,
        "repository:acme/api": 2,
        "repository:octo/site": 2,
    }


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("caps", "claimed"),
    [
        ({"fleet": 3}, [0, 1, 2]),
        ({"owner": 2}, [0, 1, 3, 5]),
        ({"repository": 1}, [0, 1, 3]),
        ({"fleet": 2, "repository": 1}, [0, 1]),
        ({"fleet": 0}, []),
    ],
)
def test_as_many_as_fit_are_claimed_the_first_ones_first(
    caps: dict[str, int], claimed: list[int]
) -> None:
    """The others learn which scope is full; their records are not touched."""
    cloud = Cloud(**caps)
    results = cloud.claim(*[job(n) for n in range(6)])
    assert [n for n, r in enumerate(results) if isinstance(r, Claimed)] == claimed
    assert all(isinstance(r, Claimed | NoSlot) for r in results)
    assert [r.job.job_id for r in cloud.records()] == claimed
    assert cloud.used() == cloud.held()


@pytest.mark.usefixtures("aws")
def test_cap_counts_what_others_hold() -> None:
    """A scope that is part full takes the rest of a batch only; a slot that is free is used."""
    cloud = Cloud(fleet=3, owner=2)
    cloud.claim(job(0))
    results = cloud.claim(job(1), job(2), job(3), job(5))
    assert [type(r) for r in results] == [Claimed, NoSlot, Claimed, NoSlot]
    assert (results[1], results[3]) == (NoSlot("owner:acme"), NoSlot("fleet"))
    cloud.jobs.release(job(0), "c-0", not_before=NOW, now=NOW)
    assert cloud.claim(job(2)) == [Claimed(job(2), "c-2")]
    assert cloud.used() == cloud.held()


@pytest.mark.usefixtures("aws")
def test_claim_that_is_taken_over_keeps_its_slot() -> None:
    """The worker died, its slot did not: whoever claims next needs no second one."""
    cloud = Cloud(fleet=1)
    cloud.claim(job(0))
    cloud.now += 91
    assert cloud.claim(job(0), claim_id="d") == [Claimed(job(0), "d-0")]
    assert cloud.used()["fleet"] == 1


@pytest.mark.usefixtures("aws")
def test_cap_that_comes_later_finds_jobs_without_a_slot() -> None:
    """They end without giving back what they never took."""
    cloud = Cloud()
    cloud.claim(job(0), job(1))
    cloud.launch(0)
    capped = DynamoDBJobs(cloud, "jobs", caps=Caps(table="slots", fleet=5))
    assert capped.release(job(1), "c-1", not_before=NOW, now=NOW)
    ending = RunnerReport(instance_id="i-0", job_id=0, status=ReportStatus.SUCCESS)
    assert capped.end([(ending, ())], now=NOW) == [True]
    assert cloud.used() == {}


@pytest.mark.usefixtures("aws")
def test_job_that_is_too_old_is_closed_although_all_slots_are_taken() -> None:
    """It is claimed only to be given up with its reason."""
    cloud = Cloud(fleet=0)
    old = job(0, queued_at=NOW - 25 * 3600)
    assert cloud.claim(old) == [Claimed(old, "c-0")]
    assert cloud.jobs.expire(old, "c-0", error="too late", now=NOW)
    assert cloud.used() == {}


@pytest.mark.usefixtures("aws")
def test_transactions_that_meet_are_tried_again_after_a_moment() -> None:
    """Ten workers share a counter: a conflict is no lack of slots, and no failure."""
    cloud = Cloud(fleet=5)
    cloud.before = [conflict("None", "TransactionConflict", "None", "None")] * 3
    assert cloud.claim(job(0)) == [Claimed(job(0), "c-0")]
    assert cloud.pauses == sorted(cloud.pauses)
    assert (len(cloud.pauses), sum(cloud.pauses) < 1) == (3, True)
    cloud.before = [conflict("None", "TransactionConflict", "None", "None")] * 20
    assert not cloud.jobs.release(job(0), "c-0", not_before=NOW, now=NOW)
    cloud.before.clear()
    assert cloud.used() == cloud.held()


@pytest.mark.usefixtures("aws")
def test_slot_is_given_back_once_however_often_it_is_told() -> None:
    """The answer was lost: the second try finds the job moved, and takes nothing more."""
    cloud = Cloud(fleet=5)
    cloud.claim(job(0), job(1))
    cloud.launch(0)
    ending = RunnerReport(instance_id="i-0", job_id=0, status=ReportStatus.SUCCESS)
    cloud.jobs.end([(ending, ())], now=NOW)
    assert cloud.jobs.end([(ending, ())], now=NOW) == [False]
    cloud.after = [ReadTimeoutError(endpoint_url="dynamodb")]
    cloud.jobs.release(job(1), "c-1", not_before=NOW, now=NOW)
    assert not cloud.jobs.release(job(1), "c-1", not_before=NOW, now=NOW)
    assert (cloud.used(), cloud.held()) == ({}, {})


class Story:
    """Carries out steps in any order, by several workers, with lost answers and refused calls."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.seen: dict[int, JobRecord] = {}

    def step(self, move: str, number: int, fault: str) -> None:
        cloud, now = self.cloud, self.cloud.now
        error = ReadTimeoutError(endpoint_url="dynamodb")
        cloud.before = [error] if fault == "before" else []
        cloud.after = [error] if fault == "after" else []
        message = self._message(number)
        report = RunnerReport(
            instance_id=f"i-{number}",
            job_id=number,
            dispatch=message.dispatch,
            status=ReportStatus.SUCCESS,
        )
        observed = self.seen.get(number)
        match move:
            case "claim":
                cloud.claim(message, *[job(n) for n in range(number)])
            case "take over":
                cloud.now += 100
                cloud.claim(message, claim_id="d")
            case "wait":
                cloud.jobs.wait([message], now=now)
            case "launch":
                cloud.launch(number)
            case "release":
                cloud.jobs.release(message, f"c-{number}", not_before=now, now=now)
            case "expire":
                cloud.jobs.expire(message, f"c-{number}", error="no", now=now)
            case "start":
                cloud.jobs.start([report], now=now)
            case "end":
                cloud.jobs.end([(report, ())], now=now)
            case "interrupted":
                cloud.jobs.end_interrupted(report, (), now=now)
            case _:
                try:
                    self._move_observed(move, number, observed)
                except RecordUnknownError:
                    assert fault != "none"
        cloud.before, cloud.after = [], []

    def _message(self, number: int) -> JobMessage:
        record = self.cloud.reader.get(number)
        return record.pending if record and record.status is JobStatus.QUEUED else job(number)

    def _move_observed(self, move: str, number: int, observed: JobRecord | None) -> None:
        now = self.cloud.now
        if move == "look":
            record = self.cloud.reader.get(number)
            if record is not None:
                self.seen[number] = record
        elif move == "cancel":
            ended = JobEndedMessage(
                job_id=number,
                run_id=7,
                run_attempt=1,
                repository=job(number).repository,
                labels=(),
                conclusion="cancelled",
            )
            self.cloud.jobs.cancel(ended, now=now)
        elif observed is not None and move == "hand back":
            message = observed.job.again(not_before=now)
            self.cloud.jobs.hand_back(observed, message, (), now=now)
        elif observed is not None:
            self.cloud.jobs.give_up(observed, (), error="no", now=now)


MOVES = (
    "look",
    "claim",
    "take over",
    "wait",
    "launch",
    "release",
    "expire",
    "start",
    "end",
    "interrupted",
    "cancel",
    "hand back",
    "give up",
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(MOVES),
            st.integers(0, len(REPOSITORIES) - 1),
            st.sampled_from(["none", "none", "before", "after"]),
        ),
        max_size=30,
    )
)
def test_counter_is_the_number_of_records_that_hold_a_slot(
    steps: list[tuple[str, int, str]],
) -> None:
    """After any interleaving, for each scope; a record holds one just as long as it is served."""
    with mock_aws():
        cloud = Cloud(fleet=4, owner=3, repository=1)
        story = Story(cloud)
        for move, number, fault in steps:
            story.step(move, number, fault)
            used = cloud.used()
            assert used == cloud.held()
            assert used.get("fleet", 0) <= 4
            assert all(n <= 3 for scope, n in used.items() if scope.startswith("owner:"))
            assert all(n == 1 for scope, n in used.items() if scope.startswith("repository:"))
            for record in cloud.records():
                assert record.has_slot is (record.status in HOLDS_SLOT)
