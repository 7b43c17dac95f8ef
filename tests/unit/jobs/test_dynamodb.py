"""The jobs table: every move is conditional, and unknown is a third answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws

from runsfleet_runtime.contract.messages import JobMessage, ReportStatus, RunnerReport
from runsfleet_runtime.contract.tables import JobAttr
from runsfleet_runtime.jobs.dynamodb import DynamoDBJobs
from runsfleet_runtime.jobs.model import (
    Claimed,
    ClaimUnknown,
    HeldByOther,
    JobStatus,
    Launch,
    Settled,
)
from runsfleet_runtime.jobs.ports import RecordUnknownError

NOW = 1_800_000_000.0
TABLE = "jobs"


def job(number: int = 1, **changes: Any) -> JobMessage:
    """Return a queued job."""
    base = JobMessage(
        job_id=30_000_000_000 + number,
        run_id=7,
        run_attempt=1,
        repository="octo-org/hello",
        labels=("runs-fleet=7/runner=2cpu-linux-arm64", "Extra "),
        queued_at=NOW - 5,
        installation_id=99,
        workflow_name="ci",
        job_name="build",
    )
    return replace(base, **changes)


class Table:
    """The real adapter on an emulated table, with a client whose calls can be made to fail."""

    def __init__(self) -> None:
        self.client = boto3.client("dynamodb", region_name="eu-central-1")
        self.client.create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": JobAttr.ID.value, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": JobAttr.ID.value, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.calls: list[str] = []
        self.before: list[Exception] = []  # raised instead of a call
        self.after: list[Exception] = []  # raised although the call was carried out
        self.jobs = DynamoDBJobs(self, TABLE, lease_seconds=90)

    def transact_write_items(self, **parameters: Any) -> Any:
        self.calls.append("transact_write_items")
        if self.before:
            raise self.before.pop(0)
        answer = self.client.transact_write_items(**parameters)
        if self.after:
            raise self.after.pop(0)
        return answer

    def get_item(self, **parameters: Any) -> Any:
        self.calls.append("get_item")
        if self.before:
            raise self.before.pop(0)
        return self.client.get_item(**parameters)

    def item(self, number: int = 1) -> dict[str, Any]:
        key = {JobAttr.ID.value: {"S": str(30_000_000_000 + number)}}
        answer: dict[str, Any] = self.client.get_item(TableName=TABLE, Key=key).get("Item", {})
        return answer

    def status(self, number: int = 1) -> str:
        return str(self.item(number)[JobAttr.STATUS.value]["S"])

    def claim(self, message: JobMessage, claim_id: str, now: float = NOW) -> Any:
        (result,) = self.jobs.claim([message], claim_ids=[claim_id], now=now)
        return result

    def launch(self, message: JobMessage, claim_id: str, instance_id: str = "i-1") -> bool | None:
        (done,) = self.jobs.record_launches([(launch(message, claim_id, instance_id), [])], now=NOW)
        return done


def launch(message: JobMessage, claim_id: str, instance_id: str = "i-1") -> Launch:
    """Return the launch of an instance for a claimed job."""
    return Launch(
        job=message,
        claim_id=claim_id,
        instance_id=instance_id,
        instance_type="t4g.medium",
        availability_zone="eu-central-1a",
        capacity_type="spot",
        runner_name=f"runsfleet-{instance_id}",
        pool=None,
    )


def report(status: ReportStatus, number: int = 1, **changes: Any) -> RunnerReport:
    """Return a report of the instance that the job was launched on."""
    base = RunnerReport(instance_id="i-1", job_id=30_000_000_000 + number, status=status, run_id=7)
    return replace(base, **changes)


@pytest.fixture
def table() -> Iterator[Table]:
    """An empty table of its own."""
    with mock_aws():
        yield Table()


def timeout() -> ReadTimeoutError:
    """Return the error of a call whose outcome is unknown."""
    return ReadTimeoutError(endpoint_url="dynamodb")


def throttle() -> ClientError:
    """Return the error of a call that was not carried out."""
    return ClientError(
        {
            "Error": {"Code": "ThrottlingException"},
            "ResponseMetadata": {"HTTPStatusCode": 400},  # type: ignore[typeddict-item]
        },
        "TransactWriteItems",
    )


def invalid() -> ClientError:
    """Return the error of a request that the table cannot even read."""
    return ClientError(
        {
            "Error": {"Code": "ValidationException"},
            "ResponseMetadata": {"HTTPStatusCode": 400},  # type: ignore[typeddict-item]
        },
        "TransactWriteItems",
    )


def test_batch_is_claimed_by_one_call(table: Table) -> None:
    """Ten new jobs cost one transaction."""
    messages = [job(n) for n in range(10)]
    results = table.jobs.claim(messages, claim_ids=[f"c{n}" for n in range(10)], now=NOW)
    assert results == [Claimed(m, f"c{n}") for n, m in enumerate(messages)]
    assert table.calls == ["transact_write_items"]


def test_one_claim_of_two_wins(table: Table) -> None:
    """A fresh claim of another worker is reported with the end of its lease."""
    assert table.claim(job(), "a") == Claimed(job(), "a")
    assert table.claim(job(), "b") == HeldByOther(until=NOW + 90)


def test_expired_claim_is_taken_over_once(table: Table) -> None:
    """After the lease exactly one other worker gets the job."""
    table.claim(job(), "a")
    assert table.claim(job(), "b", NOW + 91) == Claimed(job(), "b")
    assert table.claim(job(), "c", NOW + 91) == HeldByOther(until=NOW + 181)


def test_batch_with_a_duplicate_claims_the_others(table: Table) -> None:
    """One settled job in a batch does not keep the rest from being claimed."""
    table.claim(job(1), "a")
    table.launch(job(1), "a")
    results = table.jobs.claim([job(0), job(1), job(2)], claim_ids=["x", "y", "z"], now=NOW)
    assert results == [Claimed(job(0), "x"), Settled(JobStatus.LAUNCHED), Claimed(job(2), "z")]


@pytest.mark.parametrize("error", [timeout(), throttle()])
def test_claim_without_answer_is_unknown(table: Table, error: Exception) -> None:
    """A table that does not answer means that nothing may be launched."""
    table.before = [error]
    assert isinstance(table.claim(job(), "a"), ClaimUnknown)


def test_repeated_claim_of_the_same_worker_holds(table: Table) -> None:
    """When the first answer was lost, the same claim id is recognised as one's own."""
    table.after = [timeout()]
    assert isinstance(table.claim(job(), "a"), ClaimUnknown)
    assert table.claim(job(), "a") == Claimed(job(), "a")


