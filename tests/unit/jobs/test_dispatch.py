"""Dispatch: what becomes of a batch, whatever EC2, GitHub, the table and the queue answer."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.circuit_breaker.model import Failure, FailureKind, Offering
from runsfleet_runtime.contract.environment import LaunchTarget
from runsfleet_runtime.contract.messages import JobMessage, RunnerConfig
from runsfleet_runtime.contract.metrics import MetricDefinition
from runsfleet_runtime.fleet.plan import (
    CapacityError,
    CapacityType,
    LaunchedInstance,
    LaunchRequest,
    LaunchResult,
)
from runsfleet_runtime.jobs.dispatch import (
    Dispatcher,
    DispatchSettings,
    ReceivedJob,
    RunnerNotConfiguredError,
)
from runsfleet_runtime.jobs.model import (
    HOLDS_SLOT,
    Claimed,
    ClaimResult,
    ClaimUnknown,
    JobRecord,
    JobStatus,
    Launch,
    NoSlot,
    judge_refused_claim,
)
from runsfleet_runtime.jobs.ports import RecordUnknownError
from runsfleet_runtime.labels import LabelSettings, RunnerSpec

NOW = 1_800_000_000.0
ARM, X64 = "runs-fleet/runner=2cpu-linux-arm64", "runs-fleet/runner=4cpu-linux-x64"


def job(number: int, label: str = ARM, **changes: Any) -> JobMessage:
    """Return a queued job."""
    base = JobMessage(
        job_id=number,
        run_id=7,
        run_attempt=1,
        repository="octo-org/hello",
        labels=(label,),
        queued_at=NOW - 3,
    )
    return replace(base, **changes)


@dataclass
class Record:
    status: JobStatus
    dispatch: int
    claim_id: str
    lease_ends: float = 0.0
    not_before: float = 0.0
    instance_id: str = ""
    error: str = ""


@dataclass
class World:
    """The table, the queue, EC2 and GitHub in memory; ``faults`` says what fails next.

    The records follow the same transition rules as the table's conditions.
    """

    records: dict[int, Record] = field(default_factory=dict)
    queue: list[JobMessage] = field(default_factory=list)
    deferred: list[tuple[str, float]] = field(default_factory=list)
    requests: list[LaunchRequest] = field(default_factory=list)
    running: dict[str, CapacityType] = field(default_factory=dict)
    terminated: list[str] = field(default_factory=list)
    configured: dict[str, RunnerConfig] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    capacity: dict[CapacityType, int] = field(default_factory=dict)
    faults: set[str] = field(default_factory=set)
    github_fails_for: dict[int, float] = field(default_factory=dict)
    unready: set[int] = field(default_factory=set)
    is_final: bool = False
    open: set[str] = field(default_factory=set)  # parts of the keys of open offerings
    failures: list[Failure] = field(default_factory=list)
    delivered: list[Offering] = field(default_factory=list)
    slots: int | None = None
    history: list[JobRecord] = field(default_factory=list)
    runs_read: list[int] = field(default_factory=list)
    prepared_until: set[float] = field(default_factory=set)
    launches: list[Launch] = field(default_factory=list)
    now: float = NOW
    ids: Any = field(default_factory=itertools.count)

    # records
    def claim(
        self, jobs: Sequence[JobMessage], *, claim_ids: Sequence[str], now: float
    ) -> list[ClaimResult]:
        results: list[ClaimResult] = []
        for message, claim_id in zip(jobs, claim_ids, strict=True):
            old = self.records.get(message.job_id)
            if "claim" in self.faults:
                results.append(ClaimUnknown("throttled"))
            elif self.slots is not None and self.slots <= self._in_use():
                results.append(NoSlot("repository:octo-org/hello"))
            elif old is None or (
                old.dispatch <= message.dispatch
                and (
                    old.status is JobStatus.QUEUED
                    or (old.status is JobStatus.CLAIMED and old.lease_ends < now)
                )
            ):
                self.records[message.job_id] = Record(
                    JobStatus.CLAIMED, message.dispatch, claim_id, now + 90
                )
                results.append(Claimed(message, claim_id))
            else:
                results.append(
                    judge_refused_claim(
                        message,
                        status=old.status,
                        recorded_dispatch=old.dispatch,
                        lease_ends=old.lease_ends,
                    )
                )
        return results

    def _in_use(self) -> int:
        return sum(r.status in HOLDS_SLOT for r in self.records.values())

    def wait(self, jobs: Sequence[JobMessage], *, now: float) -> list[bool]:
        del now
        if "wait" in self.faults:
            return [False] * len(jobs)
        for message in jobs:
            self.records[message.job_id] = Record(
                JobStatus.QUEUED, message.dispatch, "", not_before=message.not_before
            )
        return [True] * len(jobs)

    def of_run(self, run_id: int) -> list[JobRecord]:
        if "history" in self.faults:
            raise RecordUnknownError("throttled")
        self.runs_read.append(run_id)
        return [r for r in self.history if r.job.run_id == run_id]

    def record_launches(
        self, launches: Sequence[tuple[Launch, Sequence[Mapping[str, Any]]]], *, now: float
    ) -> list[bool | None]:
        del now
        done: list[bool | None] = []
        for launch, writes in launches:
            self.launches.append(launch)
            record = self.records[launch.job.job_id]
            is_mine = record.claim_id == launch.claim_id and record.status is JobStatus.CLAIMED
            if "record unknown" in self.faults:
                done.append(None)
            elif is_mine and "record" not in self.faults:
                record.status, record.instance_id = JobStatus.LAUNCHED, launch.instance_id
                for write in writes:
                    self.configured[launch.instance_id] = write["config"]
                done.append(None if "answer" in self.faults else True)
            else:
                done.append(False)
        return done

    def release(self, message: JobMessage, claim_id: str, *, not_before: float, now: float) -> bool:
        del now
        record = self.records[message.job_id]
        is_mine = record.claim_id == claim_id and record.status is JobStatus.CLAIMED
        if "release" in self.faults or not is_mine:
            return False
        record.status, record.not_before = JobStatus.QUEUED, not_before
        return True

    def expire(self, message: JobMessage, claim_id: str, *, error: str, now: float) -> bool:
        del now
        record = self.records[message.job_id]
        if "expire" in self.faults or record.claim_id != claim_id:
            return False
        record.status, record.error = JobStatus.EXPIRED, error
        return True

    # queue
    def send(self, jobs: Sequence[JobMessage]) -> list[bool]:
        for message in jobs:  # scenario 11: claimable before the message is visible
            record = self.records.get(message.job_id)
            is_claimable = record is None or record.status is JobStatus.QUEUED
            assert is_claimable or "claim" in self.faults
        if "send" in self.faults:
            return [False] * len(jobs)
        self.queue += jobs
        return [True] * len(jobs)

    def defer(self, receipt_handle: str, seconds: float) -> None:
        self.deferred.append((receipt_handle, seconds))

    # EC2
    def launch(self, request: LaunchRequest) -> LaunchResult:
        self.requests.append(request)
        if "launch" in self.faults:
            return LaunchResult(failed="RequestLimitExceeded")
        left = self.capacity.get(request.capacity, 1000)
        count = min(left, request.count)
        self.capacity[request.capacity] = left - count
        made = [
            LaunchedInstance(
                instance_id=f"i-{next(self.ids)}",
                instance_type=request.instance_types[0],
                availability_zone="a",
                capacity=request.capacity,
            )
            for _ in range(count)
        ]
        self.running |= {i.instance_id: i.capacity for i in made}
        short = CapacityError(
            code="InsufficientInstanceCapacity", message="", capacity=request.capacity
        )
        return LaunchResult(tuple(made), (short,) if count < request.count else ())

    def terminate(self, instance_ids: Sequence[str]) -> bool:
        for instance_id in instance_ids:
            self.terminated.append(instance_id)
            self.running.pop(instance_id)
        return True

    # the breaker
    def closed_to(self, offerings: Sequence[Offering]) -> frozenset[Offering]:
        return frozenset(o for o in offerings if any(part in o.key for part in self.open))

    def record_failures(self, failures: Sequence[Failure]) -> None:
        self.failures += failures

    def record_successes(self, offerings: Sequence[Offering]) -> None:
        self.delivered += offerings

    # GitHub and the store
    def prepare(self, message: JobMessage, spec: RunnerSpec, *, deadline: float) -> None:
        del spec
        self.prepared_until.add(deadline)
        if "prepare" in self.faults or message.job_id in self.unready:
            raise RunnerNotConfiguredError("away", service="github")

    def configure(
        self, message: JobMessage, instance_id: str, spec: RunnerSpec, *, deadline: float
    ) -> RunnerConfig:
        del spec
        assert deadline > self.now
        if "bug" in self.faults and message.job_id == 1:
            raise KeyError("something nobody thought of")
        if message.job_id in self.github_fails_for:
            raise RunnerNotConfiguredError(
                "no",
                service="github",
                retry_at=self.github_fails_for[message.job_id],
                is_final=self.is_final,
            )
        return RunnerConfig(
            instance_id=instance_id,
            job_id=message.job_id,
            run_id=message.run_id,
            repository=message.repository,
            server_url="",
            runner_url="",
            runner_name=f"runsfleet-{instance_id}",
            labels=message.labels,
        )

    def transact_put(self, config: RunnerConfig, *, now: float) -> list[Mapping[str, Any]]:
        del now
        return [{"config": config}]

    def discard(self, config: RunnerConfig, message: JobMessage, *, deadline: float) -> None:
        assert (message.job_id, deadline > self.now) == (config.job_id, True)
        self.configured.pop(config.instance_id, None)

    # metrics
    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        self.counted[metric.name if kind is None else f"{metric.name}:{kind}"] += int(value)

    def dispatch(self, *messages: JobMessage, receives: int = 1, **settings: Any) -> set[str]:
        target = LaunchTarget(
            platform="linux-arm64",
            launch_template_id="lt-1",
            launch_template_version="3",
            root_device="/dev/sda1",
        )
        dispatcher = Dispatcher(
            DispatchSettings(
                **{
                    "labels": LabelSettings(region="eu-central-1", environment="dev"),
                    "targets": {
                        "linux-arm64": target,
                        "linux-x64": replace(
                            target, platform="linux-x64", launch_template_id="lt-2"
                        ),
                    },
                    "subnet_ids": ("subnet-a", "subnet-b"),
                    **settings,
                }
            ),
            records=self,
            history=self,
            queue=self,
            instances=self,
            runners=self,
            breaker=self,
            metrics=self,
            clock=lambda: self.now,
            jitter=lambda: 0.5,
            new_id=lambda: f"claim-{next(self.ids)}",
        )
        batch = [
            ReceivedJob(
                message_id=f"m-{n}", receipt_handle=f"r-{n}", job=message, receives=receives
            )
            for n, message in enumerate(messages)
        ]
        return dispatcher.dispatch(batch, deadline=self.now + 60)


def test_equal_jobs_are_one_create_fleet() -> None:
    """Ten equal jobs ask EC2 once, on spot, over several types and every subnet."""
    world = World()
    assert world.dispatch(*[job(n) for n in range(10)]) == set()
    (request,) = world.requests
    assert (request.count, request.capacity) == (10, CapacityType.SPOT)
    assert request.instance_types[0] == "t4g.medium"
    assert len(request.instance_types) > 1
    assert {subnet for _, subnet in request.overrides()} == {"subnet-a", "subnet-b"}
    assert {r.status for r in world.records.values()} == {JobStatus.LAUNCHED}
    assert world.counted["JobsLaunched:spot"] == 10


def test_different_specs_are_launched_apart_and_keep_their_labels() -> None:
    """Each runner gets its own job's labels, never another's of the same batch."""
    world = World()
    world.dispatch(job(1), job(2, X64), job(3))
    assert sorted(r.count for r in world.requests) == [1, 2]
    assert {r.target.platform for r in world.requests} == {"linux-arm64", "linux-x64"}
    for config in world.configured.values():
        assert config.labels == (X64 if config.job_id == 2 else ARM,)


def test_spot_shortfall_goes_on_demand_once() -> None:
    """What spot did not deliver is asked for on-demand, exactly that much."""
    world = World(capacity={CapacityType.SPOT: 3})
    assert world.dispatch(*[job(n) for n in range(5)]) == set()
    assert [(r.capacity, r.count) for r in world.requests] == [
        (CapacityType.SPOT, 5),
        (CapacityType.ON_DEMAND, 2),
    ]
    assert Counter(world.running.values()) == {CapacityType.SPOT: 3, CapacityType.ON_DEMAND: 2}


ZONES = {"subnet-a": "zone-a", "subnet-b": "zone-b"}


def test_open_offerings_are_left_out_of_the_launch() -> None:
    """A type in one zone that the breaker holds open is not asked for; its other zone is."""
    world = World(open={"spot:t4g.medium:zone-a"})
    assert world.dispatch(job(1), subnet_zones=ZONES) == set()
    (request,) = world.requests
    pairs = request.overrides()
    assert ("t4g.medium", "subnet-a") not in pairs
    assert ("t4g.medium", "subnet-b") in pairs
    assert len(pairs) == 2 * len(request.instance_types) - 1


def test_no_spot_left_goes_on_demand_at_once() -> None:
    """When all spot offerings are open, no call is spent on them."""
    world = World(open={"spot:"})
    assert world.dispatch(job(1), subnet_zones=ZONES) == set()
    assert [r.capacity for r in world.requests] == [CapacityType.ON_DEMAND]


def test_a_breaker_never_makes_a_job_unlaunchable() -> None:
    """When everything is open, everything is tried: spot first, then on-demand."""
    world = World(open={":"}, capacity={CapacityType.SPOT: 1})
    assert world.dispatch(job(1), job(2), subnet_zones=ZONES) == set()
    assert [(r.capacity, r.count) for r in world.requests] == [
        (CapacityType.SPOT, 2),
        (CapacityType.ON_DEMAND, 1),
    ]
    assert all(len(r.overrides()) == 2 * len(r.instance_types) for r in world.requests)
    assert len({r.client_token for r in world.requests}) == 2
    world = World(open={":"})
    assert world.dispatch(job(1, on_demand=True), subnet_zones=ZONES) == set()
    assert [r.capacity for r in world.requests] == [CapacityType.ON_DEMAND]


def test_spot_that_fell_short_is_not_asked_again_for_want_of_on_demand() -> None:
    """With all on-demand offerings open they are tried all the same, and spot only once."""
    world = World(open={"on-demand:"}, capacity={CapacityType.SPOT: 1})
    assert world.dispatch(job(1), job(2), subnet_zones=ZONES) == set()
    assert [(r.capacity, r.count) for r in world.requests] == [
        (CapacityType.SPOT, 2),
        (CapacityType.ON_DEMAND, 1),
    ]


def test_the_breaker_hears_what_delivered_and_what_lacked() -> None:
    """Spot had nothing: each offering that was asked for failed once, by the launch's own id."""
    world = World(open={"zone-b"}, capacity={CapacityType.SPOT: 0})
    assert world.dispatch(job(1), subnet_zones=ZONES) == set()
    spot, on_demand = world.requests
    assert {f.offering.key for f in world.failures} == {
        f"spot:{kind}:zone-a" for kind in spot.instance_types
    }
    assert {(f.id, f.at, f.kind) for f in world.failures} == {
        (spot.client_token, NOW, FailureKind.CAPACITY)
    }
    assert [o.key for o in world.delivered] == [f"on-demand:{on_demand.instance_types[0]}:a"]


