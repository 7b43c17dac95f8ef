"""The whole use case: fakes for the cloud, real processes for the runner."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from runsfleet_runtime.agent.agent import Agent
from runsfleet_runtime.agent.clock import SignalClock
from runsfleet_runtime.agent.departure import POWER_OFF_TRIES, TERMINATE_TRIES, Departure
from runsfleet_runtime.agent.errors import AgentError
from runsfleet_runtime.agent.linux import Linux
from runsfleet_runtime.agent.log_shipper import LogShipper, ShippingHandler
from runsfleet_runtime.agent.log_spool import Spool
from runsfleet_runtime.agent.masking import Masker
from runsfleet_runtime.agent.notices import NoticeWatch, SpotNotice
from runsfleet_runtime.agent.package import BakedRunner, RunnerPackages
from runsfleet_runtime.agent.vitals import Vitals
from runsfleet_runtime.contract.messages import ReportStatus, RunnerReport
from runsfleet_runtime.telemetry.log import configure
from runsfleet_runtime.telemetry.traces import OFF, TraceContext, Tracer
from tests.unit.agent.fakes import (
    FILENAME,
    INSTANCE_ID,
    JIT,
    RUNNERS,
    FakeCache,
    FakeConfigurations,
    FakeDownloads,
    FakeInstance,
    FakeInstances,
    FakeKept,
    FakeLogService,
    FakeMachine,
    FakeNotices,
    FakeReports,
    archive,
    runner_config,
    runner_script,
)
from tests.unit.telemetry.collector import serve

if TYPE_CHECKING:
    from collections.abc import Callable


class QuickClock(SignalClock):
    """A real clock whose last pauses take no time."""

    @override
    def rest(self, seconds: float) -> None:
        return


class RecordingLinux(Linux):
    """Linux, without its switch."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(os.environ)
        self.failures = failures
        self.power_offs = 0

    @override
    def power_off(self) -> None:
        self.power_offs += 1
        if self.failures:
            self.failures -= 1
            raise OSError("shutdown refused")


class World:
    """An agent with everything around it."""

    def __init__(self, directory: Path, script: str = RUNNERS["job ok"], **changes: object) -> None:
        package = archive({"run.sh": script, "config.sh": runner_script("echo configured $*")})
        self.directory = directory
        self.clock = QuickClock()
        self.instance = FakeInstance()
        self.cache = FakeCache()
        self.reports = FakeReports()
        self.instances = FakeInstances()
        self.platform = RecordingLinux()
        self.config_timeout = 5.0
        config = runner_config(
            **{
                "package_url": "https://github.example/runner.tar.gz",
                "package_filename": FILENAME,
                "package_sha256": hashlib.sha256(package).hexdigest(),
                **changes,
            }
        )
        self.configurations = FakeConfigurations(config.to_json())
        self.downloads = FakeDownloads(package)
        self.kept = FakeKept()
        self.notices = FakeNotices()
        self.machine = FakeMachine()
        self.log_service = FakeLogService()
        self.bounds: dict[str, float] = {}
        self.standby = False
        self.renewal_timeout = 0.2
        self.tracer = OFF

    def run(self) -> ReportStatus:
        mask = Masker()
        spool = Spool(self.directory.parent / "spool")
        logs = LogShipper(self.log_service, spool=spool, mask=mask, draw=lambda: 0.0)
        logger = logging.getLogger("runsfleet")
        handler = ShippingHandler(logs)
        logger.addHandler(handler)
        level, logger.level = logger.level, logging.INFO
        try:
            return self.agent(mask, logs).run()
        finally:
            logger.removeHandler(handler)
            logger.level = level

    def agent(self, mask: Masker, logs: LogShipper) -> Agent:
        return Agent(
            instance=self.instance,
            notices=NoticeWatch(self.notices, self.clock, interval=0.02),
            configurations=self.configurations,
            packages=RunnerPackages(
                platform="linux-x64",
                baked=BakedRunner(directory=Path("/nowhere"), marker=Path("/nowhere.json")),
                cache=self.cache,
                downloads=self.downloads,
                clock=self.clock,
                draw=lambda: 0.0,
                free_bytes=lambda _: 10**12,
            ),
            departure=Departure(
                reports=self.reports,
                kept=self.kept,
                logs=logs,
                instances=self.instances,
                platform=self.platform,
                clock=self.clock,
                draw=lambda: 0.0,
                mask=mask,
                tracer=self.tracer,
                **self.bounds,
            ),
            logs=logs,
            mask=mask,
            platform=self.platform,
            clock=self.clock,
            draw=lambda: 0.0,
            environ=os.environ,
            work_directory=self.directory,
            config_timeout=self.config_timeout,
            runner_user="root",
            standby=self.standby,
            machine=self.machine,
            renewal_timeout=self.renewal_timeout,
            tracer=self.tracer,
        )

    @property
    def told(self) -> list[ReportStatus]:
        return [report.status for report in self.reports.sent]

    def when(self, condition: Callable[[], bool]) -> threading.Thread:
        """Ask the agent to stop once a condition holds."""

        def watch() -> None:
            end = time.monotonic() + 10
            while not condition() and time.monotonic() < end:
                time.sleep(0.02)
            self.clock.request_stop("SIGTERM")

        thread = threading.Thread(target=watch)
        thread.start()
        return thread

    @property
    def last(self) -> RunnerReport:
        return self.reports.sent[-1]


