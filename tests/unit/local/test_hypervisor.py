"""Instances that really run: user data, shutdown from inside and outside, spot notices."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from runsfleet_cli.local.emulator_gaps.instances import InstanceBook, InstanceFacts
from runsfleet_cli.local.hypervisor import (
    Hypervisor,
    HypervisorSettings,
    Machine,
    MachineState,
    UnknownInstanceError,
)
from runsfleet_cli.local.hypervisor.ec2 import (
    Description,
    Role,
    Template,
    TemplateReference,
    decode_user_data,
    template_of,
)
from runsfleet_cli.local.hypervisor.hypervisor import architecture_of
from runsfleet_cli.local.hypervisor.image import Tools
from runsfleet_cli.local.hypervisor.machine import processes_below
from runsfleet_cli.local.hypervisor.metadata import RoleCredentials
from runsfleet_cli.local.interceptor.aws_request import AwsRequest, Operation
from runsfleet_cli.local.interceptor.callers import Caller
from runsfleet_cli.local.state import is_alive

ID = "i-0123456789abcdef0"
REGION = "eu-central-1"
SLEEPS = "#!/bin/bash\necho up\nsleep 60\n"


@dataclass
class FakeEc2:
    """An emulator of two instances and one launch template."""

    user_data: str = SLEEPS
    terminates: bool = True
    changes: list[tuple[str, str]] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sessions: int = 0

    async def template(self, reference: TemplateReference, region: str) -> Template:
        return Template(self.user_data, "profile", self.terminates, tags_shown=False)

    async def describe(self, instance_id: str, region: str) -> Description:
        return Description("t4g.medium", f"{region}a", "10.0.0.7", "x86_64", {"Name": "runner"})

    async def role(self, profile: str) -> Role | None:
        return Role("runner-role", "arn:aws:iam::123456789012:role/runner-role")

    async def credentials(self, role: Role, instance_id: str, region: str) -> RoleCredentials:
        self.sessions += 1
        return RoleCredentials("ASIA", "secret", "token", datetime.now(UTC) + timedelta(hours=1))

    async def change(self, action: str, instance_id: str, region: str) -> None:
        self.changes.append((action, instance_id))

    async def publish(
        self, detail_type: str, detail: Mapping[str, Any], resources: list[str], region: str
    ) -> None:
        self.events.append((detail_type, dict(detail)))

    @property
    def states(self) -> list[str]:
        """The published states of the instance."""
        return [detail["state"] for kind, detail in self.events if "State-change" in kind]


def request(action: str, caller: Caller | None = None, **parameters: Any) -> AwsRequest:
    """An EC2 request as the interceptor tells it."""
    return AwsRequest(
        "POST",
        "/",
        CIMultiDict(),
        None,
        Operation("ec2", action, REGION, "", "ec2", parameters),
        caller or Caller("function", "dispatch"),
        time.time(),
    )


FLEET = request(
    "CreateFleet",
    LaunchTemplateConfigs=[
        {"LaunchTemplateSpecification": {"LaunchTemplateId": "lt-1", "Version": "3"}}
    ],
)
Test = Callable[[Hypervisor, FakeEc2], Awaitable[None]]


def play(tmp_path: Path, ec2: FakeEc2, test: Test, *, grace: float = 5.0) -> None:
    """Run a test with a hypervisor whose instance has been launched, and stop it."""
    book = InstanceBook()
    book.add(InstanceFacts(ID, "spot", "c7g.xlarge", "eu-central-1b", "ami-1", (), "fleet-1", 0.0))
    settings = HypervisorSettings(
        directory=tmp_path / "instances",
        account="123456789012",
        environment={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
        boot_seconds=0.0,
        grace_seconds=grace,
        tools=Tools(act=None, python=Path(sys.executable)),
    )

    async def scenario() -> None:
        hypervisor = Hypervisor(settings, ec2, book)
        book.subscribe(hypervisor.on_change)
        book.tell("launched", (ID,), FLEET)
        try:
            await test(hypervisor, ec2)
        finally:
            await hypervisor.stop()
        assert not [one for one in hypervisor.machines.values() if one.pid is not None]

    asyncio.run(scenario())


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that takes a moment."""
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def booted(hypervisor: Hypervisor) -> Machine:
    """The instance, once its user data has said something."""
    await until(lambda: ID in hypervisor.machines, "launched")
    machine = hypervisor.machines[ID]
    await until(lambda: bool(machine.console), "booted")
    return machine


