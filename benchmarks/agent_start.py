"""The agent's process until its job is in progress at GitHub, with the runner in the image.

The baseline is the least that an agent could be: a script that reads its configuration by botocore,
with credentials from the metadata service, and becomes the runner. It reports nothing and would end
no instance. Both sides talk to the same servers on this machine, and each round has a home, a job
and a registration of its own. The runner is the local cloud's, which starts faster than GitHub's:
what is compared is what comes before it.

The agent is measured with its package compiled, as an image may have it, and just unpacked, as a
first boot finds it. How long the compiling takes is there to be compared with what it saves.
"""

from __future__ import annotations

import getpass
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.cold_start import agent_package
from benchmarks.measure import (
    BenchmarkError,
    Sample,
    environment,
    in_turns,
    median_and_quartiles,
    run_process,
)
from benchmarks.report import Row
from benchmarks.stand_in import INSTANCE_ID, StandIn
from runsfleet_cli.local.github import BackgroundStandIn
from runsfleet_cli.local.github.world import Job
from runsfleet_cli.local.jobs.plan import read_workflow
from runsfleet_runtime.contract.environment import AgentEnvironment
from runsfleet_runtime.contract.messages import RunnerConfig
from runsfleet_runtime.contract.paths import BAKED_RUNNER_DIRECTORY, BAKED_RUNNER_MARKER
from runsfleet_runtime.contract.tables import RunnerAttr

ROUNDS = 15
BUDGET = 2.0
BUDGET_SECONDS = 1.0
BASELINE = "a script that becomes the runner"
COMPILED = "agent, compiled"
UNPACKED = "agent, just unpacked"
COMPILING = "compiling the package"

_ARCHITECTURE = "x64"
_SECONDS = 60.0
_WORKFLOW = "on: push\njobs:\n  start:\n    runs-on: replaced\n    steps:\n      - run: 'true'\n"
_BECOME_THE_RUNNER = f"""
import json, os, sys
from botocore.session import get_session
client = get_session().create_client("dynamodb", region_name="us-east-1")
key = {{"{RunnerAttr.KEY.value}": {{"S": "{INSTANCE_ID}"}}}}
item = client.get_item(TableName="runners", Key=key, ConsistentRead=True)["Item"]
config = json.loads(item["{RunnerAttr.CONFIG.value}"]["S"])
os.environ["ACTIONS_RUNNER_INPUT_JITCONFIG"] = config["jit_config"]
os.environ["RUNNER_ALLOW_RUNASROOT"] = "1"
os.execv(sys.argv[1], sys.argv[1:])
"""


def run(rounds: int | None = None) -> list[Row]:
    """Measure."""
    with (
        tempfile.TemporaryDirectory(prefix="runsfleet-bench-") as name,
        StandIn({}).running() as aws,
        BackgroundStandIn() as github,
    ):
        bench = _Bench(Path(name), aws, github)
        sides: dict[str, Callable[[], Sample]] = {
            BASELINE: bench.script,
            COMPILED: lambda: bench.agent(bench.compiled),
            UNPACKED: lambda: bench.agent(bench.unpacked),
            COMPILING: bench.compiling,
        }
        samples = in_turns(sides, rounds or ROUNDS, title="agent_start")
    return [
        _row(COMPILED, samples, budget=BUDGET),
        _row(UNPACKED, samples),
        _in_seconds(UNPACKED, samples),
        _row(COMPILING, samples),
    ]


def _row(name: str, samples: Mapping[str, list[Sample]], budget: float | None = None) -> Row:
    pairs = zip(samples[name], samples[BASELINE], strict=True)
    ratio, spread = median_and_quartiles([mine.wall / base.wall for mine, base in pairs])
    baseline = median(sample.wall for sample in samples[BASELINE])
    return Row(
        what=name if name == COMPILING else f"{name}, until its job is in progress",
        figure=f"{1000 * median(sample.wall for sample in samples[name]):.0f} ms",
        against=f"{BASELINE}: {1000 * baseline:.0f} ms",
        ratio=ratio,
        spread=spread,
        budget=budget,
    )


def _in_seconds(name: str, samples: Mapping[str, list[Sample]]) -> Row:
    longest = max(sample.wall for sample in samples[name])
    return Row(
        what=f"{name}, the slowest of {len(samples[name])}",
        figure=f"{1000 * longest:.0f} ms",
        budget=BUDGET_SECONDS,
        judged=longest,
        unit="s",
    )


@dataclass(frozen=True, slots=True)
class _Registered:
    """A job that waits, and the registration of the one runner that may have it."""

    job: Job
    label: str
    jit_config: str


