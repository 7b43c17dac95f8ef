"""The jobs table: every move is conditional, and unknown is a third answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws

from runsfleet_runtime.contract.messages import (
    JobEndedMessage,
    JobMessage,
    ReportStatus,
    RunnerReport,
)
from runsfleet_runtime.contract.tables import JobAttr
from runsfleet_runtime.jobs.dynamodb import DynamoDBJobs
from runsfleet_runtime.jobs.model import (
    Claimed,
    ClaimUnknown,
    HeldByOther,
    JobRecord,
    JobStatus,
    Launch,
    Rerun,
    Settled,
)
from runsfleet_runtime.jobs.ports import Moved, RecordUnknownError
from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader

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
        self.meanwhile: list[Callable[[], object]] = []  # done by others before the next write
        self.jobs = DynamoDBJobs(self, TABLE, lease_seconds=90)

    def transact_write_items(self, **parameters: Any) -> Any:
        self.calls.append("transact_write_items")
        if self.meanwhile:
            self.meanwhile.pop(0)()
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

    def record(self, number: int = 1) -> JobRecord:
        record = DynamoDBJobReader(self.client, TABLE).get(30_000_000_000 + number)
        assert record is not None
        return record

    def hand_back(
        self, observed: JobRecord, message: JobMessage, further: Sequence[Mapping[str, Any]] = ()
    ) -> JobMessage | None:
        return self.jobs.hand_back(observed, message, further, now=NOW)

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
        platform="linux-arm64",
        disk_gib=50,
    )


def report(status: ReportStatus, number: int = 1, **changes: Any) -> RunnerReport:
    """Return a report of the instance that the job was launched on."""
    base = RunnerReport(instance_id="i-1", job_id=30_000_000_000 + number, status=status, run_id=7)
    return replace(base, **changes)


def again(observed: JobRecord, not_before: float = NOW) -> JobMessage:
    """Return the message that dispatches an observed job again."""
    requeues = observed.job.requeues + 1
    return replace(observed.job, requeues=requeues).again(not_before=not_before)


def ended(**changes: Any) -> JobEndedMessage:
    """Return GitHub's word that the job was cancelled."""
    base = JobEndedMessage(
        job_id=job().job_id,
        run_id=7,
        run_attempt=1,
        repository="octo-org/hello",
        labels=job().labels,
        conclusion="cancelled",
    )
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
    """What is dispatched again later is the job as it came, on-demand as it was asked for."""
    table.claim(job(on_demand=True), "a")
    table.launch(job(), "a")
    assert table.record().job == job(on_demand=True)


def test_job_that_is_handed_back_gives_the_same_message_however_often(table: Table) -> None:
    """When the message could not be sent, what was observed then makes the same one again."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    observed = table.record()
    first = again(observed, not_before=NOW + 9)
    assert table.hand_back(observed, first) == first
    assert table.status() == "queued"
    assert table.hand_back(observed, again(observed, not_before=NOW + 99)) == first
    assert table.record().pending == first
    assert table.jobs.end([(report(ReportStatus.SUCCESS), ())], now=NOW) == [False]
    assert table.claim(job(), "old") == Settled(JobStatus.QUEUED)
    assert table.claim(first, "b") == Claimed(first, "b")
    assert table.hand_back(observed, first) is None


def test_job_is_handed_back_together_with_what_belongs_to_it(table: Table) -> None:
    """A record that is not what was observed any more keeps the other writes from being made."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    observed = table.record()
    put = {"Put": {"TableName": TABLE, "Item": {JobAttr.ID.value: {"S": "further"}}}}
    table.jobs.start([report(ReportStatus.STARTED)], now=NOW)
    assert table.hand_back(observed, again(observed), [put]) is None
    assert table.client.scan(TableName=TABLE)["Count"] == 1
    observed = table.record()
    table.hand_back(observed, again(observed), [put])
    assert table.client.scan(TableName=TABLE)["Count"] == 2


