"""Real processes: a ``run.sh`` of every behaviour."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from runsfleet_runtime.agent.clock import SignalClock
from runsfleet_runtime.agent.errors import AgentError, StopRequestedError
from runsfleet_runtime.agent.lifecycle import Limits, StopReason, ending
from runsfleet_runtime.agent.linux import Linux
from runsfleet_runtime.agent.process import Launch, RunnerEnd, RunnerRoom
from runsfleet_runtime.agent.vitals import Vitals
from runsfleet_runtime.contract.messages import ReportStatus
from runsfleet_runtime.telemetry.log import configure
from tests.unit.agent.fakes import JIT, LISTEN, RUNNERS, START, FakeMachine, runner_script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runsfleet_runtime.agent.hooks import JobMoment

LONG = Limits(max_runtime=60, idle_timeout=60, linger=60)


class Place:
    """A runner's root with its hooks, and what was told while it ran."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = SignalClock()
        self.platform = Linux(os.environ)
        self.machine = FakeMachine()
        self.started: list[JobMoment] = []
        for name in ("runner", "state", "hooks"):
            (directory / name).mkdir()
            (directory / name).chmod(0o777)
        self.scripts = self.platform.write_hooks(directory / "hooks", directory / "state", {})

    def launch(self, script: str, user: str = "root", name: str = "run.sh") -> Launch:
        (self.directory / "runner" / name).write_text(script)
        (self.directory / "runner" / name).chmod(0o755)
        account = self.platform.account(user)
        environment = self.platform.environment(os.environ, account)
        environment.update({k: str(v) for k, v in self.scripts.items()})
        environment["ACTIONS_RUNNER_INPUT_JITCONFIG"] = JIT
        return Launch(
            root=self.directory / "runner",
            state=self.directory / "state",
            environment=environment,
            account=account,
            secrets=(JIT,),
        )

    def run(self, launch: Launch, limits: Limits = LONG, *, grace: float = 5) -> RunnerEnd:
        room = RunnerRoom(self.platform, self.clock, machine=self.machine, grace=grace)
        return room.run(launch, limits, on_started=self.started.append)

    def when(self, condition: Callable[[], bool], action: Callable[[], None]) -> threading.Thread:
        """Do something once a condition holds, beside the run."""

        def watch() -> None:
            end = time.monotonic() + 10
            while not condition() and time.monotonic() < end:
                time.sleep(0.02)
            action()

        thread = threading.Thread(target=watch)
        thread.start()
        return thread


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a place that every user may enter."""
    # not pytest's own directory, which another user (below) cannot enter
    directory = Path(tempfile.mkdtemp(prefix="runsfleet-test-"))
    directory.chmod(0o755)
    yield Place(directory)
    shutil.rmtree(directory)


def processes_holding(marker: str) -> list[int]:
    """Return the processes that have a text in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.parametrize(
    ("runner", "limits", "expected"),
    [
        ("job ok", LONG, ReportStatus.SUCCESS),
        ("job red", LONG, ReportStatus.SUCCESS),
        ("no job", LONG, ReportStatus.UNUSED),
        ("never listens", LONG, ReportStatus.BOOTSTRAP_FAILED),
        ("crashes in its job", LONG, ReportStatus.FAILURE),
        ("waits for ever", Limits(max_runtime=60, idle_timeout=0.4), ReportStatus.UNUSED),
        ("hangs in its job", Limits(max_runtime=0.4, idle_timeout=60), ReportStatus.TIMEOUT),
        (
            "cancels its job when asked",
            Limits(max_runtime=0.4, idle_timeout=60),
            ReportStatus.TIMEOUT,
        ),
        (
            "does not leave",
            Limits(max_runtime=60, idle_timeout=60, linger=0.4),
            ReportStatus.SUCCESS,
        ),
    ],
)
def test_every_way_of_a_runner_has_its_ending(
    place: Place, runner: str, limits: Limits, expected: ReportStatus
) -> None:
    """Whatever a real runner process does, it ends, is named, and leaves no process behind."""
    end = place.run(place.launch(RUNNERS[runner]), limits)
    assert ending(end.ended) is expected
    assert end.error == ""
    assert processes_holding(str(place.directory)) == []