class _Bench:
    """What all rounds share.

    Args:
        folder: For files.
        aws: Plays AWS and the metadata service.
        github: GitHub's stand-in.
    """

    def __init__(self, folder: Path, aws: StandIn, github: BackgroundStandIn) -> None:
        self._folder = folder
        self._aws = aws
        self._github = github
        self.unpacked, self.compiled = folder / "unpacked", folder / "compiled"
        for package in (self.unpacked, self.compiled):
            with zipfile.ZipFile(agent_package()) as archive:
                archive.extractall(package)  # noqa: S202  our own package
        self._runner = folder / "image"
        content = github.stand_in.releases.package(_ARCHITECTURE).content
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            archive.extractall(self._runner, filter="data")
        for compiled in (self.compiled, self._runner):
            run_process(_compiler(compiled), env=_without_prefix(environment()))
        # an agent that fails ends its machine, which is this one
        self._tools = folder / "bin"
        self._tools.mkdir()
        for name in ("shutdown", "poweroff"):
            (self._tools / name).write_text("#!/bin/sh\n")
            (self._tools / name).chmod(0o755)

    def script(self) -> Sample:
        """Start what does nothing but become the runner."""
        home, registered = self._image(), self._register()
        run_sh = home / BAKED_RUNNER_DIRECTORY / "run.sh"
        command = [sys.executable, "-S", "-c", _BECOME_THE_RUNNER, str(run_sh)]
        return self._measure(command, self._aws_for(self.compiled), registered, home)

    def agent(self, package: Path) -> Sample:
        """Start the agent of an unpacked package."""
        home, registered = self._image(), self._register()
        settings = AgentEnvironment(
            fleet="bench",
            platform=f"linux-{_ARCHITECTURE}",
            region="us-east-1",
            termination_queue_url=f"{self._aws.url}/111111111111/reports",
            instance_role_id="AROAEXAMPLE",
            runners_table="runners",
            runner_bucket="packages",
            log_group="agents",
            home=str(home),
            runner_user=getpass.getuser(),
        )
        return self._measure(
            [sys.executable, "-S", "-m", "runsfleet_runtime.agent"],
            {**settings.to_environ(), **self._aws_for(package)},
            registered,
            home,
        )

    def compiling(self) -> Sample:
        """Compile a package that was just unpacked."""
        package = self._folder / "to-compile"
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(self.unpacked, package)
        return run_process(_compiler(package), env=_without_prefix(environment()))

    def _aws_for(self, package: Path) -> dict[str, str]:
        return {
            "PYTHONPATH": str(package),
            "AWS_ENDPOINT_URL": self._aws.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._aws.url,
        }

    def _image(self) -> Path:
        """Make a home that has the runner, as an image has it."""
        home = self._folder / f"home-{uuid.uuid4().hex[:8]}"
        shutil.copytree(self._runner, home / BAKED_RUNNER_DIRECTORY)
        version = self._github.stand_in.releases.version
        marker = f'{{"version": "{version}", "platform": "linux-{_ARCHITECTURE}"}}'
        (home / BAKED_RUNNER_MARKER).write_text(marker)
        return home

    def _register(self) -> _Registered:
        stand_in = self._github.stand_in
        label = uuid.uuid4().hex
        body = {"name": f"bench-{label[:8]}", "runner_group_id": 1, "labels": [label]}

        def registered() -> _Registered:
            run = stand_in.queue_workflow(read_workflow(_WORKFLOW), labels=[label])
            (job,) = run.latest()
            _, secret = stand_in.services.registry.generate_jit("orgs/octo-org", body)
            return _Registered(job, label, secret)

        made = self._github.call(registered)
        self._aws.items = {RunnerAttr.CONFIG: {"S": self._config(made).to_json()}}
        return made

    def _config(self, registered: _Registered) -> RunnerConfig:
        return RunnerConfig(
            instance_id=INSTANCE_ID,
            job_id=registered.job.id,
            run_id=registered.job.run_id,
            repository="octo-org/hello",
            server_url=self._github.url,
            runner_url=f"{self._github.url}/octo-org",
            runner_name=f"bench-{registered.label[:8]}",
            labels=(registered.label,),
            jit_config=registered.jit_config,
        )

    def _measure(
        self, command: list[str], variables: Mapping[str, str], registered: _Registered, home: Path
    ) -> Sample:
        env = _without_prefix(environment(**variables, PYTHONDONTWRITEBYTECODE="1"))
        # the runner's executor of jobs comes from this environment
        env["PATH"] = os.pathsep.join(
            [str(self._tools), str(Path(sys.executable).parent), env["PATH"]]
        )
        env["HOME"] = str(home)
        begun = time.time()
        process = subprocess.Popen(
            command, env=env, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            said, _ = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise BenchmarkError(f"{command} did not end within {_SECONDS:g} s") from error
        started = registered.job.started_at
        if started is None:
            last = said.decode(errors="replace").strip()[-1500:]
            raise BenchmarkError(f"no job was started: {last}")
        shutil.rmtree(home)
        return Sample(started - begun, 0.0)


def _without_prefix(env: dict[str, str]) -> dict[str, str]:
    """Leave out the common folder of bytecode: here it matters whose package has some."""
    return {name: value for name, value in env.items() if name != "PYTHONPYCACHEPREFIX"}


def _compiler(folder: Path) -> list[str]:
    return [sys.executable, "-S", "-m", "compileall", "-q", str(folder)]