def test_a_launch_runs_its_user_data_with_what_an_instance_has(tmp_path: Path) -> None:
    """The environment holds the disk, the endpoints and nothing of the developer's shell."""
    ec2 = FakeEc2(user_data="#!/bin/bash\nenv | sort\ncommand -v shutdown\nsleep 60\n")

    async def test(hypervisor: Hypervisor, _: FakeEc2) -> None:
        machine = await booted(hypervisor)
        await until(lambda: machine.console[-1].endswith("/shutdown"), "environment")
        names = {line.partition("=")[0] for line in list(machine.console)[:-1]}
        assert names - {"_", "PWD", "SHLVL"} == {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "AWS_ENDPOINT_URL",
            "HOME",
            "LANG",
            "PATH",
            "RUNSFLEET_HOME",
            "TMPDIR",
        }
        assert machine.console[-1] == str(tmp_path / "instances" / ID / "bin" / "shutdown")
        assert (machine.face.instance_type, machine.face.zone) == ("c7g.xlarge", "eu-central-1b")
        assert machine.face.architecture == "arm64"

    play(tmp_path, ec2, test)


def test_windows_is_not_played_and_ends(tmp_path: Path) -> None:
    """An instance whose first script is for Windows says so and does not stay for nothing."""
    ec2 = FakeEc2(user_data="<powershell>\nStop-Computer -Force\n</powershell>\n")

    async def test(hypervisor: Hypervisor, _: FakeEc2) -> None:
        machine = await booted(hypervisor)
        assert "plays Linux only" in machine.console[0]
        await until(lambda: machine.state is MachineState.TERMINATED, "terminated")

    play(tmp_path, ec2, test)


def test_terminate_ends_every_process_in_whatever_session(tmp_path: Path) -> None:
    """SIGTERM reaches a process that has made itself a session, and its disk is gone after."""
    script = (
        "#!/bin/bash\n"
        'setsid bash -c \'trap "echo told; exit" TERM; echo there; '
        "while :; do sleep 0.1; done' &\n"
        "sleep 60\n"
    )

    async def test(hypervisor: Hypervisor, ec2: FakeEc2) -> None:
        machine = await booted(hypervisor)
        await until(lambda: "there" in machine.console, "session")
        below = processes_below(machine.pid)
        assert len(below) >= 2
        hypervisor.on_change("terminated", (ID,), request("TerminateInstances"))
        await until(lambda: machine.state is MachineState.TERMINATED, "terminated")
        assert "told" in machine.console
        assert not [pid for pid in below if is_alive(pid)]
        assert not list((tmp_path / "instances").iterdir())
        assert ec2.states == ["pending", "running", "shutting-down", "terminated"]
        assert not ec2.changes

    play(tmp_path, FakeEc2(user_data=script), test)


def test_what_does_not_end_is_killed_after_the_grace(tmp_path: Path) -> None:
    """A process that ignores SIGTERM does not keep an instance alive."""
    script = "#!/bin/bash\ntrap '' TERM\necho up\nwhile :; do sleep 0.1; done\n"

    async def test(hypervisor: Hypervisor, _: FakeEc2) -> None:
        machine = await booted(hypervisor)
        hypervisor.on_change("terminated", (ID,), request("TerminateInstances"))
        await until(lambda: machine.state is MachineState.TERMINATED, "terminated")

    play(tmp_path, FakeEc2(user_data=script), test, grace=0.3)


@pytest.mark.parametrize("command", ["shutdown -h now", "poweroff", "halt -p"])
def test_a_shutdown_inside_terminates_the_instance_at_ec2(tmp_path: Path, command: str) -> None:
    """With the launch template's behaviour, power-off means termination."""

    async def test(hypervisor: Hypervisor, ec2: FakeEc2) -> None:
        await until(lambda: ID in hypervisor.machines, "launched")
        machine = hypervisor.machines[ID]
        await until(lambda: machine.state is MachineState.TERMINATED, "terminated")
        assert ec2.changes == [("TerminateInstances", ID)]
        assert machine.reason == f"{command} inside"

    play(tmp_path, FakeEc2(user_data=f"#!/bin/bash\n{command}\nsleep 60\n"), test)