def test_record_holds_the_labels_byte_for_byte(table: Table) -> None:
    """What is dispatched again later is the job as it came, one dispatch further."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    message = table.jobs.requeue(report(ReportStatus.UNUSED), [], not_before=NOW + 9, now=NOW)
    assert message == job(dispatch=1, requeues=1, not_before=NOW + 9)


def test_requeue_asked_twice_gives_the_same_message(table: Table) -> None:
    """When the message could not be sent, the repeated report makes the same one again."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    first = table.jobs.requeue(report(ReportStatus.UNUSED), [], not_before=NOW + 9, now=NOW)
    second = table.jobs.requeue(report(ReportStatus.UNUSED), [], not_before=NOW + 99, now=NOW)
    assert first == second


def test_job_whose_runner_serves_another_is_handed_back(table: Table) -> None:
    """It is claimed again by the message; its former instance cannot close it any more."""

    def rescue(*, is_launched: bool = False, later: float = 0) -> JobMessage | None:
        return table.jobs.rescue(
            job().job_id, is_launched=is_launched, not_before=NOW + 9 + later, now=NOW
        )

    assert rescue() is None
    table.claim(job(), "a")
    assert rescue(is_launched=True) is None
    table.launch(job(), "a")
    assert rescue() is None
    table.jobs.start([report(ReportStatus.STARTED)], now=NOW)
    assert rescue(is_launched=True) is None
    message = rescue()
    assert message == job(dispatch=1, requeues=1, not_before=NOW + 9)
    assert rescue(later=50) == message
    assert table.jobs.end([(report(ReportStatus.SUCCESS), ())], now=NOW) == [False]
    assert table.claim(message, "b") == Claimed(message, "b")
    assert rescue() is None
    table.before = [throttle()]
    with pytest.raises(RecordUnknownError):
        rescue()