def test_a_job_is_run_reported_and_the_instance_ended(tmp_path: Path) -> None:
    """The plain way: two reports, a kept package, no files left, one termination."""
    world = World(tmp_path)
    assert world.run() is ReportStatus.SUCCESS
    started, ended = world.reports.sent
    assert started.status is ReportStatus.STARTED
    assert started.ran_run_id == ended.ran_run_id == 77
    assert started.started_at == ended.started_at
    assert (ended.job_id, ended.dispatch, ended.exit_code) == (5_000_000_001, 2, 0)
    assert ended.ran_job
    assert ended.duration_seconds is not None
    assert ended.completed_at is not None
    assert ended.completed_at.endswith("Z")
    assert ended.error == ""
    assert [t.partition("=")[0] for t in ended.timings] == [
        "configuration",
        "package",
        "registration",
    ]
    assert len(world.cache.objects) == 1
    assert list(tmp_path.iterdir()) == []
    assert world.instances.terminated == [INSTANCE_ID]
    assert world.platform.power_offs == 0


@pytest.mark.parametrize(
    ("runner", "changes", "expected"),
    [
        ("no job", {}, ReportStatus.UNUSED),
        ("waits for ever", {"idle_timeout_seconds": 1}, ReportStatus.UNUSED),
        ("crashes in its job", {}, ReportStatus.FAILURE),
        ("hangs in its job", {"max_runtime_seconds": 1}, ReportStatus.TIMEOUT),
        ("never listens", {}, ReportStatus.BOOTSTRAP_FAILED),
    ],
)
def test_every_ending_of_a_runner_is_reported_and_ends_the_instance(
    tmp_path: Path, runner: str, changes: dict[str, object], expected: ReportStatus
) -> None:
    """Whatever the runner does, its ending is reported last and the instance is terminated."""
    world = World(tmp_path, RUNNERS[runner], **changes)
    assert world.run() is expected
    assert world.last.status is expected
    assert world.instances.terminated == [INSTANCE_ID]
    assert list(tmp_path.iterdir()) == []


def test_a_runner_that_never_listened_tells_why(tmp_path: Path) -> None:
    """The end of its output is the report's error."""
    world = World(tmp_path, RUNNERS["never listens"])
    world.run()
    assert "bad credentials" in world.last.error


def test_a_registration_token_registers_by_config_sh(tmp_path: Path) -> None:
    """With a token config.sh runs before run.sh, which does not see the token."""
    script = runner_script('test -z "$ACTIONS_RUNNER_INPUT_TOKEN" || exit 1', RUNNERS["job ok"])
    world = World(tmp_path, script, jit_config="", registration_token="ABCTOKEN")
    assert world.run() is ReportStatus.SUCCESS


def broken_configuration(world: World) -> None:
    """Another instance's configuration."""
    world.configurations.answers = [runner_config(instance_id="i-0fffffffffffffff0").to_json()]