def test_failed_launch_call_says_nothing_of_offerings() -> None:
    """A throttled or refused call is nobody's lack of capacity."""
    world = World(faults={"launch"})
    world.dispatch(job(1), subnet_zones=ZONES)
    assert (world.failures, world.delivered) == ([], [])


def test_exact_shortfall_is_handed_back() -> None:
    """Of five, EC2 delivers three: the three stay and exactly two are on the queue again."""
    world = World(capacity={CapacityType.SPOT: 2, CapacityType.ON_DEMAND: 1})
    assert world.dispatch(*[job(n) for n in range(5)]) == set()
    assert [m.job_id for m in world.queue] == [3, 4]
    assert {m.dispatch for m in world.queue} == {1}
    assert all(m.not_before > NOW for m in world.queue)
    assert len(world.running) == 3
    assert world.counted["LaunchShortfall"] == 2


def test_spot_false_and_forced_on_demand_never_ask_for_spot() -> None:
    """A label's wish and a retry after an interruption both go straight to on-demand."""
    world = World()
    world.dispatch(job(1, ARM + "/spot=false"), job(2, on_demand=True))
    assert {r.capacity for r in world.requests} == {CapacityType.ON_DEMAND}


def test_job_without_a_slot_waits_and_spends_no_budget() -> None:
    """The oldest get the free slots; the others come again within a minute."""
    world = World(slots=2)
    batch = [job(n, queued_at=NOW - n) for n in range(4)]
    assert world.dispatch(*batch) == set()
    assert {n for n, r in world.records.items() if r.status is JobStatus.LAUNCHED} == {2, 3}
    assert [(m.job_id, m.dispatch, m.requeues) for m in world.queue] == [(1, 1, 0), (0, 1, 0)]
    assert all(world.records[m.job_id].not_before == m.not_before for m in world.queue)
    assert world.counted["JobsWaiting:repository"] == 2
    waited = World(slots=0)
    waited.dispatch(job(1, dispatch=30))
    assert NOW + 30 <= waited.queue[0].not_before <= NOW + 60