def test_requeue_of_a_job_that_moved_on_is_none(table: Table) -> None:
    """A late report of a former owner hands nothing back."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    table.jobs.requeue(report(ReportStatus.UNUSED), [], not_before=NOW, now=NOW)
    table.claim(job(dispatch=1), "b")
    assert table.jobs.requeue(report(ReportStatus.UNUSED), [], not_before=NOW, now=NOW) is None


def test_released_job_is_claimed_by_the_old_or_the_new_message(table: Table) -> None:
    """If sending the new message failed, the old one can still claim; afterwards it is stale."""
    table.claim(job(), "a")
    assert table.jobs.release(job(), "a", not_before=NOW + 5, now=NOW)
    assert table.status() == "queued"
    assert table.claim(job(), "b") == Claimed(job(), "b")
    table.jobs.release(job(), "b", not_before=NOW, now=NOW)
    assert table.claim(job(dispatch=1), "c") == Claimed(job(dispatch=1), "c")
    table.jobs.release(job(dispatch=1), "c", not_before=NOW, now=NOW)
    assert table.claim(job(dispatch=0), "d") == Settled(JobStatus.QUEUED)


def test_lost_claim_can_neither_release_nor_launch_nor_expire(table: Table) -> None:
    """A worker whose lease was taken over changes nothing."""
    table.claim(job(), "a")
    table.claim(job(), "b", NOW + 91)
    assert not table.launch(job(), "a")
    assert not table.jobs.release(job(), "a", not_before=NOW, now=NOW)
    assert not table.jobs.expire(job(), "a", error="x", now=NOW)
    assert table.status() == "claimed"


def test_launch_and_its_writes_are_all_or_nothing(table: Table) -> None:
    """A lost claim also keeps the configuration from being written."""
    table.claim(job(1), "a")
    table.claim(job(2), "b")
    put = {"Put": {"TableName": TABLE, "Item": {JobAttr.ID.value: {"S": "config-1"}}}}
    other = {"Put": {"TableName": TABLE, "Item": {JobAttr.ID.value: {"S": "config-2"}}}}
    done = table.jobs.record_launches(
        [(launch(job(1), "lost", "i-1"), [put]), (launch(job(2), "b", "i-2"), [other])], now=NOW
    )
    assert done == [False, True]
    scanned = table.client.scan(TableName=TABLE)["Items"]
    assert {i[JobAttr.ID.value]["S"] for i in scanned if "config" in str(i)} == {"config-2"}


def test_repeated_launch_write_is_recognised(table: Table) -> None:
    """A launch that was written although its answer was lost counts as written."""
    table.claim(job(), "a")
    assert table.launch(job(), "a")
    assert table.launch(job(), "a")
    assert not table.launch(job(), "a", "i-other")


def test_launch_without_answer_is_unknown_and_a_refused_one_is_not(table: Table) -> None:
    """Only a launch that was certainly not recorded may be undone."""
    table.claim(job(), "a")
    table.before = [throttle()]
    assert table.launch(job(), "a") is False
    table.after = [timeout()]
    assert table.launch(job(), "a") is None
    assert table.status() == "launched"


def test_one_request_that_the_table_cannot_read_spoils_no_other(table: Table) -> None:
    """A batch that is refused as a whole is claimed job by job."""
    table.before = [invalid(), invalid()]
    results = table.jobs.claim([job(0), job(1)], claim_ids=["a", "b"], now=NOW)
    assert isinstance(results[0], ClaimUnknown)
    assert results[1] == Claimed(job(1), "b")


def test_job_that_no_instance_served_is_taken_when_github_queues_it_anew(table: Table) -> None:
    """A job that waits for an approval is queued twice; its idle runner ended in between."""
    table.claim(job(dispatch=2), "a")
    table.launch(job(dispatch=2), "a")
    unused = report(ReportStatus.UNUSED, dispatch=2)
    assert table.jobs.end([(unused, [])], now=NOW) == [True]
    assert table.claim(job(), "b", NOW + 3600) == Claimed(job(), "b")
    assert JobAttr.EXPIRES_AT.value not in table.item()
    assert table.claim(job(), "c", NOW + 3600) == HeldByOther(until=NOW + 3690)
    table.launch(job(), "b")
    served = report(ReportStatus.SUCCESS, ran_job=True, ran_run_id=7)
    assert table.jobs.end([(served, [])], now=NOW) == [True]
    assert table.claim(job(), "d") == Settled(JobStatus.COMPLETED)


def test_start_and_end_belong_to_the_instance(table: Table) -> None:
    """Only the instance and dispatch of the record move it, each move once."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    stranger = report(ReportStatus.STARTED, instance_id="i-2")
    former = report(ReportStatus.STARTED, dispatch=3)
    assert table.jobs.start([stranger], now=NOW) == [False]
    assert table.jobs.start([former], now=NOW) == [False]
    assert table.jobs.start([report(ReportStatus.STARTED)], now=NOW) == [True]
    assert table.jobs.start([report(ReportStatus.STARTED)], now=NOW) == [False]
    ending = report(ReportStatus.SUCCESS, exit_code=0, duration_seconds=1.5)
    assert table.jobs.end([(ending, [])], now=NOW) == [True]
    assert table.jobs.end([(ending, [])], now=NOW) == [False]
    item = table.item()
    assert item[JobAttr.OUTCOME.value] == {"S": "success"}
    assert float(item[JobAttr.EXPIRES_AT.value]["N"]) == NOW + 7 * 24 * 3600


