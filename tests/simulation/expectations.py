"""What must hold when everything has come to rest, whatever happened before."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection

from tests.simulation.actions import Job
from tests.simulation.world import World

SETTLING = 4 * 3600.0
"""Simulated seconds after the last event by which nothing may be under way any more."""


def faults(world: World, *, cancelled: Collection[Job] = (), within: float = SETTLING) -> list[str]:
    """Let a world come to rest and say what is wrong with it then; nothing, if all is well.

    Args:
        world: The world.
        cancelled: Jobs that were cancelled at GitHub.
        within: Simulated seconds in which all must come to rest.
    """
    left = world.settle(within)
    return [*left, *wrong_runs(world, cancelled=cancelled), *broken_functions(world)]


def wrong_runs(world: World, *, cancelled: Collection[Job] = ()) -> list[str]:
    """Say which jobs did not run exactly once, or were not re-run as designed.

    Designed is: a job runs once and succeeds. Where its instance went in mid-job it failed at
    GitHub, and is run again, as a further attempt and once; on an instance that EC2 cannot take.
    """
    attempts: defaultdict[tuple[int, str], list[Job]] = defaultdict(list)
    for job in world.actions.jobs.values():
        attempts[job.run.id, job.name].append(job)
    found: list[str] = []
    for jobs in attempts.values():
        story = ", ".join(f"{j.id} {j.conclusion} after {j.executions} starts" for j in jobs)
        is_cancelled = any(job in cancelled for job in jobs)
        if is_cancelled and not jobs[0].is_broken_off:
            if [job.conclusion for job in jobs] not in (["cancelled"], ["success"]):
                found.append(f"not as designed: {story}")
            continue
        has_run_once = all(job.executions == 1 for job in jobs)
        is_tried_again = len(jobs) == 1 + jobs[0].is_broken_off or _is_unheard_of(world, jobs[0])
        is_served = jobs[-1].conclusion == "success" or _is_bad_luck(world, jobs[-1])
        is_served = is_served or _is_unheard_of(world, jobs[0])
        if not (has_run_once and is_tried_again and is_served):
            found.append(f"not as designed: {story}")
    return found


def _is_bad_luck(world: World, job: Job) -> bool:
    """Tell whether a second attempt broke off by something that no retry can exclude.

    Its agent died, or GitHub gave it the runner of another job, whose instance was spot.
    """
    if job.attempt == 1 or not job.is_broken_off:
        return False
    is_own = job.runner_name == world.record(job).get("runner_name")
    instance = next(i for i in world.ec2.history if job.runner_name == f"runsfleet-{i.id}")
    return not is_own or instance.capacity != "spot"


def _is_unheard_of(world: World, job: Job) -> bool:
    """Tell whether a job broke off before the fleet had heard of it; nobody re-runs it then.

    Its announcement was lost, GitHub gave it the runner of another job of the same labels, and that
    instance went: three rare things at once (``docs/reliability.md``, what is not covered).
    """
    announced = [d for d in world.actions.deliveries if d.guid == f"{job.id}-queued"]
    is_late = not announced or announced[0].status_code >= 300
    return job.is_broken_off and is_late and job.runner_name != world.record(job).get("runner_name")


def broken_functions(world: World) -> list[str]:
    """Say which functions failed as a whole; none should, however the cloud behaves."""
    counts = Counter(f"{name} failed: {error!r}" for name, error in world.functions.errors)
    return [f"{text} ({count} times)" for text, count in counts.items()]