def no_configuration(world: World) -> None:
    """None at all."""
    world.configurations.answers = [None]
    world.config_timeout = 0.6


def broken_store(world: World) -> None:
    """A store that fails."""
    world.configurations.answers = [RuntimeError("no credentials")]
    world.config_timeout = 0.6


def broken_package(world: World) -> None:
    """A package of other bytes."""
    world.downloads.answers = [b"something else"]
    world.clock.pause = lambda seconds: None  # type: ignore[method-assign]


def broken_run_sh(world: World) -> None:
    """A runner that cannot be started."""
    package = archive({"run.sh": "#!/no/such/interpreter\n"})
    world.downloads.answers = [package]
    config = json.loads(str(world.configurations.answers[0]))
    config["package_sha256"] = hashlib.sha256(package).hexdigest()
    world.configurations.answers = [json.dumps(config)]


def broken_disk(world: World) -> None:
    """A disk that takes no files."""
    world.directory = Path("/proc/nowhere")


@pytest.mark.parametrize(
    "damage",
    [
        broken_configuration,
        no_configuration,
        broken_store,
        broken_package,
        broken_run_sh,
        broken_disk,
    ],
)
def test_whatever_fails_at_boot_the_instance_ends(
    tmp_path: Path, damage: Callable[[World], None]
) -> None:
    """Each failure before the runner runs is reported with its reason and ends the instance."""
    world = World(tmp_path)
    damage(world)
    assert world.run() is ReportStatus.BOOTSTRAP_FAILED
    assert world.last.status is ReportStatus.BOOTSTRAP_FAILED
    assert world.last.error
    assert not world.last.ran_job
    assert world.instances.terminated == [INSTANCE_ID]
    assert list(tmp_path.iterdir()) == []


def test_an_instance_that_does_not_know_itself_shuts_down(tmp_path: Path) -> None:
    """Without an id neither report nor termination is possible, so the system is shut down."""
    world = World(tmp_path)
    world.instance.failure = AgentError("no metadata")
    assert world.run() is ReportStatus.BOOTSTRAP_FAILED
    assert world.reports.sent == []
    assert world.instances.attempts == 0
    assert world.platform.power_offs == 1


def test_a_queue_that_fails_for_a_while_gets_the_report(tmp_path: Path) -> None:
    """Reports are sent again."""
    world = World(tmp_path, RUNNERS["no job"])
    world.reports.failures = 3
    world.run()
    assert world.told == [ReportStatus.RENEWAL, ReportStatus.UNUSED]


def test_a_lost_report_does_not_keep_the_instance(tmp_path: Path) -> None:
    """A queue that never answers costs the report, not the end of the instance."""
    world = World(tmp_path)
    world.reports.failures = 1000
    assert world.run() is ReportStatus.SUCCESS
    assert world.instances.terminated == [INSTANCE_ID]


def test_termination_is_tried_again(tmp_path: Path) -> None:
    """EC2's failures are survived."""
    world = World(tmp_path)
    world.instances.failures = TERMINATE_TRIES - 1
    world.run()
    assert world.instances.terminated == [INSTANCE_ID]
    assert world.platform.power_offs == 0


def test_an_instance_that_cannot_be_terminated_shuts_down(tmp_path: Path) -> None:
    """When EC2 never accepts, the system is shut down, again if need be."""
    world = World(tmp_path)
    world.instances.failures = 1000
    world.platform.failures = POWER_OFF_TRIES - 1
    world.run()
    assert world.instances.attempts == TERMINATE_TRIES
    assert world.platform.power_offs == POWER_OFF_TRIES


def test_an_instance_that_cannot_be_ended_at_all_says_so(tmp_path: Path) -> None:
    """With both ways closed the failure leaves the agent, for whoever started it."""
    world = World(tmp_path)
    world.instances.failures = 1000
    world.platform.failures = 1000
    with pytest.raises(OSError, match="shutdown refused"):
        world.run()