@pytest.mark.parametrize("fault", ["wait", "send"])
def test_job_that_cannot_wait_for_certain_comes_back(fault: str) -> None:
    """Where the table or the queue does not answer, the present message is kept."""
    world = World(slots=0, faults={fault})
    assert world.dispatch(job(1)) == {"m-0"}
    assert (world.queue, world.requests) == ([], [])
    world.faults.clear()
    world.slots = None
    assert world.dispatch(job(1)) == set()
    assert world.records[1].status is JobStatus.LAUNCHED


def test_job_that_runs_again_after_an_interruption_goes_on_demand() -> None:
    """Its former attempt is found by run and name; other jobs of that run stay on spot."""
    former = job(90, job_name="build")
    known = JobRecord(job=former, status=JobStatus.COMPLETED, interrupted_at=NOW - 600)
    world = World(history=[known])
    world.dispatch(
        job(1, job_name="build", run_attempt=2),
        job(2, job_name="lint", run_attempt=2),
        job(3, job_name="build", run_attempt=2, run_id=8),
    )
    assert world.configured.keys() == world.running.keys()
    assert {c.job_id: world.running[i] for i, c in world.configured.items()} == {
        1: CapacityType.ON_DEMAND,
        2: CapacityType.SPOT,
        3: CapacityType.SPOT,
    }
    assert sorted(world.runs_read) == [7, 8]


