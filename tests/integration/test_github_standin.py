"""The stand-in's own runner, as an instance would run it: downloaded, unpacked, one job, gone."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runsfleet_cli.local.github import BackgroundStandIn, Fault, Timing
from runsfleet_cli.local.github.world import Conclusion, Job, JobStatus
from runsfleet_cli.local.jobs.payload import read_payloads
from runsfleet_cli.local.jobs.plan import read_workflow, read_workflow_file
from runsfleet_cli.local.tls import create_tls_files
from tests.archives import unpack
from tests.unit.local.github_api import fetch, installation_token, until

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples" / "workflows"
PAYLOADS = (
    Path(__file__).parents[2] / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
)
# act comes with the development environment, as it comes with a machine image
TOOLS = str(Path(sys.executable).parent)
# a number of its own, so that only this run's processes are looked for and ended
SLEEP = f"86400.{os.getpid()}"
TIMING = Timing(pick_up=5.0, unused_jit=60.0, lost=2.0, poll=2.0)


@pytest.fixture
def github() -> Iterator[BackgroundStandIn]:
    """Answer a fresh stand-in that loses silent runners after two seconds."""
    with BackgroundStandIn(timing=TIMING) as stand_in:
        yield stand_in


@dataclass
class Machine:
    """A machine with an unpacked runner package."""

    github: BackgroundStandIn
    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def unpack(self, name: str) -> Path:
        """Download the package, as an instance does, and unpack it."""
        folder = self.root / name
        folder.mkdir()
        token = installation_token(self.github)
        url = f"{self.github.url}/orgs/octo-org/actions/runners/downloads"
        package = fetch("GET", url, token=token).json[0]
        content = fetch("GET", package["download_url"]).content
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            unpack(archive, folder)
        return folder

    def jit(self, name: str, *labels: str) -> str:
        """Mint a JIT configuration over the API."""
        token = installation_token(self.github)
        url = f"{self.github.url}/orgs/octo-org/actions/runners/generate-jitconfig"
        body = {"name": name, "runner_group_id": 1, "labels": list(labels)}
        return str(fetch("POST", url, token=token, body=body).json["encoded_jit_config"])

    def start(
        self, folder: Path, *command: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a program of the package."""
        process = subprocess.Popen(
            [str(folder / command[0]), *command[1:]],
            cwd=folder,
            env={
                "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self.root),
                "RUNNER_ALLOW_RUNASROOT": "1",
                **self.environ,
                **(environ or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def run_job(self, *labels: str, **environ: str) -> tuple[int, str]:
        """Run a fresh JIT runner to its end; answers run.sh's code and output."""
        name = f"r{len(self.processes)}"
        process = self.start(
            self.unpack(name),
            "run.sh",
            environ={"ACTIONS_RUNNER_INPUT_JITCONFIG": self.jit(name, *labels), **environ},
        )
        output, _ = process.communicate(timeout=30)
        return process.returncode, output


@pytest.fixture
def machine(github: BackgroundStandIn, tmp_path: Path) -> Iterator[Machine]:
    """Answer a machine; whatever still runs on it at the end is killed."""
    made = Machine(github, tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def queue(github: BackgroundStandIn, steps: str, *, extra: str = "") -> Job:
    """Queue a job of one label with these steps."""
    text = f"on: push\njobs:\n  a:\n    runs-on: box\n    {extra}\n    steps:\n{steps}"
    run = github.call(lambda: github.stand_in.queue_workflow(read_workflow(text)))
    return run.latest()[0]


def step_results(job: Job) -> list[tuple[str, str | None]]:
    """Answer each step's name and conclusion."""
    return [(step.name, step.conclusion) for step in job.steps]


def test_a_workflow_with_a_matrix_runs_to_its_end(
    github: BackgroundStandIn, machine: Machine
) -> None:
    """Every job of the example matrix has a runner of its own; outputs reach what needs them."""
    plan = read_workflow_file(EXAMPLES / "matrix.yml")
    run = github.call(lambda: github.stand_in.queue_workflow(plan))
    while not run.done:
        (job, *_) = github.call(lambda: list(github.stand_in.world.live_jobs.values()))
        code, output = machine.run_job(*job.labels)
        assert (code, "completed with result: Succeeded" in output) == (0, True), output
    assert {job.conclusion for job in run.latest()} == {Conclusion.SUCCESS}
    assert len({job.runner.name for job in run.latest() if job.runner}) == len(run.latest()) == 5
    publish = run.latest()[-1]
    assert any("published, last built was" in line for line in publish.log)
    assert not github.stand_in.world.runners


def test_a_failing_workflow_is_reported_step_by_step(
    github: BackgroundStandIn, machine: Machine
) -> None:
    """The failing step, the skipped one and the always() one are reported; run.sh still ends 0."""
    plan = read_workflow_file(EXAMPLES / "failing.yml")
    run = github.call(lambda: github.stand_in.queue_workflow(plan))
    broken = run.latest()[0]
    code, output = machine.run_job(*broken.labels)
    assert (code, "completed with result: Failed" in output) == (0, True)
    assert step_results(broken) == [
        ("Set up job", "success"),
        ("Works", "success"),
        ("Fails", "failure"),
        ("Is skipped", "skipped"),
        ("Cleans up", "success"),
        ("Complete job", "success"),
    ]
    machine.run_job(*broken.labels)
    conclusions = {job.planned.name: job.conclusion for job in run.latest()}
    assert conclusions == {
        "broken": Conclusion.FAILURE,
        "after": Conclusion.SKIPPED,
        "report": Conclusion.SUCCESS,
    }


def hook(path: Path, text: str) -> str:
    """Write a hook script."""
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_hooks_run_around_the_job_with_its_context(
    github: BackgroundStandIn, machine: Machine, tmp_path: Path
) -> None:
    """Both hooks see the job's variables; what the first writes to GITHUB_ENV reaches the steps."""
    job = queue(github, '      - run: echo "given $GIVEN"\n')
    names = "$GITHUB_RUN_ID $GITHUB_JOB $GITHUB_REPOSITORY $GITHUB_RUN_ATTEMPT $RUNNER_NAME"
    started = hook(
        tmp_path / "started.sh", f'echo "start {names}"\necho "GIVEN=by-hook" >> "$GITHUB_ENV"\n'
    )
    completed = hook(tmp_path / "completed.sh", f'echo "end $GITHUB_WORKFLOW {names}"\n')
    machine.run_job(
        "box",
        ACTIONS_RUNNER_HOOK_JOB_STARTED=started,
        ACTIONS_RUNNER_HOOK_JOB_COMPLETED=completed,
    )
    text = "\n".join(job.log)
    context = f"{job.run_id} a octo-org/hello 1 r0"
    assert f"start {context}" in text
    assert f"end .github/workflows/workflow.yml {context}" in text
    assert "given by-hook" in text
    assert [name for name, _ in step_results(job)] == [
        "Set up job", "Set up runner", 'Run echo "given $GIVEN"', "Complete runner", "Complete job",
    ]  # fmt: skip


@pytest.mark.parametrize("which", ["STARTED", "COMPLETED"])
def test_a_failing_hook_fails_the_job(
    github: BackgroundStandIn, machine: Machine, tmp_path: Path, which: str
) -> None:
    """A hook that ends with an error fails the job; the first one keeps the steps from running."""
    job = queue(github, "      - run: echo the step ran\n")
    path = hook(tmp_path / "hook.sh", "exit 4\n")
    machine.run_job("box", **{f"ACTIONS_RUNNER_HOOK_JOB_{which}": path})
    assert job.conclusion is Conclusion.FAILURE
    ran = any(line.endswith("the step ran") for line in job.log)
    assert ran is (which == "COMPLETED")


def test_a_hook_must_be_an_absolute_path(github: BackgroundStandIn, machine: Machine) -> None:
    """A relative path fails the job with the reason in its log."""
    job = queue(github, "      - run: echo no\n")
    machine.run_job("box", ACTIONS_RUNNER_HOOK_JOB_STARTED="hook.sh")
    assert job.conclusion is Conclusion.FAILURE
    assert any("absolute path" in line for line in job.log)


def test_a_registered_runner_is_configured_and_removed(
    github: BackgroundStandIn, machine: Machine
) -> None:
    """config.sh registers with a token, the ephemeral runner takes its job and is deregistered."""
    job = queue(github, "      - run: 'true'\n")
    folder = machine.unpack("one")
    token = installation_token(github)
    base = f"{github.url}/orgs/octo-org/actions/runners"
    registration = fetch("POST", f"{base}/registration-token", token=token).json["token"]
    arguments = ["--unattended", "--ephemeral", "--url", f"{github.url}/octo-org"]
    arguments += ["--token", registration, "--labels", "box,more", "--name", "one"]
    configured = machine.start(folder, "config.sh", *arguments)
    output, _ = configured.communicate(timeout=20)
    assert configured.returncode == 0, output
    assert (folder / ".credentials").stat().st_mode & 0o777 == 0o600
    (runner,) = github.stand_in.world.runners.values()
    assert {"self-hosted", "box", "more"} <= set(runner.labels)
    again = machine.start(folder, "config.sh", *arguments)
    assert "already configured" in again.communicate(timeout=20)[0]
    ran = machine.start(folder, "run.sh")
    ran.communicate(timeout=30)
    assert (ran.returncode, job.conclusion) == (0, Conclusion.SUCCESS)
    assert not github.stand_in.world.runners


def test_config_remove_deregisters(github: BackgroundStandIn, machine: Machine) -> None:
    """`config.sh remove` takes a remove token and leaves neither runner nor files."""
    folder = machine.unpack("one")
    token = installation_token(github)
    base = f"{github.url}/orgs/octo-org/actions/runners"
    tokens = {
        kind: fetch("POST", f"{base}/{kind}-token", token=token).json["token"]
        for kind in ("registration", "remove")
    }
    url = ["--url", f"{github.url}/octo-org"]
    machine.start(
        folder, "config.sh", "--unattended", *url, "--token", tokens["registration"]
    ).communicate(timeout=20)
    assert len(github.stand_in.world.runners) == 1
    removed = machine.start(folder, "config.sh", "remove", "--token", tokens["remove"])
    output, _ = removed.communicate(timeout=20)
    assert (removed.returncode, github.stand_in.world.runners) == (0, {}), output
    assert not (folder / ".runner").exists()


def running_job(
    github: BackgroundStandIn, machine: Machine, **environ: str
) -> tuple[Job, subprocess.Popen[str]]:
    """Start a job that sleeps for long and wait until its step runs."""
    job = queue(github, f"      - run: echo began; sleep {SLEEP}\n")
    process = machine.start(
        machine.unpack("one"),
        "run.sh",
        environ={"ACTIONS_RUNNER_INPUT_JITCONFIG": machine.jit("one", "box"), **environ},
    )
    assert until(lambda: any(line.endswith("began") for line in job.log), seconds=15)
    return job, process


def sleepers() -> list[int]:
    """Answer processes that still sleep for a job of these tests."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().split(b"\0")[:2] == [b"sleep", SLEEP.encode()]:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_cancelled_job_stops_its_processes(github: BackgroundStandIn, machine: Machine) -> None:
    """Cancelling the run ends the job's processes and the runner, and concludes as cancelled."""
    job, process = running_job(github, machine)
    token = installation_token(github)
    url = f"{github.url}/repos/octo-org/hello/actions/runs/{job.run_id}/cancel"
    assert fetch("POST", url, token=token).status == 202
    process.communicate(timeout=20)
    assert job.conclusion is Conclusion.CANCELLED
    assert job.annotation is None
    assert not sleepers()


def test_a_terminated_runner_cancels_its_job(github: BackgroundStandIn, machine: Machine) -> None:
    """With RUNNER_MANUALLY_TRAP_SIG run.sh passes SIGTERM on; job and runner end in good order."""
    job, process = running_job(github, machine, RUNNER_MANUALLY_TRAP_SIG="1")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert (process.returncode, "Exiting..." in output) == (0, True)
    assert job.conclusion is Conclusion.CANCELLED
    assert "received a shutdown signal" in str(job.annotation)
    assert not github.stand_in.world.runners
    assert not sleepers()


def test_a_killed_runner_loses_its_job(github: BackgroundStandIn, machine: Machine) -> None:
    """A machine that vanishes in the middle fails the job once the service has waited."""
    job, process = running_job(github, machine)
    listener = int(
        subprocess.run(
            ["pgrep", "-P", str(process.pid)], check=True, capture_output=True, text=True
        ).stdout.split()[0]
    )
    os.kill(listener, signal.SIGKILL)
    process.communicate(timeout=20)
    # what the job had started outlives its runner until the machine itself goes
    for number in sleepers():
        os.kill(number, signal.SIGKILL)
    assert until(lambda: job.done, seconds=15)
    assert job.conclusion is Conclusion.FAILURE
    assert "lost communication" in (job.annotation or "")


def test_a_job_over_its_time_is_cancelled(github: BackgroundStandIn, machine: Machine) -> None:
    """`timeout-minutes` stops the job, as cancelled."""
    job = queue(github, f"      - run: sleep {SLEEP}\n", extra="timeout-minutes: 0.02")
    machine.run_job("box")
    assert job.conclusion is Conclusion.CANCELLED
    assert any("exceeded the limit" in line for line in job.log)
    assert not sleepers()


def test_an_unused_runner_ends_with_zero(tmp_path: Path) -> None:
    """A JIT runner that gets no job is dropped by the service and ends as if all were well."""
    with BackgroundStandIn(timing=Timing(unused_jit=1.0, poll=2.0)) as github:
        machine = Machine(github, tmp_path)
        code, output = machine.run_job("nobody-wants-this")
        assert (code, "registration has been deleted" in output) == (0, True), output
        assert not github.stand_in.world.runners


def test_a_runner_without_or_with_a_bad_configuration_ends(
    github: BackgroundStandIn, machine: Machine
) -> None:
    """No configuration, a broken one and a deleted runner each end at once, with the reason."""
    folder = machine.unpack("one")
    bare = machine.start(folder, "run.sh")
    assert "Not configured" in bare.communicate(timeout=20)[0]
    broken = machine.start(folder, "run.sh", "--jitconfig", "bm90IGpzb24=")
    assert "cannot be decoded" in broken.communicate(timeout=20)[0]
    encoded = machine.jit("gone", "box")
    (runner,) = github.stand_in.world.runners.values()
    github.call(lambda: github.stand_in.broker.remove(runner, "test"))
    deleted = machine.start(folder, "run.sh", "--jitconfig", encoded)
    assert "has been deleted" in deleted.communicate(timeout=20)[0]
    assert [entry.returncode for entry in (bare, broken, deleted)] == [0, 0, 0]


def test_root_has_to_be_allowed(machine: Machine) -> None:
    """Without RUNNER_ALLOW_RUNASROOT neither script runs for root, as with the real ones."""
    folder = machine.unpack("one")
    for script in ("run.sh", "config.sh"):
        process = machine.start(folder, script, environ={"RUNNER_ALLOW_RUNASROOT": ""})
        output, _ = process.communicate(timeout=20)
        refused = process.returncode == 1 and "Must not run" in output
        assert refused is (os.geteuid() == 0)


def test_a_deprecated_version_exits_with_seven_when_asked(
    github: BackgroundStandIn, machine: Machine
) -> None:
    """A version past its end gets no session; run.sh passes 7 on only where it may be seen."""
    releases = github.stand_in.releases
    releases.deprecate(releases.version, runtime_ends=time.time() - 1)
    code, output = machine.run_job("box")
    assert (code, "deprecated" in output) == (0, True)
    code, _ = machine.run_job("box", ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE="1")
    assert code == 7


def test_the_result_survives_a_short_outage(github: BackgroundStandIn, machine: Machine) -> None:
    """Dropped connections and errors while reporting are tried again."""
    job = queue(github, "      - run: 'true'\n")
    github.call(
        lambda: github.stand_in.add_fault(Fault("/_runner/jobs/*/complete", drop=True, count=1))
    )
    github.call(
        lambda: github.stand_in.add_fault(
            Fault("/_runner/jobs/*/complete", status=503, count=1, skip=1)
        )
    )
    machine.run_job("box")
    assert job.conclusion is Conclusion.SUCCESS


def test_secrets_of_the_start_are_not_visible_to_the_job(
    github: BackgroundStandIn, machine: Machine
) -> None:
    """The JIT configuration leaves the environment before the job's steps run."""
    job = queue(github, "      - run: env\n")
    machine.run_job("box")
    assert not any("JITCONFIG" in line for line in job.log)
    assert any("GITHUB_REPOSITORY=octo-org/hello" in line for line in job.log)
    assert any(f"GITHUB_SHA={job.head_sha}" in line for line in job.log)


def test_a_recorded_payload_is_run_by_a_runner(github: BackgroundStandIn, machine: Machine) -> None:
    """The job of a recorded queued webhook is taken and ended by a real runner."""
    recorded = next(entry for entry in read_payloads(PAYLOADS) if entry.makes_job)
    stand_in = github.stand_in
    _, job = github.call(
        lambda: stand_in.play_payload(recorded, labels=["box"], repository="octo-org/hello")
    )
    assert job is not None
    machine.run_job("box")
    assert (job.id, job.conclusion) == (recorded.job_id, Conclusion.SUCCESS)


def test_everything_goes_over_tls(tmp_path: Path) -> None:
    """With a certificate of one's own the API and the runner speak TLS, verified."""
    files = create_tls_files(tmp_path / "tls", now=datetime.now(UTC))
    context = files.server_context()
    with BackgroundStandIn(ssl_context=context, public_host="localhost") as github:
        assert github.url.startswith("https://localhost:")
        job = queue(github, "      - run: 'true'\n")
        stand_in = github.stand_in
        _, encoded = github.call(
            lambda: stand_in.services.registry.generate_jit(
                "orgs/octo-org", {"name": "one", "runner_group_id": 1, "labels": ["box"]}
            )
        )
        folder = tmp_path / "runner"
        folder.mkdir()
        with tarfile.open(fileobj=io.BytesIO(stand_in.releases.package("x64").content)) as archive:
            unpack(archive, folder)
        process = Machine(github, tmp_path).start(
            folder,
            "run.sh",
            environ={
                "ACTIONS_RUNNER_INPUT_JITCONFIG": encoded,
                **files.client_environment(),
            },
        )
        output, _ = process.communicate(timeout=30)
        assert (job.status, job.conclusion) == (JobStatus.COMPLETED, Conclusion.SUCCESS), output