def test_a_stop_before_the_runner_is_an_interruption(tmp_path: Path) -> None:
    """SIGTERM while waiting for the configuration is no bootstrap failure."""
    world = World(tmp_path)
    world.configurations.answers = [None]
    world.config_timeout = 60
    stop = world.when(lambda: world.configurations.reads > 0)
    assert world.run() is ReportStatus.INTERRUPTED
    stop.join()
    assert world.last.job_id == 0
    assert "SIGTERM" in world.last.error
    assert world.instances.terminated == [INSTANCE_ID]


def test_a_stop_during_the_job_is_an_interruption(tmp_path: Path) -> None:
    """SIGTERM during the job cancels it; the report tells the job and that it was interrupted."""
    world = World(tmp_path, RUNNERS["cancels its job when asked"])
    stop = world.when(lambda: bool(world.reports.sent))
    assert world.run() is ReportStatus.INTERRUPTED
    stop.join()
    assert [r.status for r in world.reports.sent] == [
        ReportStatus.STARTED,
        ReportStatus.INTERRUPTED,
    ]
    assert world.last.ran_run_id == 77
    assert world.instances.terminated == [INSTANCE_ID]


def test_neither_logs_nor_reports_hold_the_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A runner that prints its registration has it concealed in the log and in the report."""
    configure(service="agent")
    world = World(tmp_path, runner_script('echo "bad token $ACTIONS_RUNNER_INPUT_JITCONFIG"'))
    world.run()
    output = capsys.readouterr().out
    assert JIT not in output
    assert JIT not in world.last.to_json()
    assert "bad token ***" in world.last.error
    for line in output.splitlines():
        assert {"level", "time", "message", "service"} <= json.loads(line).keys()


def test_the_files_of_an_earlier_boot_are_removed(tmp_path: Path) -> None:
    """A second boot of the same instance begins with an empty workspace."""
    (tmp_path / INSTANCE_ID / "state").mkdir(parents=True)
    (tmp_path / INSTANCE_ID / "state" / "started").write_text("TIME=1\n")
    world = World(tmp_path, RUNNERS["no job"])
    assert world.run() is ReportStatus.UNUSED


def test_the_log_is_shipped_to_the_jobs_stream(tmp_path: Path) -> None:
    """From the first line to the last before the termination, the runner's among them."""
    world = World(tmp_path / "work")
    world.run()
    lines = world.log_service.lines(f"{INSTANCE_ID}/5000000001")
    assert lines[0] == "agent started"
    assert any("Listening for Jobs" in line for line in lines)
    assert {"job started", "ending", "reported"} <= set(lines)
    assert world.log_service.lines() == lines


def test_an_instance_without_a_job_has_its_log_too(tmp_path: Path) -> None:
    """What went wrong before a configuration came is in the stream of the boot."""
    world = World(tmp_path / "work")
    no_configuration(world)
    world.run()
    lines = world.log_service.lines(f"{INSTANCE_ID}/boot")
    assert any(line.startswith("bootstrap failed\nTraceback") for line in lines)


def test_diagnostics_are_shipped_unless_all_went_well(tmp_path: Path) -> None:
    """The runner's own diagnostics, without secrets, for every ending but success."""
    diagnose = "mkdir _diag; echo broken $ACTIONS_RUNNER_INPUT_JITCONFIG > _diag/Runner_1.log"
    stream = f"{INSTANCE_ID}/5000000001/diag"
    world = World(tmp_path / "a" / "work", runner_script(diagnose))
    assert world.run() is ReportStatus.BOOTSTRAP_FAILED
    assert world.log_service.lines(stream) == ["--- Runner_1.log", "broken ***"]
    world = World(tmp_path / "b" / "work", runner_script(diagnose, RUNNERS["job ok"]))
    assert world.run() is ReportStatus.SUCCESS
    assert world.log_service.lines(stream) == []


@pytest.mark.parametrize("fault", ["fails", "hangs"])
def test_a_log_service_in_trouble_costs_its_bound_only(tmp_path: Path, fault: str) -> None:
    """A job succeeds and its instance ends, whatever the log service does."""
    world = World(tmp_path / "work")
    world.bounds["flush_seconds"] = 0.5
    if fault == "fails":
        world.log_service.failure = OSError("throttled")
    else:
        world.log_service.hold.clear()
    since = time.monotonic()
    assert world.run() is ReportStatus.SUCCESS
    assert time.monotonic() - since < 10
    assert world.instances.terminated == [INSTANCE_ID]
    world.log_service.hold.set()