def test_first_attempts_and_unknown_history_stay_as_they_are() -> None:
    """Only a re-run costs a question; one that is not answered changes nothing."""
    world = World()
    world.dispatch(job(1, job_name="build"))
    assert world.runs_read == []
    world = World(faults={"history"})
    assert world.dispatch(job(1, run_attempt=2)) == set()
    assert set(world.running.values()) == {CapacityType.SPOT}


def test_a_slow_github_leaves_time_to_launch_the_others() -> None:
    """Preparing a batch takes twenty seconds at most, however long the invocation may last."""
    world = World()
    world.dispatch(job(1), job(2))
    assert world.prepared_until == {NOW + 20}


def test_nothing_is_launched_that_could_not_be_configured_in_time() -> None:
    """What the first spec took too long for is missing for the next: that one is handed back."""
    world = World()
    configure = world.configure

    def slow(*about: Any, **options: Any) -> RunnerConfig:
        config = configure(*about, **options)
        world.now += 55
        return config

    world.configure = slow  # type: ignore[method-assign]
    assert world.dispatch(job(1), job(2, X64)) == set()
    assert [r.count for r in world.requests] == [1]
    assert [m.job_id for m in world.queue] == [2]
    assert list(world.running) == [world.records[1].instance_id]


def test_label_that_forbids_a_rerun_is_recorded() -> None:
    """Whoever ends the job later has only its record, not the fleet's label settings."""
    world = World()
    world.dispatch(job(1, ARM + "/retry=false"), job(2))
    assert {launch.job.job_id: launch.may_rerun for launch in world.launches} == {
        1: False,
        2: True,
    }