def test_a_shutdown_inside_stops_an_instance_without_that_behaviour(tmp_path: Path) -> None:
    """EC2's default is to stop."""

    async def test(hypervisor: Hypervisor, ec2: FakeEc2) -> None:
        await until(lambda: ID in hypervisor.machines, "launched")
        machine = hypervisor.machines[ID]
        await until(lambda: machine.state is MachineState.STOPPED, "stopped")
        assert ec2.changes == [("StopInstances", ID)]
        assert ec2.states[-2:] == ["stopping", "stopped"]

    script = "#!/bin/bash\nshutdown -h now\nsleep 60\n"
    play(tmp_path, FakeEc2(user_data=script, terminates=False), test)


def test_an_instance_without_processes_lives_until_it_is_terminated(tmp_path: Path) -> None:
    """The end of the user data is not the end of the instance."""

    async def test(hypervisor: Hypervisor, _: FakeEc2) -> None:
        machine = await booted(hypervisor)
        await until(lambda: "status 3" in machine.console[-1], "ended")
        assert machine.state is MachineState.RUNNING

    play(tmp_path, FakeEc2(user_data="#!/bin/bash\nexit 3\n"), test)


def test_packages_and_services_of_this_machine_are_left_alone(tmp_path: Path) -> None:
    """A setup command that installs something is told and skipped."""

    async def test(hypervisor: Hypervisor, _: FakeEc2) -> None:
        machine = await booted(hypervisor)
        await until(lambda: "done" in machine.console, "done")
        assert "apt-get install -y docker.io: skipped on the local cloud" in machine.console

    script = "#!/bin/bash\nset -e\napt-get install -y docker.io\nsystemctl start x\necho done\n"
    play(tmp_path, FakeEc2(user_data=script), test)


def test_a_spot_notice_is_seen_published_and_meant(tmp_path: Path) -> None:
    """Metadata and EventBridge have it; when its time is over the instance is terminated."""

    async def test(hypervisor: Hypervisor, ec2: FakeEc2) -> None:
        machine = await booted(hypervisor)
        hypervisor.interrupt(ID, seconds=0.2)
        await until(lambda: machine.face.interruption is not None, "notice")
        assert machine.face.interruption is not None
        assert machine.face.interruption["action"] == "terminate"
        await until(lambda: machine.state is MachineState.TERMINATED, "terminated")
        assert ("TerminateInstances", ID) in ec2.changes
        warning = {"instance-id": ID, "instance-action": "terminate"}
        assert ("EC2 Spot Instance Interruption Warning", warning) in ec2.events

    play(tmp_path, FakeEc2(), test)


def test_a_rebalance_recommendation_ends_nothing(tmp_path: Path) -> None:
    """It is a hint."""

    async def test(hypervisor: Hypervisor, ec2: FakeEc2) -> None:
        machine = await booted(hypervisor)
        hypervisor.recommend_rebalance(ID)
        await hypervisor.settled()
        assert machine.face.rebalance is not None
        assert ("EC2 Instance Rebalance Recommendation", {"instance-id": ID}) in ec2.events
        assert machine.state is MachineState.RUNNING

    play(tmp_path, FakeEc2(), test)


def test_a_failed_host_gives_no_process_a_chance(tmp_path: Path) -> None:
    """No SIGTERM, no clean-up: everything is gone at once."""
    script = "#!/bin/bash\ntrap 'echo told' TERM\necho up\nwhile :; do sleep 0.1; done\n"

    async def test(hypervisor: Hypervisor, _: FakeEc2) -> None:
        machine = await booted(hypervisor)
        hypervisor.fail(ID)
        await until(lambda: machine.state is MachineState.TERMINATED, "terminated")
        assert "told" not in machine.console

    play(tmp_path, FakeEc2(user_data=script), test)


def test_a_crashed_agent_leaves_its_script_running(tmp_path: Path) -> None:
    """Only the agent's process is killed; the first script sees it end."""
    agent = 'exec -a "python -m runsfleet_runtime.agent" sleep 60'
    script = f"#!/bin/bash\necho up\nbash -c '{agent}' || echo crashed $?\nsleep 60\n"

    async def test(hypervisor: Hypervisor, _: FakeEc2) -> None:
        machine = await booted(hypervisor)

        def crashed() -> bool:
            try:
                hypervisor.crash_agent(ID)
            except UnknownInstanceError:
                return False
            return True

        await until(crashed, "agent found")
        await until(lambda: "crashed 137" in machine.console, "seen")
        assert machine.state is MachineState.RUNNING

    play(tmp_path, FakeEc2(user_data=script), test)


