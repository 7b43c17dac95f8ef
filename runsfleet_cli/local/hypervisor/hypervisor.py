"""Turns what EC2's API did into instances that boot, live and end.

Lifecycle of an instance: a launch is told by the interceptor -> `pending` -> after the boot delay
`running`, its user data runs -> TerminateInstances, a spot interruption or a shutdown from inside
-> `shutting-down` -> `terminated`, its disk gone. Each state is published to EventBridge.

Driven by what was really launched: launch template, role, type and zone come from the emulator.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from runsfleet_cli.local.hypervisor.ec2 import (
    Description,
    Ec2Error,
    Role,
    Template,
    TemplateReference,
    template_of,
)
from runsfleet_cli.local.hypervisor.image import Tools
from runsfleet_cli.local.hypervisor.machine import Machine, MachineState
from runsfleet_cli.local.hypervisor.metadata import (
    InstanceFace,
    MetadataService,
    MetadataTrouble,
    RoleCredentials,
    iso,
    spot_notice,
)

if TYPE_CHECKING:
    from runsfleet_cli.local.emulator_gaps.instances import Change, InstanceFacts
    from runsfleet_cli.local.interceptor.aws_request import AwsRequest

BOOT_SECONDS = 0.3
"""Between launch and user data; EC2 takes some 10 to 30 s, and nobody wants to wait for that."""

GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL at a shutdown; systemd gives 90 s, a local fleet has less to save."""

SPOT_NOTICE_SECONDS = 120.0
"""EC2 gives two minutes."""

_RENEW = timedelta(minutes=10)
_log = logging.getLogger("runsfleet.local.hypervisor")

Event = dict[str, Any]
Listener = Callable[[Event], None]


class UnknownInstanceError(LookupError):
    """No such instance, or it does not run any more."""


class TalksToEc2(Protocol):
    """What the hypervisor needs of the emulator."""

    async def template(self, reference: TemplateReference, region: str) -> Template:
        """Read a launch template."""

    async def describe(self, instance_id: str, region: str) -> Description:
        """Read an instance."""

    async def role(self, profile: str) -> Role | None:
        """The role of an instance profile."""

    async def credentials(self, role: Role, instance_id: str, region: str) -> RoleCredentials:
        """Keys of a role for one instance."""

    async def change(self, action: str, instance_id: str, region: str) -> None:
        """Terminate, stop or start an instance."""

    async def publish(
        self, detail_type: str, detail: Mapping[str, Any], resources: list[str], region: str
    ) -> None:
        """Put an event of EC2 on the default bus."""


class KnowsLaunches(Protocol):
    """Facts of a launch that DescribeInstances lacks."""

    def get(self, instance_id: str) -> InstanceFacts | None:
        """What is known of an instance."""


@dataclass(frozen=True, slots=True)
class HypervisorSettings:
    """How instances are made.

    Args:
        directory: Their disks.
        account: Twelve digits.
        environment: Beside what its disk says: the AWS endpoint and, in strict mode, certificates.
        boot_seconds: Between launch and user data.
        grace_seconds: Between SIGTERM and SIGKILL.
        tools: What images bring; default: what is found.
    """

    directory: Path
    account: str
    environment: Mapping[str, str]
    boot_seconds: float = BOOT_SECONDS
    grace_seconds: float = GRACE_SECONDS
    tools: Tools = field(default_factory=Tools.found)