def test_message_before_its_time_waits() -> None:
    """A requeued job is deferred for the remainder and comes back."""
    world = World()
    assert world.dispatch(job(1, not_before=NOW + 30)) == {"m-0"}
    assert world.deferred == [("r-0", 30.0)]
    assert world.records == {}


def test_settled_job_is_done_with() -> None:
    """The same delivery twice launches once."""
    world = World()
    world.dispatch(job(1))
    assert world.dispatch(job(1)) == set()
    assert len(world.running) == 1


def test_job_held_by_another_worker_stays_on_the_queue() -> None:
    """Losing the race must not delete what may be the only copy of the message."""
    world = World(records={1: Record(JobStatus.CLAIMED, 0, "other", NOW + 40)})
    assert world.dispatch(job(1)) == {"m-0"}
    assert world.deferred[0][1] == pytest.approx(41)
    assert world.requests == []


def test_unknown_claim_launches_nothing() -> None:
    """When the table does not answer, nothing is launched and the message returns."""
    world = World(faults={"claim"})
    assert world.dispatch(job(1)) == {"m-0"}
    assert world.requests == []
    assert world.counted["APIErrors:dynamodb"] == 1


def test_table_that_stays_silent_loses_no_job() -> None:
    """A message that was received often is replaced before it would be given up by the queue."""
    world = World(faults={"claim"})
    assert world.dispatch(job(1), receives=2) == set()
    (message,) = world.queue
    assert (message.dispatch, message.requeues) == (1, 0)
    world.faults = {"claim", "send"}
    assert world.dispatch(job(1), receives=2) == {"m-0"}
    world.faults = {"claim"}
    assert world.dispatch(job(1, queued_at=NOW - 90_000), receives=3) == {"m-0"}
    world.faults.clear()
    world.now += 100
    assert world.dispatch(message) == set()
    assert len(world.running) == 1