def test_closed_job_that_is_handed_back_keeps_nothing_of_its_ending(table: Table) -> None:
    """Its record must not expire while the job runs again; its re-run is not due any more."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    assert table.jobs.end_interrupted(report(ReportStatus.INTERRUPTED), (), now=NOW) is True
    observed = table.record()
    assert (observed.rerun, observed.interrupted_at) == (Rerun.PENDING, NOW)
    message = replace(again(observed), on_demand=True)
    assert table.hand_back(observed, message) == message
    left = {JobAttr.EXPIRES_AT, JobAttr.OUTCOME, JobAttr.COMPLETED_AT, JobAttr.UNSERVED}
    assert not {a.value for a in left} & set(table.item())
    table.claim(message, "b")
    fresh = table.record()
    assert (fresh.rerun, fresh.interrupted_at, fresh.job.on_demand) == (None, 0, True)


def test_claim_that_was_taken_over_is_not_handed_back(table: Table) -> None:
    """A worker that died is told from the one that has claimed the same message since."""
    table.claim(job(), "a")
    observed = table.record()
    table.claim(job(), "b", NOW + 91)
    assert table.hand_back(observed, again(observed)) is None
    observed = table.record()
    assert table.hand_back(observed, again(observed)) == again(observed)


def test_table_that_does_not_answer_hands_nothing_back(table: Table) -> None:
    """Unknown is raised, for whoever asks must ask again."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    observed = table.record()
    table.before = [throttle(), throttle()]
    with pytest.raises(RecordUnknownError):
        table.hand_back(observed, again(observed))
    with pytest.raises(RecordUnknownError):
        table.jobs.give_up(observed, (), error="no", now=NOW)


def test_given_up_job_is_not_claimed_again(table: Table) -> None:
    """Its instance ended idle, but another delivery must not start the series anew."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    table.jobs.end([(report(ReportStatus.UNUSED), ())], now=NOW)
    observed = table.record()
    assert JobAttr.UNSERVED.value in table.item()
    assert table.jobs.give_up(observed, (), error="spent", now=NOW)
    assert table.jobs.give_up(observed, (), error="spent", now=NOW)
    assert not table.jobs.give_up(observed, (), error="another reason", now=NOW)
    assert table.item()[JobAttr.ERROR.value] == {"S": "spent"}
    assert table.claim(job(), "b") == Settled(JobStatus.EXPIRED)


def test_message_that_was_lost_is_sent_with_another_number(table: Table) -> None:
    """The old message, should it turn up, finds that it is outdated."""
    table.claim(job(), "a")
    table.jobs.release(job(), "a", not_before=NOW, now=NOW)
    observed = table.record()
    lost = observed.pending
    assert lost == job(dispatch=1, not_before=NOW)
    fresh = lost.again(not_before=NOW)
    assert table.hand_back(observed, fresh) == fresh
    assert table.hand_back(observed, fresh) == fresh
    assert table.claim(lost, "b") == Settled(JobStatus.QUEUED)
    assert table.claim(fresh, "c") == Claimed(fresh, "c")


@pytest.mark.parametrize("moves", range(4))
def test_job_that_ended_at_github_is_closed_unless_it_runs(table: Table, moves: int) -> None:
    """Queued, claimed and launched jobs are; a worker that claimed it can launch nothing."""
    if moves:
        table.claim(job(), "a")
    if moves == 2:
        table.jobs.release(job(), "a", not_before=NOW, now=NOW)
    if moves == 3:
        table.launch(job(), "a")
    before = table.jobs.cancel(ended(), now=NOW)
    statuses = [None, JobStatus.CLAIMED, JobStatus.QUEUED, JobStatus.LAUNCHED]
    assert (before and before.status) == statuses[moves]
    record = table.record()
    assert (record.status, record.outcome) == (JobStatus.COMPLETED, "cancelled")
    assert record.job.labels == job().labels
    assert not table.launch(job(), "a", "i-2")
    assert table.claim(job(dispatch=9), "b") == Settled(JobStatus.COMPLETED)
    again_before = table.jobs.cancel(ended(), now=NOW)
    assert again_before is not None
    assert again_before.status is JobStatus.COMPLETED


def test_running_job_is_left_to_its_instance(table: Table) -> None:
    """GitHub's word that it ended is no reason to forget the instance."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    table.jobs.start([report(ReportStatus.STARTED)], now=NOW)
    before = table.jobs.cancel(ended(), now=NOW)
    assert before is not None
    assert table.record() == before


