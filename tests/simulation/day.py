"""A simulated working day: thousands of jobs, interruptions, an outage, lost webhooks.

    python -m tests.simulation.day --jobs 10000 --plot docs/reliability-day.svg

prints the figures of ``docs/reliability.md``. The same seed gives the same day, to the last digit.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from runsfleet_runtime.fleet.catalogue import CATALOGUE
from tests.simulation.actions import Job
from tests.simulation.agent import Fate
from tests.simulation.clients import Fault
from tests.simulation.ec2 import Instance
from tests.simulation.expectations import broken_functions
from tests.simulation.plot import Picture, draw
from tests.simulation.world import LABEL, REPOSITORIES, START, Conditions, World

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
OUTAGE: Final = (13.0, 14.0)
"""Hours in which no offering of the region has capacity, neither spot nor on-demand."""
INTERRUPTIONS: Final = 0.05
LOST_WEBHOOKS: Final = 0.01
SILENT_WEBHOOKS: Final = 0.001
"""Of all webhooks; nothing at GitHub tells of them either."""
DYING_AGENTS: Final = 0.002
FAILED_BOOTSTRAPS: Final = 0.005
KEPT_REPORTS: Final = 0.003
FAULTY_CALLS: Final = 0.005
SPOT_SHARE: Final = 0.5
"""Spot costs about half of on-demand: a planning value (40 to 60 % off is usual), not measured."""
SETTLING: Final = 12 * HOUR
MAX_RUNNERS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a day came to.

    Attributes:
        jobs: Jobs that developers started.
        attempts: Jobs at GitHub, re-runs included.
        lost: Jobs that never succeeded, apart from those that broke off twice.
        stories: What is known of each of both.
        broken_off_twice: Jobs whose second attempt lost its instance too; by design there is no
            third.
        instances: Instances launched.
        without_job: Of these, those that were never given a job.
        zombies: Instances that outlived their work by more than a quarter of an hour.
        left: What was left over in the end.
        interrupted: Instances that EC2 took.
        in_mid_job: Jobs whose instance went in mid-job.
        reruns: Jobs that were re-run.
        redeliveries: Webhooks that were delivered again.
        on_demand_share: Share of the instances that were bought on demand.
        instance_hours: Hours of all instances.
        usd: What they cost.
        usd_on_demand: What they would have cost if all had been on demand.
        waits: Percentiles of the seconds from queued to started.
        waits_outside_outage: The same without the jobs queued in the outage or within the hour
            after it.
        calls: Calls to AWS by functions, for each job.
        github_calls: The same to GitHub.
    """

    jobs: int
    attempts: int
    lost: int
    stories: list[str]
    broken_off_twice: int
    instances: int
    without_job: int
    zombies: int
    left: list[str]
    interrupted: int
    in_mid_job: int
    reruns: int
    redeliveries: int
    on_demand_share: float
    instance_hours: float
    usd: float
    usd_on_demand: float
    waits: dict[str, float]
    waits_outside_outage: dict[str, float]
    calls: float
    github_calls: float


def weight(hour: float) -> float:
    """Return how busy an hour of a working day is; 1 at its height.

    Example:
        >>> weight(10.5) > 5 * weight(3)
        True
    """
    morning = math.exp(-(((hour - 10.5) / 2.0) ** 2))
    afternoon = math.exp(-(((hour - 15.0) / 2.6) ** 2))
    nightly = 0.25 * math.exp(-(((hour - 2.0) / 0.7) ** 2))
    return min(1.0, 0.06 + 0.85 * morning + 0.8 * afternoon + nightly)


def arrivals(rng: random.Random, jobs: int) -> list[tuple[float, int]]:
    """Return when runs start and how many jobs each has; as many jobs together as asked for."""
    found: list[tuple[float, int]] = []
    left = jobs
    while left:
        second = rng.uniform(0, DAY)
        if rng.random() < weight(second / HOUR):
            size = min(left, rng.choice((1, 1, 1, 2, 3, 4, 6, 10)))
            found.append((second, size))
            left -= size
    return sorted(found)