def test_a_queue_that_hangs_has_its_bound(tmp_path: Path) -> None:
    """The last message gets its seconds; then the report is kept and the instance ends."""
    world = World(tmp_path / "work", RUNNERS["no job"])
    world.bounds["report_seconds"] = 0.3
    world.reports.hold.clear()
    since = time.monotonic()
    assert world.run() is ReportStatus.UNUSED
    assert time.monotonic() - since < 10
    assert [r.status for r in world.kept.kept] == [ReportStatus.UNUSED]
    assert world.instances.terminated == [INSTANCE_ID]
    world.reports.hold.set()


def test_a_report_that_is_not_taken_is_kept(tmp_path: Path) -> None:
    """The ending, and nothing else, is kept for the sweep and is in the log as a whole."""
    world = World(tmp_path / "work")
    world.reports.failures = 1000
    world.run()
    (kept,) = world.kept.kept
    assert kept.status is ReportStatus.SUCCESS
    assert kept.duration_seconds is not None
    assert "report not delivered" in world.log_service.lines()


def test_a_report_that_was_taken_is_not_kept(tmp_path: Path) -> None:
    """A sweep finds only what nobody knows of."""
    world = World(tmp_path / "work")
    world.run()
    assert world.kept.kept == []


def test_an_ec2_that_hangs_has_its_bound(tmp_path: Path) -> None:
    """When the termination does not come back, the system is shut down."""
    world = World(tmp_path / "work", RUNNERS["no job"])
    world.bounds["terminate_seconds"] = 0.3
    world.instances.hold.clear()
    world.run()
    assert world.platform.power_offs == 1
    world.instances.hold.set()


def test_a_spot_notice_before_the_job_is_an_interruption(tmp_path: Path) -> None:
    """A notice while the agent waits for its configuration ends it at once, with the reason."""
    world = World(tmp_path / "work")
    world.configurations.answers = [None]
    world.config_timeout = 60
    world.notices.spot = SpotNotice("terminate", None)
    world.notices.rebalance = "2026-11-20T10:59:00Z"
    assert world.run() is ReportStatus.INTERRUPTED
    assert "a spot interruption (terminate)" in world.last.error
    assert "a rebalance was recommended at 2026-11-20T10:59:00Z" in world.last.error
    assert world.instances.terminated == [INSTANCE_ID]


def test_a_spot_notice_during_the_job_is_an_interruption(tmp_path: Path) -> None:
    """The job is cancelled, and the report tells that it ran and what took the instance."""
    world = World(tmp_path / "work", RUNNERS["cancels its job when asked"])

    def announce() -> bool:
        if world.reports.sent:
            world.notices.spot = SpotNotice("terminate", None)
        return world.clock.stop_requested is not None

    watching = world.when(announce)
    assert world.run() is ReportStatus.INTERRUPTED
    watching.join()
    assert world.last.ran_run_id == 77
    assert "a spot interruption (terminate)" in world.last.error


def test_a_full_disk_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    """The report of a job that was ended for the disk's sake tells so."""
    world = World(tmp_path / "work", RUNNERS["cancels its job when asked"])
    world.machine.answers = [Vitals()]
    interval = "runsfleet_runtime.agent.process.INTERVAL_SECONDS"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interval, 0.0)
        filling = threading.Thread(target=fill_disk, args=(world,))
        filling.start()
        assert world.run() is ReportStatus.FAILURE
        filling.join()
    assert world.last.error.startswith("1 bytes of disk were free")
    assert world.last.ran_job


def fill_disk(world: World) -> None:
    """Fill the disk once the job has started."""
    end = time.monotonic() + 10
    while not world.reports.sent and time.monotonic() < end:
        time.sleep(0.02)
    world.machine.answers = [Vitals(free_disk=1)]


