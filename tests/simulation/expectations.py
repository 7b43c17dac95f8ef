"""What must hold when everything has come to rest, whatever happened before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from tests.simulation.actions import Job
from tests.simulation.world import World

SETTLING = 30 * 3600.0
"""Simulated seconds after which nothing may be under way: GitHub's day for a job, and some more."""


def faults(world: World, *, cancelled: Collection[Job] = ()) -> list[str]:
    """Let a world come to rest and say what is wrong with it then; nothing, if all is well.

    Args:
        world: The world.
        cancelled: Jobs that were cancelled at GitHub.
    """
    left = world.settle(SETTLING)
    return [*left, *wrong_runs(world, cancelled=cancelled), *broken_functions(world)]


def wrong_runs(world: World, *, cancelled: Collection[Job] = ()) -> list[str]:
    """Say which jobs did not run exactly once, or were not re-run as designed.

    Designed is: a job runs once and succeeds. Where EC2 took its instance in mid-job it failed at
    GitHub, and is run again, as a further attempt and once.
    """
    attempts: defaultdict[tuple[int, str], list[Job]] = defaultdict(list)
    for job in world.actions.jobs.values():
        attempts[job.run.id, job.name].append(job)
    found: list[str] = []
    for jobs in attempts.values():
        story = ", ".join(f"{j.id} {j.conclusion} after {j.executions} starts" for j in jobs)
        if any(job in cancelled for job in jobs):
            expected = ["cancelled"]
        elif jobs[0].conclusion == "failure":
            expected = ["failure", "success"]
        else:
            expected = ["success"]
        has_run_once = all(job.executions == 1 for job in jobs) or expected == ["cancelled"]
        if [job.conclusion for job in jobs] != expected or not has_run_once:
            found.append(f"not as designed: {story}")
    return found


def broken_functions(world: World) -> list[str]:
    """Say which functions failed as a whole; none should, however the cloud behaves."""
    return [f"{name} failed: {error!r}" for name, error in world.functions.errors]