def test_fault_of_one_registration_leaves_the_others() -> None:
    """Whatever goes wrong for one runner, its instance is ended and the rest of the batch runs."""
    world = World(faults={"bug"})
    assert world.dispatch(job(1), job(2)) == set()
    assert len(world.running) == 1
    assert world.records[2].status is JobStatus.LAUNCHED
    assert [m.job_id for m in world.queue] == [1]


def test_failed_launch_call_is_handed_back_without_on_demand() -> None:
    """An error of the call is no lack of capacity: buying dearer would not help."""
    world = World(faults={"launch"})
    assert world.dispatch(job(1)) == set()
    assert len(world.requests) == 1
    assert [m.job_id for m in world.queue] == [1]


def test_unregistered_runner_is_terminated_and_its_job_handed_back() -> None:
    """When GitHub refuses one registration, that instance goes and the others stay."""
    world = World(github_fails_for={2: 0.0})
    assert world.dispatch(job(1), job(2), job(3)) == set()
    assert len(world.terminated) == 1
    assert len(world.running) == 2
    assert [m.job_id for m in world.queue] == [2]
    assert world.counted["LaunchFailures"] == 1


def test_rate_limit_is_waited_for() -> None:
    """A job that GitHub's rate limit stopped comes back when GitHub said, not before."""
    world = World(github_fails_for={1: NOW + 500})
    world.dispatch(job(1))
    assert world.queue[0].not_before == NOW + 500


def test_unrecorded_launch_is_undone() -> None:
    """If the record cannot be written the instance is terminated, its configuration deleted."""
    world = World(faults={"record"})
    assert world.dispatch(job(1)) == set()
    assert world.running == {}
    assert world.configured == {}
    assert [m.job_id for m in world.queue] == [1]


def test_launch_whose_record_was_written_unseen_keeps_its_instance() -> None:
    """The record names this instance and no other: ending it would lose the job."""
    world = World(faults={"answer"})
    assert world.dispatch(job(1)) == {"m-0"}
    assert set(world.running) == {world.records[1].instance_id} == set(world.configured)
    world.faults.clear()
    world.now += 120
    assert world.dispatch(job(1)) == set()
    assert len(world.running) == 1


def test_launch_of_which_nothing_is_known_is_made_again() -> None:
    """Where the record was not written, the message that comes back gets a new instance."""
    world = World(faults={"record unknown"})
    assert world.dispatch(job(1)) == {"m-0"}
    world.faults.clear()
    world.now += 120
    assert world.dispatch(job(1)) == set()
    assert world.records[1].instance_id in world.configured


def test_github_that_is_away_costs_no_instance() -> None:
    """What GitHub would not register is not launched; the other jobs of the batch are."""
    world = World(unready={2})
    assert world.dispatch(job(1), job(2)) == set()
    assert [r.count for r in world.requests] == [1]
    assert [m.job_id for m in world.queue] == [2]
    assert world.terminated == []