def test_reports_of_a_batch_cost_one_call(table: Table) -> None:
    """Ten endings are one transaction."""
    for n in range(10):
        table.claim(job(n), "a")
        table.launch(job(n), "a")
    table.calls.clear()
    reports = [(report(ReportStatus.SUCCESS, n), ()) for n in range(10)]
    assert table.jobs.end(reports, now=NOW) == [True] * 10
    assert table.calls == ["transact_write_items"]


def test_two_reports_of_one_job_go_one_by_one(table: Table) -> None:
    """A transaction takes an item once; the present owner's report still counts."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    both = [
        (report(ReportStatus.SUCCESS, instance_id="i-former"), ()),
        (report(ReportStatus.SUCCESS), ()),
    ]
    assert table.jobs.end(both, now=NOW) == [False, True]


def test_report_of_an_unknown_job_writes_no_record(table: Table) -> None:
    """A report without a record changes nothing; no junk row appears."""
    assert table.jobs.end([(report(ReportStatus.SUCCESS), ())], now=NOW) == [False]
    assert table.item() == {}


def test_unanswered_report_is_unknown(table: Table) -> None:
    """A table that does not answer means that the report must come again."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    table.before = [throttle()]
    assert table.jobs.start([report(ReportStatus.STARTED)], now=NOW) == [None]
    table.before = [throttle()]
    with pytest.raises(RecordUnknownError):
        table.jobs.requeue(report(ReportStatus.UNUSED), [], not_before=NOW, now=NOW)
    table.before = [throttle()]
    with pytest.raises(RecordUnknownError):
        table.jobs.read(job().job_id)


def test_expired_job_keeps_its_reason(table: Table) -> None:
    """A job that is given up says why, and its record goes after the retention."""
    table.claim(job(), "a")
    assert table.jobs.expire(job(), "a", error="too late", now=NOW)
    assert table.item()[JobAttr.ERROR.value] == {"S": "too late"}
    assert table.claim(job(), "b") == Settled(JobStatus.EXPIRED)


def test_a_registration_is_renewed_once_for_each_dispatch(table: Table) -> None:
    """Only the owner of a launched job may, one time; the next dispatch may again."""
    request = report(ReportStatus.RENEWAL)
    table.claim(job(), "a")
    assert table.jobs.renew(request, now=NOW) is False
    table.launch(job(), "a")
    assert table.jobs.renew(replace(request, instance_id="i-2"), now=NOW) is False
    table.before = [throttle()]
    assert table.jobs.renew(request, now=NOW) is None
    assert table.jobs.renew(request, now=NOW) is True
    assert table.jobs.renew(request, now=NOW) is False
    assert table.item()[JobAttr.STATUS.value] == {"S": "launched"}
    again = table.jobs.requeue(report(ReportStatus.UNUSED), [], not_before=NOW, now=NOW)
    assert again is not None
    table.claim(again, "b")
    table.launch(again, "b")
    assert table.jobs.renew(replace(request, dispatch=again.dispatch), now=NOW) is True


def test_a_running_job_needs_no_other_registration(table: Table) -> None:
    """Once the start was reported, a request changes nothing."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    table.jobs.start([report(ReportStatus.STARTED)], now=NOW)
    assert table.jobs.renew(report(ReportStatus.RENEWAL), now=NOW) is False
