"""A process dies right before and right after every call of a job's life; nothing is lost or left.

For each life, a first run notes every call to AWS and GitHub that any function makes. Then, for
each call and both sides of it, the same life is lived again and the process dies there, with all it
knew. Queues, schedules and instances go on. When all is at rest the job must have run as designed,
and no instance, message, claim, configuration, registration or counter may be left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import pytest

from tests.simulation.actions import Job
from tests.simulation.agent import Fate
from tests.simulation.clients import Crash, Moment
from tests.simulation.expectations import faults
from tests.simulation.world import LABEL, START, Conditions, World

_ENOUGH = 20  # faults that are told; more would only take longer


@dataclass(frozen=True, kw_only=True)
class Life:
    """The life of one job or a few.

    Attributes:
        conditions: What it is like.
        begin: Lets developers do something; returns the jobs that they cancel.
        attempts: How many attempts its jobs have together when nobody crashes.
        instances: How many instances it takes then.
    """

    conditions: Conditions
    begin: Callable[[World], list[Job]]
    attempts: int = 1
    instances: int = 1


def _first(fate: Fate) -> Callable[[int, Random], Fate]:
    return lambda number, _rng: fate if number == 0 else Fate()


def _one_job(world: World) -> list[Job]:
    world.actions.push("acme/web", [("test", 60.0)], LABEL)
    return []


def _two_jobs(world: World) -> list[Job]:
    world.actions.push("acme/web", [(name, 40.0) for name in ("a", "b")], LABEL)
    return []


def _three_jobs(world: World) -> list[Job]:
    world.actions.push("acme/web", [(name, 40.0) for name in ("a", "b", "c")], LABEL)
    return []


def _cancelled_while_queued(world: World) -> list[Job]:
    (job,) = world.actions.push("acme/web", [("test", 60.0)], LABEL)
    world.loop.after(8.0, world.actions.cancel, job)
    return [job]


def _cancelled_in_mid_job(world: World) -> list[Job]:
    (job,) = world.actions.push("acme/web", [("test", 600.0)], LABEL)
    world.loop.after(120.0, world.actions.cancel, job)
    return [job]


LIVES = {
    "cold": Life(conditions=Conditions(), begin=_one_job),
    "interrupted before the start": Life(
        conditions=Conditions(fate=_first(Fate(interrupted_after=10.0))),
        begin=_one_job,
        instances=2,
    ),
    "interrupted in mid-job": Life(
        conditions=Conditions(fate=_first(Fate(interrupted_in_job=20.0))),
        begin=_one_job,
        attempts=2,
        instances=2,
    ),
    "taken without a word in mid-job": Life(
        conditions=Conditions(fate=_first(Fate(interrupted_in_job=20.0, notice=0.0))),
        begin=_one_job,
        attempts=2,
        instances=2,
    ),
    "bootstrap fails": Life(
        conditions=Conditions(fate=_first(Fate(fails_bootstrap=True))),
        begin=_one_job,
        instances=2,
    ),
    "agent dies before the start": Life(
        conditions=Conditions(fate=_first(Fate(dies_after=20.0))), begin=_one_job, instances=2
    ),
    "late for its registration": Life(
        conditions=Conditions(fate=_first(Fate(boot=320.0))), begin=_one_job
    ),
    "report kept in the bucket": Life(
        conditions=Conditions(fate=_first(Fate(loses_ending=True))), begin=_one_job
    ),
    "no capacity at first": Life(
        conditions=Conditions(capacity=lambda now, *_: now > START + 60.0), begin=_one_job
    ),
    "one of two runners fails": Life(
        conditions=Conditions(fate=_first(Fate(fails_bootstrap=True, package=40.0))),
        begin=_two_jobs,
        attempts=2,
        instances=3,
    ),
    "cancelled while queued": Life(conditions=Conditions(), begin=_cancelled_while_queued),
    "cancelled in mid-job": Life(conditions=Conditions(), begin=_cancelled_in_mid_job),
    "three jobs, one runner at a time": Life(
        conditions=Conditions(settings={"max_runners": 1}),
        begin=_three_jobs,
        attempts=3,
        instances=3,
    ),
    "delivery lost": Life(
        conditions=Conditions(delivery=lambda _job, action: "lost" if action == "queued" else "ok"),
        begin=_one_job,
    ),
    "never announced": Life(
        conditions=Conditions(
            delivery=lambda _job, action: "silent" if action == "queued" else "ok"
        ),
        begin=_one_job,
    ),
}


_NEED_SWEEPS = {"report kept in the bucket", "delivery lost", "never announced"}


def _live(life: Life, crash: Crash | None = None) -> tuple[World, list[str]]:
    with World(life.conditions) as world:
        world.gate.crash = crash
        cancelled = life.begin(world)
        return world, faults(world, cancelled=cancelled)


@pytest.mark.parametrize("name", LIVES)
def test_life_without_a_crash(name: str) -> None:
    """Each life goes as it was designed, and takes no instance more than it must."""
    world, wrong = _live(LIVES[name])
    assert wrong == []
    assert len(world.actions.jobs) == LIVES[name].attempts
    assert len(world.agents) == LIVES[name].instances


@pytest.mark.parametrize("name", [name for name in LIVES if name not in _NEED_SWEEPS])
def test_life_without_sweeps(name: str) -> None:
    """What happens every day is not left to sweeps: messages and events alone bring it to rest."""
    life = LIVES[name]
    world, wrong = _live(replace(life, conditions=replace(life.conditions, sweeps=False)))
    assert wrong == []
    assert len(world.agents) == life.instances


@pytest.mark.parametrize("name", LIVES)
def test_every_crash_is_survived(name: str) -> None:
    """Wherever a process dies, the jobs run as designed and nothing is left over."""
    life = LIVES[name]
    undisturbed, _ = _live(life)
    calls = list(undisturbed.gate.calls)
    assert calls
    wrong: list[str] = []
    for call in calls:
        for moment in Moment:
            world, found = _live(life, Crash(call.number, moment))
            assert world.functions.crashes, f"nobody died {moment} {call}"
            wrong += [f"dies {moment} {call}: {fault}" for fault in found]
            if len(wrong) > _ENOUGH:
                break
    assert wrong == []