def test_registration_refused_for_good_is_given_up() -> None:
    """A registration that GitHub will never take is not paid for again and again."""
    world = World(github_fails_for={1: 0.0}, is_final=True)
    assert world.dispatch(job(1)) == set()
    assert world.records[1].status is JobStatus.EXPIRED
    assert world.running == {}
    assert world.queue == []


@pytest.mark.parametrize("fault", ["release", "send"])
def test_failed_hand_back_keeps_the_present_message(fault: str) -> None:
    """Where the record or the queue does not answer, the message itself comes back."""
    world = World(faults={fault, "launch"})
    assert world.dispatch(job(1)) == {"m-0"}
    assert world.queue == []


def test_job_past_its_deadline_is_given_up_with_a_reason() -> None:
    """GitHub failed the job long ago: no instance is launched for it."""
    world = World()
    assert world.dispatch(job(1, queued_at=NOW - 25 * 3600)) == set()
    assert world.requests == []
    assert world.records[1].status is JobStatus.EXPIRED
    assert "longer than GitHub keeps" in world.records[1].error
    assert world.counted["JobsExpired"] == 1


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("runs-fleet/runner=4cpu-windows-x64", "no launch template for windows-x64"),
        (ARM + "/private=true", "no private subnets"),
        ("runs-fleet/colour=blue", "not served any more"),
    ],
)
def test_job_that_cannot_be_served_is_given_up_with_a_reason(label: str, reason: str) -> None:
    """What the webhook let through but this fleet lacks says so in its record."""
    world = World()
    assert world.dispatch(job(1, label)) == set()
    assert reason in world.records[1].error
    assert world.running == {}


def test_giving_up_that_is_not_recorded_comes_back() -> None:
    """A message is deleted only once the terminal write succeeded."""
    world = World(faults={"expire"})
    assert world.dispatch(job(1, queued_at=NOW - 25 * 3600)) == {"m-0"}


def test_two_messages_of_one_job_launch_once() -> None:
    """The later message of a batch supersedes the earlier one."""
    world = World()
    assert world.dispatch(job(1), job(1, dispatch=1)) == set()
    assert len(world.running) == 1
    assert world.records[1].dispatch == 1


def test_backoff_grows_with_the_tries() -> None:
    """Each further try waits longer, up to ten minutes."""
    waits = []
    for tries in range(9):
        world = World(faults={"launch"})
        world.dispatch(job(1, dispatch=tries))
        waits.append(world.queue[0].not_before - NOW)
    assert waits == sorted(waits)
    assert waits[-1] <= 600


@given(
    jobs=st.lists(st.tuples(st.integers(1, 6), st.sampled_from([ARM, X64])), max_size=10),
    spot=st.integers(0, 10),
    on_demand=st.integers(0, 10),
    faults=st.sets(
        st.sampled_from(["claim", "record", "release", "send", "launch", "expire", "prepare"])
    ),
    github=st.sets(st.integers(1, 6)),
)
def test_no_job_is_lost_and_no_instance_left(
    jobs: list[tuple[int, str]],
    spot: int,
    on_demand: int,
    faults: set[str],
    github: set[int],
) -> None:
    """Whatever fails, each job has a launched instance, a message, or a record that says why."""
    world = World(
        capacity={CapacityType.SPOT: spot, CapacityType.ON_DEMAND: on_demand},
        faults=faults,
        github_fails_for=dict.fromkeys(github, 0.0),
    )
    messages = [job(n, label) for n, label in dict(jobs).items()]
    returned = world.dispatch(*messages)
    launched = {r.instance_id for r in world.records.values() if r.status is JobStatus.LAUNCHED}
    assert set(world.running) == launched == set(world.configured)
    queued = {m.job_id for m in world.queue}
    for number, message in enumerate(messages):
        record = world.records.get(message.job_id)
        is_settled = record is not None and record.status in {JobStatus.LAUNCHED, JobStatus.EXPIRED}
        assert is_settled + (f"m-{number}" in returned) + (message.job_id in queued) == 1

    # once everything works again, every job gets its instance
    world.faults.clear()
    world.github_fails_for.clear()
    world.capacity.clear()
    world.now += 700
    again = [m for n, m in enumerate(messages) if f"m-{n}" in returned] + world.queue
    world.queue = []
    assert world.dispatch(*again) == set()
    assert {r.status for r in world.records.values()} <= {JobStatus.LAUNCHED}
    assert len(world.running) == len(messages)