def test_the_job_that_ran_is_known(place: Place) -> None:
    """The job is told from what the hooks saw, not from what the instance was launched for."""
    end = place.run(place.launch(RUNNERS["job ok"]))
    assert end.exit_code == 0
    assert end.listening_after is not None
    assert [m.job.run_id for m in place.started if m.job] == [77]
    assert end.started is not None
    assert end.completed is not None
    assert end.completed.job is not None
    assert end.completed.job.repository == "octo/other"
    assert end.started.at <= end.completed.at


def test_a_job_that_starts_in_the_last_moment_is_still_told(place: Place) -> None:
    """A runner that ends between two looks has its job reported all the same, once."""
    for _ in range(3):
        place.started.clear()
        for file in (place.directory / "state").iterdir():
            file.unlink()
        place.run(place.launch(runner_script(START)))
        assert len(place.started) == 1


def test_a_runner_that_ignores_requests_is_killed(place: Place) -> None:
    """After the grace a runner that ignores SIGINT is killed with all of its group."""
    since = time.monotonic()
    end = place.run(
        place.launch(RUNNERS["ignores requests"]),
        Limits(max_runtime=0.3, idle_timeout=60),
        grace=0.5,
    )
    assert ending(end.ended) is ReportStatus.TIMEOUT
    assert end.exit_code == -signal.SIGKILL
    assert time.monotonic() - since < 10
    assert processes_holding(str(place.directory)) == []


def test_a_nearly_full_disk_ends_the_job(place: Place) -> None:
    """Below 500 MB the job is ended as a failure that tells how much was left."""
    place.machine = FakeMachine(Vitals(free_disk=499_000_000))
    end = place.run(place.launch(RUNNERS["cancels its job when asked"]))
    assert end.ended.stopped is StopReason.DISK
    assert end.why.startswith("499000000 bytes of disk were free")
    assert processes_holding(str(place.directory)) == []