def test_start_between_look_and_close_is_seen(table: Table) -> None:
    """Whoever is faster decides; the record is looked at again."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    table.meanwhile = [lambda: table.jobs.start([report(ReportStatus.STARTED)], now=NOW)]
    before = table.jobs.cancel(ended(), now=NOW)
    assert before is not None
    assert (before.status, table.status()) == (JobStatus.RUNNING, "running")


def test_waiting_job_is_as_one_that_was_released(table: Table) -> None:
    """Its present message can still claim it; the next one is a dispatch further."""
    waiting = job(not_before=NOW + 40)
    assert table.jobs.wait([waiting], now=NOW) == [True]
    record = table.record()
    assert (record.status, record.not_before) == (JobStatus.QUEUED, NOW + 40)
    assert record.pending == job(dispatch=1, not_before=NOW + 40)
    assert table.claim(job(), "a") == Claimed(job(), "a")
    assert table.jobs.wait([waiting], now=NOW) == [False]


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
    assert table.jobs.start([stranger], now=NOW) == [Moved.REFUSED]
    assert table.jobs.start([former], now=NOW) == [Moved.REFUSED]
    assert table.jobs.start([report(ReportStatus.STARTED)], now=NOW) == [Moved.DONE]
    assert table.jobs.start([report(ReportStatus.STARTED)], now=NOW) == [Moved.KNOWN]
    ending = report(ReportStatus.SUCCESS, exit_code=0, duration_seconds=1.5)
    assert table.jobs.end([(ending, [])], now=NOW) == [True]
    assert table.jobs.end([(ending, [])], now=NOW) == [False]
    item = table.item()
    assert item[JobAttr.OUTCOME.value] == {"S": "success"}
    assert float(item[JobAttr.EXPIRES_AT.value]["N"]) == NOW + 7 * 24 * 3600


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("2026-11-21T09:59:50.500Z", datetime(2026, 11, 21, 9, 59, 50, 500_000, UTC).timestamp()),
        ("2999-01-01T00:00:00Z", NOW),  # its clock is wrong
        ("yesterday", None),
        (None, None),
    ],
)
def test_end_that_overtakes_the_start_tells_of_it(
    table: Table, told: str | None, kept: float | None
) -> None:
    """Two messages of one instance may be taken in any order; the record knows both times."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    ending = report(ReportStatus.SUCCESS, ran_job=True, ran_run_id=7, started_at=told)
    assert table.jobs.end([(ending, [])], now=NOW) == [True]
    start = report(ReportStatus.STARTED, ran_job=True, ran_run_id=7, started_at=told)
    is_exact = kept is not None and kept != NOW
    assert table.jobs.start([start], now=NOW + 1) == [Moved.OVERTAKEN if is_exact else Moved.KNOWN]
    item = table.item().get(JobAttr.STARTED_AT.value)
    assert (float(item["N"]) if item else None) == kept


def test_start_that_came_first_is_kept(table: Table) -> None:
    """The end does not move the time at which the instance reported its start."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    told = "2026-11-21T09:59:50.500Z"
    start = report(ReportStatus.STARTED, ran_job=True, ran_run_id=7, started_at=told)
    assert table.jobs.start([start], now=NOW) == [Moved.DONE]
    assert table.jobs.start([start], now=NOW + 1) == [Moved.KNOWN]
    ending = report(ReportStatus.SUCCESS, ran_job=True, ran_run_id=7, started_at=told)
    assert table.jobs.end([(ending, [])], now=NOW + 9) == [True]
    assert float(table.item()[JobAttr.STARTED_AT.value]["N"]) == NOW


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
    assert table.jobs.start([report(ReportStatus.STARTED)], now=NOW) == [Moved.UNKNOWN]
    table.before = [throttle()]
    assert table.jobs.end([(report(ReportStatus.UNUSED), ())], now=NOW) == [None]
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
    message = again(table.record())
    table.hand_back(table.record(), message)
    table.claim(message, "b")
    table.launch(message, "b")
    assert table.jobs.renew(replace(request, dispatch=message.dispatch), now=NOW) is True


def test_a_running_job_needs_no_other_registration(table: Table) -> None:
    """Once the start was reported, a request changes nothing."""
    table.claim(job(), "a")
    table.launch(job(), "a")
    table.jobs.start([report(ReportStatus.STARTED)], now=NOW)
    assert table.jobs.renew(report(ReportStatus.RENEWAL), now=NOW) is False
