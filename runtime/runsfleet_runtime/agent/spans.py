"""An instance's life as spans of its job's trace: what each step of it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runsfleet_runtime.agent.story import Story
    from runsfleet_runtime.contract.messages import RunnerReport
    from runsfleet_runtime.telemetry.traces import Tracer


def gather_spans(tracer: Tracer, story: Story, report: RunnerReport, *, now: float) -> None:
    """Make spans of a story that is over; ``agent``, and each step and the job below it.

    Args:
        tracer: Gathers them; that of the story's ``agent`` span.
        story: The story.
        report: What was reported of its end; the span tells no more, and no secret either.
        now: Epoch seconds.
    """
    about = {"instance_id": story.instance_id, "status": report.status.value}
    # an instance that got no configuration has a trace of its own
    above = story.traceparent or tracer.begin("agent", start=story.begun or now)
    for name, seconds in story.timings.items():
        end = story.steps.get(name, now)
        tracer.record(name, above, start=end - seconds, end=end)
    started = story.end.started if story.end else story.started
    if started is not None:
        completed = story.end.completed if story.end else None
        end = completed.at if completed else now
        tracer.record("job", above, start=started.at, end=end, run_id=report.ran_run_id)
    tracer.end(above, at=now, error=report.error, job_id=report.job_id, **about)