class Hypervisor:
    """See the module.

    Args:
        settings: How instances are made.
        ec2: The emulator.
        launches: Facts of launches.
        clock: Unix time, seconds.
    """

    def __init__(
        self,
        settings: HypervisorSettings,
        ec2: TalksToEc2,
        launches: KnowsLaunches,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._ec2 = ec2
        self._launches = launches
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[Listener] = []
        self._metadata_trouble = MetadataTrouble()
        self.machines: dict[str, Machine] = {}

    def subscribe(self, listener: Listener) -> None:
        """Be told of every change of an instance."""
        self._listeners.append(listener)

    def on_change(self, change: Change, ids: tuple[str, ...], request: AwsRequest) -> None:
        """What EC2's API did; see `InstanceBook.subscribe`."""
        region = request.operation.region
        if change == "launched":
            reference = template_of(request)
            for instance_id in ids:
                self._spawn(self._launch(instance_id, reference, region))
        elif change == "terminated":
            for instance_id in ids:
                by = "itself" if request.caller.name == instance_id else str(request.caller)
                self._terminate_soon(instance_id, f"TerminateInstances by {by}")

    async def stop(self) -> None:
        """End every instance at once; leaves no process."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._remove(machine) for machine in self.machines.values()))

    async def settled(self) -> None:
        """Wait until nothing is being launched or ended."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    # -- what a person or a test does ----------------------------------------------------------

    def interrupt(self, instance_id: str, seconds: float = SPOT_NOTICE_SECONDS) -> None:
        """Give a spot notice, and take the instance away when its time is over.

        Args:
            instance_id: A running instance.
            seconds: Of notice; EC2 gives 120.

        Raises:
            UnknownInstanceError: It does not run.
        """
        machine = self._running(instance_id)
        self._spawn(self._interrupt(machine, seconds))

    def recommend_rebalance(self, instance_id: str) -> None:
        """Recommend a rebalance, as EC2 does when a pool gets scarce.

        Raises:
            UnknownInstanceError: It does not run.
        """
        machine = self._running(instance_id)
        machine.face.rebalance = iso(self._clock())
        self._note(machine, "rebalance recommended")
        self._spawn(
            self._publish(
                machine,
                "EC2 Instance Rebalance Recommendation",
                {"instance-id": machine.instance_id},
            )
        )

    def crash_agent(self, instance_id: str) -> None:
        """Kill the agent of an instance.

        Raises:
            UnknownInstanceError: It does not run, or its agent does not.
        """
        self._signal_agent(instance_id, signal.SIGKILL, "agent killed")

    def stop_agent(self, instance_id: str) -> None:
        """Ask the agent of an instance to stop, as a shutdown of the system does (SIGTERM).

        Raises:
            UnknownInstanceError: It does not run, or its agent does not.
        """
        self._signal_agent(instance_id, signal.SIGTERM, "agent told to stop")

    def freeze_agent(self, instance_id: str) -> None:
        """Let the agent of an instance hang (SIGSTOP).

        Raises:
            UnknownInstanceError: It does not run, or its agent does not.
        """
        self._signal_agent(instance_id, signal.SIGSTOP, "agent frozen")

    def kill_runner(self, instance_id: str) -> None:
        """Kill GitHub's runner on an instance.

        Raises:
            UnknownInstanceError: It does not run, or its runner does not.
        """
        machine = self._running(instance_id)
        if not machine.kill_runner():
            msg = f"no runner runs on {instance_id} at the moment"
            raise UnknownInstanceError(msg)
        self._note(machine, "runner killed")

    def trouble_metadata(self, how: Literal["refuse", "hang"], seconds: float) -> None:
        """Let the metadata services of all instances, present and future, fail for a time.

        Args:
            how: `refuse` answers 503, `hang` not before the time is over.
            seconds: From now; 0 ends it.
        """
        self._metadata_trouble.how = how
        self._metadata_trouble.until = self._clock() + seconds

    def _signal_agent(self, instance_id: str, number: int, what: str) -> None:
        machine = self._running(instance_id)
        if not machine.signal_agent(number):
            msg = f"no agent runs on {instance_id} at the moment"
            raise UnknownInstanceError(msg)
        self._note(machine, what)

    def fail(self, instance_id: str) -> None:
        """Lose an instance as when its host fails: no notice, no shutdown.

        Raises:
            UnknownInstanceError: It does not run.
        """
        machine = self._running(instance_id)
        machine.reason = "its host failed"
        self._spawn(self._lose(machine))

    # -- an instance's life --------------------------------------------------------------------

    async def _launch(
        self, instance_id: str, reference: TemplateReference | None, region: str
    ) -> None:
        template = await self._ec2.template(reference, region) if reference else Template()
        description = await self._ec2.describe(instance_id, region)
        role = await self._ec2.role(template.profile) if template.profile else None
        machine = self._make(instance_id, template, description, role, region)
        self.machines[instance_id] = machine
        await self._enter(machine, MachineState.PENDING)
        await machine.metadata.start()
        await asyncio.sleep(self._settings.boot_seconds)
        if machine.state is not MachineState.PENDING:
            return
        await self._enter(machine, MachineState.RUNNING)
        await machine.power_on()

    def _make(
        self,
        instance_id: str,
        template: Template,
        description: Description,
        role: Role | None,
        region: str,
    ) -> Machine:
        facts = self._launches.get(instance_id)
        instance_type = (facts.instance_type if facts else "") or description.instance_type
        face = InstanceFace(
            instance_id=instance_id,
            instance_type=instance_type,
            zone=(facts.zone if facts else "") or description.zone,
            region=region,
            account=self._settings.account,
            image_id=facts.image_id if facts else "",
            architecture=architecture_of(instance_type),
            lifecycle=facts.lifecycle if facts else "on-demand",
            private_ip=description.private_ip,
            launched_at=facts.launched_at if facts else self._clock(),
            user_data=template.user_data,
            role=role.name if role else "",
            tags=dict(description.tags),
            tags_shown=template.tags_shown,
        )
        return Machine(
            face=face,
            terminates_on_shutdown=template.terminates_on_shutdown,
            root=self._settings.directory / instance_id,
            tools=self._settings.tools,
            environment=self._settings.environment,
            metadata=MetadataService(
                face, self._keys(role, instance_id, region), trouble=self._metadata_trouble
            ),
            on_power_off=self._powered_off,
        )

    def _keys(
        self, role: Role | None, instance_id: str, region: str
    ) -> Callable[[], Coroutine[Any, Any, RoleCredentials | None]]:
        kept: list[RoleCredentials] = []
        lock = asyncio.Lock()

        async def keys() -> RoleCredentials | None:
            async with lock:
                now = datetime.fromtimestamp(self._clock(), UTC)
                if role is None:
                    return None
                if not kept or kept[0].expires_at - now < _RENEW:
                    kept[:] = [await self._ec2.credentials(role, instance_id, region)]
                return kept[0]

        return keys

    def _powered_off(self, machine: Machine, command: str) -> None:
        if not machine.is_alive:
            return
        machine.reason = f"{command} inside"
        if machine.terminates_on_shutdown:
            self._spawn(self._power_off(machine))
        else:
            self._note(machine, f"{command} inside: stopped, not terminated")
            self._spawn(self._stop_inside(machine))

    async def _power_off(self, machine: Machine) -> None:
        """EC2's part of a shutdown from inside: the instance is terminated by it."""
        region = machine.face.region
        await self._ec2.change("TerminateInstances", machine.instance_id, region)
        await self._terminate(machine)

    async def _stop_inside(self, machine: Machine) -> None:
        await self._enter(machine, MachineState.STOPPING)
        await machine.shut_down(self._settings.grace_seconds)
        await self._ec2.change("StopInstances", machine.instance_id, machine.face.region)
        await self._enter(machine, MachineState.STOPPED)

    def _terminate_soon(self, instance_id: str, reason: str) -> None:
        machine = self.machines.get(instance_id)
        if machine is None:
            # terminated before its launch was told of to its end
            self._spawn(self._terminate_late(instance_id, reason))
        elif machine.is_alive:
            machine.reason = reason
            self._spawn(self._terminate(machine))

    async def _terminate_late(self, instance_id: str, reason: str) -> None:
        for _ in range(100):
            await asyncio.sleep(0.05)
            if instance_id in self.machines:
                self._terminate_soon(instance_id, reason)
                return

    async def _terminate(self, machine: Machine) -> None:
        if not machine.is_alive:
            return
        await self._enter(machine, MachineState.SHUTTING_DOWN)
        await machine.shut_down(self._settings.grace_seconds)
        await machine.dispose()
        await self._enter(machine, MachineState.TERMINATED)

    async def _interrupt(self, machine: Machine, seconds: float) -> None:
        machine.face.interruption = spot_notice(self._clock(), seconds, "terminate")
        self._note(machine, f"spot notice: {seconds:g} s")
        await self._publish(
            machine,
            "EC2 Spot Instance Interruption Warning",
            {"instance-id": machine.instance_id, "instance-action": "terminate"},
        )
        await asyncio.sleep(seconds)
        if machine.is_alive:
            machine.reason = "spot interruption"
            await self._power_off(machine)

    async def _lose(self, machine: Machine) -> None:
        await machine.pull_plug()
        await self._ec2.change("TerminateInstances", machine.instance_id, machine.face.region)
        await self._enter(machine, MachineState.SHUTTING_DOWN)
        await machine.dispose()
        await self._enter(machine, MachineState.TERMINATED)

    async def _remove(self, machine: Machine) -> None:
        await machine.pull_plug()
        await machine.dispose()
        if machine.state is not MachineState.TERMINATED:
            machine.state = MachineState.TERMINATED
            machine.reason = machine.reason or "the local cloud ended"

    # -- telling -------------------------------------------------------------------------------

    async def _enter(self, machine: Machine, state: MachineState) -> None:
        machine.state = state
        machine.changes.append((self._clock(), state))
        self._note(machine, machine.reason if state is MachineState.SHUTTING_DOWN else "")
        await self._publish(
            machine,
            "EC2 Instance State-change Notification",
            {"instance-id": machine.instance_id, "state": str(state)},
        )

    async def _publish(self, machine: Machine, detail_type: str, detail: Mapping[str, Any]) -> None:
        face = machine.face
        arn = f"arn:aws:ec2:{face.region}:{face.account}:instance/{face.instance_id}"
        try:
            await self._ec2.publish(detail_type, detail, [arn], face.region)
        except Ec2Error as error:
            _log.warning("%s", error)

    def _note(self, machine: Machine, text: str) -> None:
        event: Event = {
            "time": self._clock(),
            "kind": "instance",
            "instance_id": machine.instance_id,
            "state": str(machine.state),
            "instance_type": machine.face.instance_type,
            "zone": machine.face.zone,
            "capacity_type": machine.face.lifecycle,
            "text": text,
        }
        for listener in tuple(self._listeners):
            listener(event)

    def _running(self, instance_id: str) -> Machine:
        machine = self.machines.get(instance_id)
        if machine is None or machine.state is not MachineState.RUNNING:
            running = [
                one.instance_id
                for one in self.machines.values()
                if one.state is MachineState.RUNNING
            ]
            msg = f"no instance {instance_id} runs; running: {', '.join(running) or 'none'}"
            raise UnknownInstanceError(msg)
        return machine

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await work
            except Exception:  # noqa: BLE001  told, so that the local cloud goes on
                _log.exception("the hypervisor failed")


def architecture_of(instance_type: str) -> str:
    """`arm64` for Graviton types (a `g` after the generation, or a1), else `x86_64`."""
    family = instance_type.partition(".")[0]
    generation = family.lstrip("abcdefghijklmnopqrstuvwxyz")
    is_arm = family == "a1" or "g" in generation.lstrip("0123456789")
    return "arm64" if is_arm else "x86_64"