def test_a_standby_that_is_stopped_stays(tmp_path: Path) -> None:
    """A spare that EC2 stops has not ended: no report, no termination, so it can start again."""
    world = World(tmp_path / "work")
    world.standby = True
    world.configurations.answers = [None]
    world.config_timeout = 60
    stop = world.when(lambda: world.configurations.reads > 0)
    assert world.run() is ReportStatus.INTERRUPTED
    stop.join()
    assert world.reports.sent == []
    assert world.instances.attempts == world.platform.power_offs == 0


def test_a_standby_that_waited_too_long_ends(tmp_path: Path) -> None:
    """Its deadline ends a spare that nobody wanted."""
    world = World(tmp_path / "work")
    world.standby = True
    no_configuration(world)
    assert world.run() is ReportStatus.BOOTSTRAP_FAILED
    assert world.instances.terminated == [INSTANCE_ID]


def test_the_started_report_tells_how_long_the_start_took(tmp_path: Path) -> None:
    """The registration's time is known when the start is reported."""
    world = World(tmp_path / "work")
    world.run()
    assert [t.partition("=")[0] for t in world.reports.sent[0].timings] == [
        "configuration",
        "package",
        "registration",
    ]


OTHER_JIT = "eyJvdGhlciI6ICJ" + "Zm9vYmFy" * 512 + "In0="
ONLY_THE_OTHER = runner_script(
    f'if [ "$ACTIONS_RUNNER_INPUT_JITCONFIG" != {OTHER_JIT} ]; then',
    'touch .runner; echo "the registration has expired"; exit 0; fi',
    "test ! -e .runner || exit 1",
    RUNNERS["job ok"],
)


def renewing(world: World, **changes: str) -> None:
    """Write another registration as soon as one is asked for, as the control plane does."""
    first = str(world.configurations.answers[0])
    read = world.configurations.read

    def renewed(instance_id: str, *, now: float) -> str | None:
        if ReportStatus.RENEWAL in world.told:
            fields = {**json.loads(first), "package_filename": "", **changes}
            world.configurations.answers = [json.dumps(fields)]
        return read(instance_id, now=now)

    world.configurations.read = renewed  # type: ignore[method-assign]
    world.renewal_timeout = 10


def test_an_expired_registration_is_renewed_once(tmp_path: Path) -> None:
    """A runner that left without a job gets another registration, and runs its job with it."""
    world = World(tmp_path / "work", ONLY_THE_OTHER)
    renewing(world, jit_config=OTHER_JIT)
    assert world.run() is ReportStatus.SUCCESS
    assert world.told == [ReportStatus.RENEWAL, ReportStatus.STARTED, ReportStatus.SUCCESS]
    assert "has expired" in world.reports.sent[0].error
    assert OTHER_JIT not in str(world.log_service.lines())
    assert world.instances.terminated == [INSTANCE_ID]


def test_a_renewed_registration_that_fails_too_is_the_end(tmp_path: Path) -> None:
    """There is one renewal; then the end is clear."""
    world = World(tmp_path / "work", RUNNERS["never listens"])
    renewing(world, jit_config=OTHER_JIT)
    assert world.run() is ReportStatus.BOOTSTRAP_FAILED
    assert world.told == [ReportStatus.RENEWAL, ReportStatus.BOOTSTRAP_FAILED]
    assert "bad credentials" in world.last.error


def test_no_renewal_is_the_end(tmp_path: Path) -> None:
    """When no other registration comes in time, the report tells why the first was refused."""
    world = World(tmp_path / "work", ONLY_THE_OTHER)
    assert world.run() is ReportStatus.BOOTSTRAP_FAILED
    assert "has expired" in world.last.error


def test_a_refused_token_is_renewed_too(tmp_path: Path) -> None:
    """When config.sh fails, another token is asked for and used."""
    world = World(tmp_path / "work", jit_config="", registration_token="EXPIREDTOKEN")
    package = archive(
        {
            "run.sh": RUNNERS["job ok"],
            "config.sh": runner_script('test "$ACTIONS_RUNNER_INPUT_TOKEN" = FRESHTOKEN'),
        }
    )
    world.downloads.answers = [package]
    config = json.loads(str(world.configurations.answers[0]))
    config["package_sha256"] = hashlib.sha256(package).hexdigest()
    world.configurations.answers = [json.dumps(config)]
    renewing(world, registration_token="FRESHTOKEN")
    assert world.run() is ReportStatus.SUCCESS
    assert "config.sh ended with 1" in world.reports.sent[0].error


