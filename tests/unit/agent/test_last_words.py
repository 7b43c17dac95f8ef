"""What is said for an agent that has died."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runsfleet_runtime.agent.hooks import COMPLETED, STARTED, STATE_DIRECTORY
from runsfleet_runtime.agent.last_words import speak
from runsfleet_runtime.agent.log_shipper import LogShipper
from runsfleet_runtime.agent.log_spool import Spool
from runsfleet_runtime.agent.masking import Masker
from runsfleet_runtime.agent.windows import POWER_OFF
from runsfleet_runtime.contract.messages import ReportStatus
from tests.unit.agent.fakes import INSTANCE_ID, FakeConfigurations
from tests.unit.agent.test_agent import World
from tests.unit.agent.test_windows import Machine


def words_of(world: World, tmp_path: Path) -> ReportStatus | None:
    """Speak for the agent of a world, which was killed."""
    mask = Masker()
    logs = LogShipper(
        world.log_service, spool=Spool(tmp_path / "spool"), mask=mask, draw=lambda: 0.0
    )
    return speak(world.agent(mask, logs), 137)


@pytest.mark.parametrize(
    ("hooks", "status", "error"),
    [
        ((), ReportStatus.BOOTSTRAP_FAILED, "the agent died with status 137 before a job started"),
        ((STARTED,), ReportStatus.FAILURE, "the agent died with status 137 in mid-job"),
        ((STARTED, COMPLETED), ReportStatus.SUCCESS, ""),
    ],
)
def test_record_gets_the_ending_that_the_hooks_saw(
    tmp_path: Path, hooks: tuple[str, ...], status: ReportStatus, error: str
) -> None:
    """The job's record is closed and the instance terminated, though the agent is dead."""
    world = World(tmp_path / "work")
    state = tmp_path / "work" / INSTANCE_ID / STATE_DIRECTORY
    state.mkdir(parents=True)
    for hook in hooks:
        (state / hook).write_text("GITHUB_RUN_ID=7\n")
    assert words_of(world, tmp_path) is status
    assert world.told == [status]
    assert (world.last.error, world.last.ran_job) == (error, bool(hooks))
    assert world.last.job_id == 5_000_000_001
    assert world.instances.terminated == [INSTANCE_ID]


def test_windows_is_spoken_for_too(tmp_path: Path) -> None:
    """What its hooks wrote is read, and where EC2 does not end the instance, Windows does."""
    world, machine = World(tmp_path / "work"), Machine()
    world.instances.failures = 99
    state = tmp_path / "work" / INSTANCE_ID / STATE_DIRECTORY
    state.mkdir(parents=True)
    (state / STARTED).write_bytes(b"TIME=1.5\r\nGITHUB_RUN_ID=7\r\n")
    mask = Masker()
    logs = LogShipper(
        world.log_service, spool=Spool(tmp_path / "spool"), mask=mask, draw=lambda: 0.0
    )
    agent, windows = world.agent(mask, logs), machine.windows()
    agent = replace(agent, platform=windows, departure=replace(agent.departure, platform=windows))
    assert speak(agent, -1073741819) is ReportStatus.FAILURE
    assert world.last.error == "the agent died with status -1073741819 in mid-job"
    assert machine.commands == [POWER_OFF]


def test_without_a_configuration_there_is_nothing_to_say(tmp_path: Path) -> None:
    """Whoever has reported, or never learned of a job, is only shut down, by the script."""
    world = World(tmp_path / "work")
    world.configurations = FakeConfigurations(None)
    assert words_of(world, tmp_path) is None
    assert world.told == []
    assert world.instances.terminated == []
