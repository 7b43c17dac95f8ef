"""Many jobs in a cloud that repeats, delays, reorders and forgets; nothing is lost or left.

Hypothesis chooses what goes wrong and how often; a seed decides when. What it found is repeated by
the numbers that it prints.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.actions import Job
from tests.simulation.agent import Fate
from tests.simulation.clients import GITHUB, Fault
from tests.simulation.expectations import faults
from tests.simulation.world import LABEL, REPOSITORIES, START, Conditions, World

_EXAMPLES = 40 if settings().derandomize else settings().max_examples
_SHARED = "runs-fleet/runner=4cpu-linux-arm64"
"""The same for all runs, so that a runner may be given the job of any of them."""


@dataclass(frozen=True, kw_only=True)
class Disorder:
    """What goes wrong; shares are of one.

    Attributes:
        seed: Decides when.
        runs: The number of jobs of each run that developers start, within half an hour.
        shares_label: Whether all runs have the same label.
        cancelled: Share of the jobs that somebody cancels within a few minutes.
        throttled: Share of the attempts of calls that are refused.
        lost: Share of the attempts whose answer is lost.
        conflicts: Share of the transactions that meet another one.
        github_down: Share of the requests to GitHub without an answer.
        slow: Longest time of a call in seconds.
        lag: Longest time until an index shows a write.
        skew: Most that a function's clock is off.
        repeats: Share of the messages that come twice.
        events_lost: Share of EventBridge's events that never arrive.
        webhooks_lost: Share of the deliveries that fail.
        short: Share of the offerings that have no capacity in a given minute.
        partial: Share of the CreateFleet calls that launch a part only.
        interrupted: Share of the instances that EC2 takes.
        dying: Share of the agents that die without a word.
        failing: Share of the instances whose runner never listens.
        late: Longest delay of a report.
        cap: Most runners at once; 0 for no cap.
    """

    seed: int
    runs: tuple[int, ...]
    shares_label: bool
    cancelled: float
    throttled: float
    lost: float
    conflicts: float
    github_down: float
    slow: float
    lag: float
    skew: float
    repeats: float
    events_lost: float
    webhooks_lost: float
    short: float
    partial: float
    interrupted: float
    dying: float
    failing: float
    late: float
    cap: int

    def conditions(self) -> Conditions:
        """Return what the simulation is given."""
        chance = random.Random(self.seed + 1)  # noqa: S311  it must repeat itself

        def fault(service: str, operation: str, rng: random.Random) -> Fault | None:
            drawn = rng.random()
            if service == GITHUB:
                return Fault.UNAVAILABLE if drawn < self.github_down else None
            if drawn < self.throttled:
                return Fault.THROTTLED
            if drawn < self.throttled + self.lost:
                return Fault.LOST
            is_transaction = operation == "transact_write_items"
            return Fault.CONFLICT if is_transaction and rng.random() < self.conflicts else None

        def capacity(now: float, kind: str, instance_type: str, zone: str) -> bool:
            minute = int((now - START) / 60)
            drawn = random.Random(f"{self.seed}{minute}{kind}{instance_type}{zone}").random()  # noqa: S311
            return drawn >= self.short

        def delivery(_job: Job, _action: str) -> str:
            return "lost" if chance.random() < self.webhooks_lost else "ok"

        def partial(wanted: int, rng: random.Random) -> int:
            return rng.randrange(wanted + 1) if rng.random() < self.partial else wanted

        return Conditions(
            seed=self.seed,
            fate=self._fate,
            delivery=delivery,
            capacity=capacity,
            partial=partial,
            fault=fault,
            latency=(0.005, self.slow),
            lag=self.lag,
            skew=self.skew,
            repeats=self.repeats,
            loses_events=self.events_lost,
            settings={"max_runners": self.cap} if self.cap else {},
        )

    def _fate(self, _number: int, rng: random.Random) -> Fate:
        is_taken, is_dying = rng.random() < self.interrupted, rng.random() < self.dying
        in_job = rng.random() < 0.5
        return Fate(
            boot=rng.uniform(10, 90),
            package=rng.uniform(1, 10),
            fails_bootstrap=rng.random() < self.failing,
            interrupted_after=rng.uniform(1, 100) if is_taken and not in_job else None,
            interrupted_in_job=rng.uniform(1, 100) if is_taken and in_job else None,
            notice=rng.choice((0.0, 120.0, 120.0)),
            dies_after=rng.uniform(1, 100) if is_dying and not in_job else None,
            dies_in_job=rng.uniform(1, 100) if is_dying and in_job else None,
            report_delay=rng.uniform(0.05, self.late),
            report_copies=2 if rng.random() < self.repeats else 1,
            loses_ending=rng.random() < self.events_lost,
        )


def _share(most: float) -> st.SearchStrategy[float]:
    return st.sampled_from([0.0, most / 4, most])


disorders = st.builds(
    Disorder,
    seed=st.integers(0, 2**32),
    runs=st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple),
    shares_label=st.booleans(),
    cancelled=_share(0.2),
    throttled=_share(0.2),
    lost=_share(0.1),
    conflicts=_share(0.2),
    github_down=_share(0.3),
    slow=st.sampled_from([0.05, 0.5, 3.0]),
    lag=st.sampled_from([0.0, 5.0, 60.0]),
    skew=st.sampled_from([0.0, 2.0]),
    repeats=_share(0.3),
    events_lost=_share(0.4),
    webhooks_lost=_share(0.3),
    short=st.sampled_from([0.0, 0.5, 0.95]),
    partial=_share(0.5),
    interrupted=_share(0.4),
    dying=_share(0.1),
    failing=_share(0.2),
    late=st.sampled_from([0.2, 30.0, 200.0]),
    cap=st.sampled_from([0, 0, 1, 3]),
)


def live(disorder: Disorder) -> tuple[World, list[str]]:
    """Live through it and say what is wrong in the end."""
    rng = random.Random(disorder.seed)  # noqa: S311  it must repeat itself
    cancelled: list[Job] = []
    with World(disorder.conditions()) as world:
        world.gate.is_recording = False

        def cancel(job: Job) -> None:
            if job.status != "completed":
                cancelled.append(job)
                world.actions.cancel(job)

        def start(size: int) -> None:
            named = [(f"job-{n}", rng.uniform(5, 300)) for n in range(size)]
            label = _SHARED if disorder.shares_label else LABEL
            for job in world.actions.push(rng.choice(REPOSITORIES), named, label):
                if rng.random() < disorder.cancelled:
                    world.loop.after(rng.uniform(0, 400), cancel, job)

        for size in disorder.runs:
            world.loop.after(rng.uniform(0, 1800), start, size)
        world.run(1800.0)
        return world, faults(world, cancelled=cancelled, within=12 * 3600.0)


@settings(max_examples=_EXAMPLES)
@given(disorder=disorders)
def test_whatever_happens_nothing_is_lost_or_left(disorder: Disorder) -> None:
    """Each job runs as designed, and neither instance, message, claim nor slot is left."""
    _, wrong = live(disorder)
    assert wrong == []


def test_the_same_numbers_give_the_same_story() -> None:
    """To the last moment, so that what was found once can be looked at again."""
    disorder = Disorder(
        seed=7,
        runs=(2, 3),
        shares_label=True,
        cancelled=0.2,
        throttled=0.05,
        lost=0.05,
        conflicts=0.05,
        github_down=0.1,
        slow=0.5,
        lag=5.0,
        skew=2.0,
        repeats=0.1,
        events_lost=0.1,
        webhooks_lost=0.1,
        short=0.5,
        partial=0.1,
        interrupted=0.4,
        dying=0.1,
        failing=0.1,
        late=30.0,
        cap=3,
    )
    stories = []
    for _ in range(2):
        world, wrong = live(disorder)
        assert wrong == []
        ends = [(job.id, job.runner_name, job.completed_at) for job in world.actions.jobs.values()]
        stories.append((world.loop.now, world.gate.counts, world.metrics, ends))
    assert stories[0] == stories[1]
