"""``python -m runsfleet_runtime.agent.last_words STATUS``: speak for an agent that has died.

Lifecycle: the agent's process ended with STATUS (killed, out of memory, a fault of Python's) ->
the first script runs this, bounded -> the job's record gets its ending by what the hooks had
seen -> the instance is terminated, as the agent would have done.

Without a configuration there is nothing to say: either none came yet, or the report was taken
and the configuration deleted. A report that comes twice changes nothing.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.clock import SignalClock
from runsfleet_runtime.agent.composition import compose
from runsfleet_runtime.agent.configuration import accept
from runsfleet_runtime.agent.hooks import COMPLETED, STARTED, STATE_DIRECTORY, read_moment
from runsfleet_runtime.agent.story import Story
from runsfleet_runtime.contract.messages import ReportStatus
from runsfleet_runtime.telemetry.log import configure
from runsfleet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runsfleet_runtime.agent.agent import Agent


def last_status(*, started: bool, completed: bool) -> ReportStatus:
    """Name the ending of a job whose agent died, by what the job's hooks saw.

    Example:
        >>> last_status(started=True, completed=False)
        <ReportStatus.FAILURE: 'failure'>
    """
    if completed:
        return ReportStatus.SUCCESS
    return ReportStatus.FAILURE if started else ReportStatus.BOOTSTRAP_FAILED


def speak(agent: Agent, exit_status: int) -> ReportStatus | None:
    """Report for the dead agent and end the instance.

    Args:
        agent: What it consisted of.
        exit_status: How its process ended, as the shell tells it.

    Returns:
        What was reported; ``None`` when there was nothing to report.
    """
    story = Story(instance_id=agent.instance.instance_id())
    text = agent.configurations.read(story.instance_id, now=agent.clock.now().timestamp())
    if text is None:
        return None
    story.config = accept(text, story.instance_id)
    workspace = agent.work_directory / story.instance_id
    story.started = read_moment(workspace / STATE_DIRECTORY / STARTED)
    completed = read_moment(workspace / STATE_DIRECTORY / COMPLETED)
    status = last_status(started=story.started is not None, completed=completed is not None)
    when = "in mid-job" if status is ReportStatus.FAILURE else "before a job started"
    if status is not ReportStatus.SUCCESS:
        story.error = f"the agent died with status {exit_status} {when}"
    agent.departure.leave(story, status)
    return status


def main(environ: Mapping[str, str], exit_status: int) -> int:
    """Speak for the agent of this instance; 0 when that went well.

    Args:
        environ: Usually ``os.environ``.
        exit_status: How the agent's process ended.
    """
    configure(service="agent", version=__version__, fleet=environ.get("RUNSFLEET_FLEET", ""))
    speak(compose(environ, SignalClock()), exit_status)
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ, int(sys.argv[1])))