def test_low_memory_is_warned_of_once(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below 200 MB a warning is logged, one until it is better again, and nothing is ended."""
    monkeypatch.setattr("runsfleet_runtime.agent.process.INTERVAL_SECONDS", 0.0)
    configure(service="agent")
    low, fine = Vitals(available_memory=199_999_999), Vitals(available_memory=200_000_000)
    place.machine = FakeMachine(low, low, fine, low, low)
    end = place.run(place.launch(runner_script(LISTEN, "sleep 3")))
    assert ending(end.ended) is ReportStatus.UNUSED
    assert capsys.readouterr().out.count("memory is low") == 2


def test_the_machine_is_looked_at_every_half_minute(place: Place) -> None:
    """Looking is not part of the loop's every turn."""
    place.run(place.launch(runner_script(LISTEN, "sleep 1.5")))
    assert place.machine.looks == 1


def test_a_spot_notice_shortens_the_grace(place: Place) -> None:
    """A runner that ignores the request is killed early enough for the report."""
    request = place.when(
        lambda: bool(place.started),
        lambda: place.clock.request_stop("a spot interruption", within=26),
    )
    since = time.monotonic()
    end = place.run(place.launch(RUNNERS["ignores requests"]), grace=60)
    request.join()
    assert ending(end.ended) is ReportStatus.INTERRUPTED
    assert end.why == "stopped by a spot interruption"
    assert time.monotonic() - since < 15


def test_a_notice_during_the_stop_shortens_it(place: Place) -> None:
    """A spot notice that comes while SIGTERM's grace runs counts at once."""
    request = place.when(
        lambda: bool(place.started),
        lambda: place.clock.request_stop("SIGTERM"),
    )
    later = place.when(
        lambda: place.clock.stop_requested is not None,
        lambda: place.clock.request_stop("a spot interruption", within=5),
    )
    since = time.monotonic()
    end = place.run(place.launch(RUNNERS["ignores requests"]), grace=60)
    request.join()
    later.join()
    assert end.why == "stopped by SIGTERM"
    assert time.monotonic() - since < 15


def test_a_request_to_stop_interrupts_the_runner(place: Place) -> None:
    """SIGTERM to the agent lets the runner cancel its job, and that is an interruption."""
    request = place.when(lambda: bool(place.started), lambda: place.clock.request_stop("SIGTERM"))
    end = place.run(place.launch(RUNNERS["cancels its job when asked"]))
    request.join()
    assert ending(end.ended) is ReportStatus.INTERRUPTED
    assert end.exit_code == 0
    assert end.completed is not None


def test_a_system_that_goes_down_interrupts_whoever_ends_first(place: Place) -> None:
    """A runner that the same shutdown ended before the agent looked was interrupted, not failed."""

    class Late(SignalClock):
        """Told to stop, yet only after the runner has ended."""

        @property
        @override
        def stop_requested(self) -> str | None:
            return "SIGTERM" if processes_holding(str(place.directory)) == [] else None

    place.clock = Late()
    end = place.run(place.launch(RUNNERS["crashes in its job"]))
    assert ending(end.ended) is ReportStatus.INTERRUPTED


def test_what_a_runner_leaves_behind_is_ended(place: Place) -> None:
    """A process that a job left running in the background does not outlive the runner."""
    script = runner_script(LISTEN, START, "sleep 600 &", '"$ACTIONS_RUNNER_HOOK_JOB_COMPLETED"')
    end = place.run(place.launch(script))
    assert ending(end.ended) is ReportStatus.SUCCESS
    assert processes_holding(str(place.directory)) == []


def test_output_that_stays_open_does_not_hold_the_agent(place: Place) -> None:
    """A process that left the group and keeps the output open delays the end by seconds only."""
    pid_file = place.directory / "state" / "pid"
    script = runner_script(f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 60' &", "sleep 0.3")
    since = time.monotonic()
    try:
        place.run(place.launch(script))
        assert time.monotonic() - since < 8
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_the_secret_is_neither_in_argv_nor_in_output(place: Place) -> None:
    """No command line shows the registration, and output that shows it is concealed."""
    script = runner_script(
        LISTEN,
        'test -n "$ACTIONS_RUNNER_INPUT_JITCONFIG" && echo "it is $ACTIONS_RUNNER_INPUT_JITCONFIG"',
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' > cmdlines",
    )
    end = place.run(place.launch(script))
    assert "it is ***" in end.last_lines
    assert JIT not in " ".join(end.last_lines)
    assert JIT not in (place.directory / "runner" / "cmdlines").read_text(errors="replace")


def test_the_job_runs_as_an_unprivileged_user(place: Place) -> None:
    """Where the agent is root the runner is another user with its own home and groups."""
    end = place.run(place.launch(runner_script("id -un", 'echo "$HOME"'), user="nobody"))
    account = place.platform.account("nobody")
    expected = ("nobody", account.home) if account else end.last_lines
    assert end.last_lines == expected


def test_a_failing_registration_shows_its_output(place: Place) -> None:
    """What config.sh says is in the error when it fails, without the secret."""
    launch = place.launch(
        runner_script('echo "bad $ACTIONS_RUNNER_INPUT_TOKEN"', "exit 3"), name="config.sh"
    )
    launch = Launch(
        root=launch.root, state=launch.state, environment=launch.environment, secrets=("TOKEN1",)
    )
    room = RunnerRoom(place.platform, place.clock, machine=place.machine)
    with pytest.raises(AgentError, match=r"config.sh ended with 3: bad \*\*\*"):
        room.configure(launch, ("--unattended",), {"ACTIONS_RUNNER_INPUT_TOKEN": "TOKEN1"})


def test_a_request_to_stop_ends_a_registration(place: Place) -> None:
    """config.sh that hangs is left when the agent is told to stop."""
    launch = place.launch(runner_script("touch begun", "sleep 600"), name="config.sh")
    begun = place.directory / "runner" / "begun"
    request = place.when(begun.exists, lambda: place.clock.request_stop("SIGTERM"))
    room = RunnerRoom(place.platform, place.clock, machine=place.machine)
    with pytest.raises(StopRequestedError):
        room.configure(launch, (), {})
    request.join()
    assert processes_holding(str(place.directory)) == []