def test_a_runner_that_github_deprecated_is_not_renewed(tmp_path: Path) -> None:
    """Exit code 7 says that the version is refused, which another registration does not change."""
    tells = 'test -n "$ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE" && exit 7'
    world = World(tmp_path / "work", runner_script("echo version is deprecated", tells))
    assert world.run() is ReportStatus.BOOTSTRAP_FAILED
    assert world.told == [ReportStatus.BOOTSTRAP_FAILED]
    assert "version is deprecated" in world.last.error
    assert world.last.exit_code == 7


def test_a_renewal_that_nobody_hears_is_the_end(tmp_path: Path) -> None:
    """When the queue does not take the request, there is nothing to wait for."""
    world = World(tmp_path / "work", RUNNERS["no job"])
    world.renewal_timeout = 600
    world.reports.failures = 4
    assert world.run() is ReportStatus.UNUSED
    assert world.told == [ReportStatus.UNUSED]


def test_a_stop_ends_the_wait_for_a_renewal(tmp_path: Path) -> None:
    """SIGTERM while another registration is awaited is an interruption."""
    world = World(tmp_path / "work", RUNNERS["no job"])
    world.renewal_timeout = 600
    stop = world.when(lambda: bool(world.reports.sent))
    assert world.run() is ReportStatus.INTERRUPTED
    stop.join()
    assert world.instances.terminated == [INSTANCE_ID]


def test_a_life_is_told_as_spans_of_its_jobs_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each step and the job stand below the agent's span, which belongs to the dispatch."""
    configure(service="agent")
    dispatch = TraceContext("a" * 32, "b" * 16)
    world = World(tmp_path, traceparent=dispatch.traceparent)
    with serve() as endpoint:
        world.tracer = Tracer("agent", endpoint=endpoint.url)
        assert world.run() is ReportStatus.SUCCESS
        spans = {span.name: span for span in endpoint.spans()}
    assert set(spans) == {"agent", "configuration", "package", "registration", "job"}
    agent = spans.pop("agent")
    assert (agent.trace_id.hex(), agent.parent_span_id.hex()) == ("a" * 32, "b" * 16)
    assert {span.parent_span_id for span in spans.values()} == {agent.span_id}
    for span in spans.values():
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= agent.end_time_unix_nano
    assert spans["package"].end_time_unix_nano <= spans["job"].start_time_unix_nano
    told = {report.traceparent for report in world.reports.sent}
    assert told == {TraceContext("a" * 32, agent.span_id.hex()).traceparent}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    of_trace = {line["message"] for line in lines if line.get("trace_id") == "a" * 32}
    assert {"configured", "job started", "ending", "terminating"} <= of_trace


def test_an_instance_without_a_configuration_has_a_trace_of_its_own(tmp_path: Path) -> None:
    """What became of an instance that nobody configured can be seen too."""
    world = World(tmp_path)
    world.config_timeout = 0.1
    world.configurations = FakeConfigurations(None)
    with serve() as endpoint:
        world.tracer = Tracer("agent", endpoint=endpoint.url)
        assert world.run() is ReportStatus.BOOTSTRAP_FAILED
        (agent,) = endpoint.spans()
    assert agent.parent_span_id == b""
    assert agent.status.message == world.last.error != ""


@pytest.mark.parametrize("trouble", ["refuses", "hangs"])
def test_a_collector_in_trouble_holds_up_no_end(tmp_path: Path, trouble: str) -> None:
    """The job's ending and the instance's are as they would be without traces."""
    world = World(tmp_path)
    with serve() as endpoint:
        endpoint.status = 503
        if trouble == "hangs":
            endpoint.hold.clear()
        world.tracer = Tracer("agent", endpoint=endpoint.url)
        assert world.run() is ReportStatus.SUCCESS
        assert world.instances.terminated == [INSTANCE_ID]
    assert any("spans not sent" in line for line in world.log_service.lines())