def _fate(_number: int, rng: random.Random) -> Fate:
    boot = min(240.0, rng.lognormvariate(math.log(32.0), 0.3))
    changes: dict[str, Any] = {}
    if rng.random() < INTERRUPTIONS:
        kind = "interrupted_in_job" if rng.random() < 0.6 else "interrupted_after"
        changes[kind] = rng.uniform(5, 60) if kind == "interrupted_after" else rng.uniform(1, 400)
        changes["notice"] = 0.0 if rng.random() < 0.1 else 120.0
    if rng.random() < DYING_AGENTS:
        kind = rng.choice(("dies_after", "dies_in_job"))
        changes[kind] = rng.uniform(1, 200)
    return Fate(
        boot=boot,
        package=rng.uniform(1.5, 6.0),
        fails_bootstrap=rng.random() < FAILED_BOOTSTRAPS,
        loses_ending=rng.random() < KEPT_REPORTS,
        report_delay=rng.uniform(0.05, 0.5),
        **changes,
    )


def _fault(_service: str, _operation: str, rng: random.Random) -> Fault | None:
    if rng.random() >= FAULTY_CALLS:
        return None
    return rng.choice((Fault.THROTTLED, Fault.UNAVAILABLE, Fault.LOST))


def _capacity(now: float, *_offering: str) -> bool:
    return not OUTAGE[0] <= (now - START) / HOUR < OUTAGE[1]


def live(jobs: int, seed: int) -> tuple[Figures, Picture]:
    """Live through a day.

    Args:
        jobs: How many jobs developers start.
        seed: Of all randomness.
    """
    rng = random.Random(seed)  # noqa: S311  a day must repeat itself
    chance = random.Random(seed + 1)  # noqa: S311

    def delivery(_job: Job, _action: str) -> str:
        drawn = chance.random()
        if drawn < SILENT_WEBHOOKS:
            return "silent"
        return "lost" if drawn < SILENT_WEBHOOKS + LOST_WEBHOOKS else "ok"

    conditions = Conditions(
        seed=seed,
        fate=_fate,
        delivery=delivery,
        capacity=_capacity,
        fault=_fault,
        latency=(0.005, 0.08),
        lag=2.0,
        skew=0.5,
        repeats=0.01,
        loses_events=0.01,
        settings={"max_runners": MAX_RUNNERS},
    )
    with World(conditions) as world:
        world.gate.is_recording = False
        alive: list[tuple[float, int]] = []

        def start(size: int) -> None:
            named = [(f"job-{n}", _duration(rng)) for n in range(size)]
            world.actions.push(rng.choice(REPOSITORIES), named, LABEL)

        def look() -> None:
            count = sum(i.is_alive for i in world.ec2.instances.values())
            alive.append(((world.loop.now - START) / HOUR, count))

        for second, size in arrivals(rng, jobs):
            world.loop.at(START + second, start, size)
        for minute in range(0, 24 * 60, 5):
            world.loop.at(START + minute * 60, look)
        world.run(DAY)
        left = world.settle(SETTLING, every=300.0)
        figures = _figures(world, jobs, [*left, *broken_functions(world)])
        return figures, _picture(world, alive, figures)


def _duration(rng: random.Random) -> float:
    return min(5400.0, 20.0 + rng.lognormvariate(math.log(180.0), 0.9))