def test_an_agent_can_be_stopped_and_frozen_and_its_runner_killed(tmp_path: Path) -> None:
    """The agent's SIGTERM reaches it alone, a frozen one says nothing more, the runner goes."""
    agent = "trap 'echo told' TERM; while :; do sleep 0.05; done # runsfleet_runtime.agent"
    runner = "while :; do sleep 0.05; done # Runner.Listener"
    script = f"#!/bin/bash\necho up\nbash -c '{runner}' || echo gone $? &\n"
    script += f'exec bash -c "{agent}"\n'

    async def test(hypervisor: Hypervisor, _: FakeEc2) -> None:
        machine = await booted(hypervisor)

        def done(act: Callable[[str], None]) -> bool:
            try:
                act(ID)
            except UnknownInstanceError:
                return False
            return True

        await until(lambda: done(hypervisor.kill_runner), "runner found")
        await until(lambda: "gone 137" in machine.console, "runner gone")
        await until(lambda: done(hypervisor.stop_agent), "agent found")
        await until(lambda: "told" in machine.console, "agent told")
        hypervisor.freeze_agent(ID)
        hypervisor.stop_agent(ID)
        await asyncio.sleep(0.3)
        assert list(machine.console).count("told") == 1
        hypervisor.crash_agent(ID)

    play(tmp_path, FakeEc2(script), test, grace=0.1)


def test_faults_need_an_instance_that_runs(tmp_path: Path) -> None:
    """The error names those that do."""

    async def test(hypervisor: Hypervisor, _: FakeEc2) -> None:
        await booted(hypervisor)
        for act in (
            hypervisor.interrupt,
            hypervisor.fail,
            hypervisor.crash_agent,
            hypervisor.kill_runner,
        ):
            with pytest.raises(UnknownInstanceError, match=f"i-other runs; running: {ID}"):
                act("i-other")

    play(tmp_path, FakeEc2(), test)


def test_an_instance_terminated_before_it_booted_never_boots(tmp_path: Path) -> None:
    """Dispatch may end what it cannot configure at once."""

    async def test(hypervisor: Hypervisor, ec2: FakeEc2) -> None:
        hypervisor.on_change("terminated", (ID,), request("TerminateInstances"))
        await hypervisor.settled()
        machine = hypervisor.machines[ID]
        assert machine.state is MachineState.TERMINATED
        assert machine.pid is None
        assert ec2.states[-1] == "terminated"

    play(tmp_path, FakeEc2(), test)


def test_keys_are_asked_for_once_while_they_last(tmp_path: Path) -> None:
    """As EC2 rotates them only hours before they end."""

    async def test(hypervisor: Hypervisor, ec2: FakeEc2) -> None:
        machine = await booted(hypervisor)
        keys = machine.metadata._credentials
        first = await keys()
        assert await keys() is first
        assert ec2.sessions == 1

    play(tmp_path, FakeEc2(), test)


@pytest.mark.parametrize(
    ("instance_type", "architecture"),
    [
        ("t4g.medium", "arm64"),
        ("c7gn.xlarge", "arm64"),
        ("a1.large", "arm64"),
        ("x2gd.large", "arm64"),
        ("g5g.xlarge", "arm64"),
        ("c6i.xlarge", "x86_64"),
        ("g5.xlarge", "x86_64"),
        ("m7a.large", "x86_64"),
    ],
)
def test_the_architecture_is_in_the_types_name(instance_type: str, architecture: str) -> None:
    """A g after the generation means Graviton; a family called g does not."""
    assert architecture_of(instance_type) == architecture


def test_user_data_is_decoded_as_by_cloud_init() -> None:
    """Base64, and gzip in it."""
    import base64
    import gzip

    plain = "#!/bin/sh\necho hi\n"
    assert decode_user_data(base64.b64encode(plain.encode()).decode()) == plain
    packed = base64.b64encode(gzip.compress(plain.encode())).decode()
    assert decode_user_data(packed) == plain


def test_the_launch_template_is_that_of_the_request() -> None:
    """By id or by name, of a fleet or of RunInstances; none if the request names none."""
    assert template_of(FLEET) == TemplateReference("LaunchTemplateId", "lt-1", "3")
    named = request("RunInstances", LaunchTemplate={"LaunchTemplateName": "x"})
    assert template_of(named) == TemplateReference("LaunchTemplateName", "x", "$Default")
    assert template_of(request("RunInstances", ImageId="ami-1")) is None