def _figures(world: World, jobs: int, left: list[str]) -> Figures:
    lines: dict[tuple[int, str], list[Job]] = {}
    for job in world.actions.jobs.values():
        lines.setdefault((job.run.id, job.name), []).append(job)
    failed = [line for line in lines.values() if line[-1].conclusion != "success"]
    twice = sum(len(line) > 1 and all(job.is_broken_off for job in line) for line in failed)
    ran: dict[str, Job] = {
        job.runner_name: job for job in world.actions.jobs.values() if job.runner_name
    }
    lives = [(i, ran.get(f"runsfleet-{i.id}")) for i in world.ec2.history]
    hours = sum(_life(i, world) for i, _ in lives) / HOUR
    price = {i.id: (CATALOGUE[i.type].ondemand_usd_per_hour or 0.0) for i, _ in lives}
    on_demand = sum(price[i.id] * _life(i, world) / HOUR for i, _ in lives)
    paid = sum(
        price[i.id] * _life(i, world) / HOUR * (SPOT_SHARE if i.capacity == "spot" else 1.0)
        for i, _ in lives
    )
    waits = [(job.created_at, job.started_at - job.created_at) for job in _started(world)]
    around = (START + OUTAGE[0] * HOUR, START + (OUTAGE[1] + 1) * HOUR)
    return Figures(
        jobs=jobs,
        attempts=len(world.actions.jobs),
        lost=len(failed) - twice,
        stories=[_story(world, job) for line in failed for job in line],
        broken_off_twice=twice,
        instances=len(lives),
        without_job=sum(job is None for _, job in lives),
        zombies=sum(_outlived(i, job, world) > 900.0 for i, job in lives),
        left=left,
        interrupted=sum(i.was_taken for i, _ in lives),
        in_mid_job=sum(job.is_broken_off for job in world.actions.jobs.values()),
        reruns=world.actions.reruns,
        redeliveries=sum(d.is_redelivery for d in world.actions.deliveries),
        on_demand_share=sum(i.capacity == "on-demand" for i, _ in lives) / len(lives),
        instance_hours=hours,
        usd=paid,
        usd_on_demand=on_demand,
        waits=_percentiles([seconds for _, seconds in waits]),
        waits_outside_outage=_percentiles(
            [s for created, s in waits if not around[0] - HOUR / 4 <= created < around[1]]
        ),
        calls=(world.gate.counts.total() - world.gate.counts["github"]) / jobs,
        github_calls=world.gate.counts["github"] / jobs,
    )


def _story(world: World, job: Job) -> str:
    deliveries = [f"{d.action} {d.status_code}" for d in world.actions.deliveries_of(job)]
    record = world.record(job)
    told = {name: record.get(name) for name in ("status", "outcome", "error", "rerun")}
    return (
        f"job {job.id}, attempt {job.attempt}, {job.conclusion} on {job.runner_name}, deliveries "
        f"{deliveries}, record of {record.get('runner_name')}: {told}"
    )


def _started(world: World) -> list[Any]:
    return [job for job in world.actions.jobs.values() if job.started_at is not None]


def _life(instance: Instance, world: World) -> float:
    return (instance.ended_at or world.loop.now) - instance.launched_at


def _outlived(instance: Instance, job: Job | None, world: World) -> float:
    """Return for how long an instance lived after its job, or its launch if it had none."""
    since = instance.launched_at
    if job is not None:
        since = job.completed_at or world.loop.now
    return (instance.ended_at or world.loop.now) - since


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))]
        for name, share in shares.items()
    }


def _picture(world: World, alive: list[tuple[float, int]], figures: Figures) -> Picture:
    waits = [
        ((job.created_at - START) / HOUR, job.started_at - job.created_at)
        for job in _started(world)
        if job.created_at < START + DAY
    ]
    quarters: dict[int, list[float]] = {}
    counts = Counter(int(hour * 4) for hour, _ in waits)
    for hour, seconds in waits:
        quarters.setdefault(int(hour * 4), []).append(seconds)
    bins = []
    for quarter, values in sorted(quarters.items()):
        found = _percentiles(values)
        bins.append(((quarter + 0.5) / 4, found["p50"], found["p95"]))
    return Picture(
        waits=waits,
        bins=bins,
        arrivals=[counts[quarter] for quarter in range(96)],
        alive=alive,
        outage=OUTAGE,
        title=f"A simulated day of {figures.jobs:,} jobs: how long each waited for its runner",
    )


def main() -> int:
    """Live through a day, print what it came to, draw it; 1 if a job was lost or something left."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    begun = time.perf_counter()
    figures, picture = live(chosen.jobs, chosen.seed)
    found = asdict(figures)
    for name, value in found.items():
        sys.stdout.write(f"{name.replace('_', ' ')}: {_shown(value)}\n")
    sys.stdout.write(f"took {time.perf_counter() - begun:.0f} s\n")
    if chosen.plot:
        chosen.plot.write_text(draw(picture))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(bool(figures.lost or figures.zombies or figures.left))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return "; ".join(value) or "nothing"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    raise SystemExit(main())
