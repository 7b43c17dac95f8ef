"""One local instance: its disk, its metadata service and its processes.

Lifecycle: `power_on` makes the disk and runs the user data below `machine_init.py` -> `shut_down`
is the operating system's shutdown (SIGTERM, SIGKILL after a grace), `pull_plug` what a crash of the
host is -> `dispose` removes the disk, as a volume that is deleted on termination.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from runsfleet_cli.local.hypervisor.image import Disk, Tools, make_disk
from runsfleet_cli.local.hypervisor.metadata import InstanceFace, MetadataService

_INIT_FILE = Path(__file__).with_name("machine_init.py")
# EC2 keeps the last 64 KB of the console; a person reads the last lines
CONSOLE_LINES = 400
_LINE_LIMIT = 1_048_576
# the processes are killed by then; what is waited for is the kernel
_KILL_SECONDS = 10.0
_AGENT = b"runsfleet_runtime.agent"
# GitHub's own, and the stand-in's
_RUNNERS = (b"Runner.Listener", b"actions_runner.listener")
# what a program printed for a terminal that is none
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class MachineState(StrEnum):
    """EC2's words."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


@dataclass(slots=True)
class Machine:
    """See the module.

    Args:
        face: What it is.
        terminates_on_shutdown: Whether a shutdown from inside ends it for good.
        root: Its disk.
        tools: What its image brings.
        environment: Of its processes, beside what its disk says.
        metadata: Its metadata service.
        on_power_off: Called when a command inside asks for power-off.
        state: EC2's state of it.
        reason: Why it was shut down, for people.
        changes: When it came into which state, Unix seconds.
    """

    face: InstanceFace
    terminates_on_shutdown: bool
    root: Path
    tools: Tools
    environment: Mapping[str, str]
    metadata: MetadataService
    on_power_off: Callable[[Machine, str], None]
    state: MachineState = MachineState.PENDING
    reason: str = ""
    changes: list[tuple[float, MachineState]] = field(default_factory=list)
    console: deque[str] = field(default_factory=lambda: deque(maxlen=CONSOLE_LINES))
    _process: asyncio.subprocess.Process | None = None
    _reader: asyncio.Task[None] | None = None
    _doorbell: int | None = None
    # a machine that is switched on and off at once is first one, then the other
    _switch: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def instance_id(self) -> str:
        """`i-...`."""
        return self.face.instance_id

    @property
    def pid(self) -> int | None:
        """Its first process, while it runs."""
        return self._process.pid if self._process is not None else None

    @property
    def is_alive(self) -> bool:
        """Whether it is neither terminated nor about to be."""
        return self.state not in {MachineState.SHUTTING_DOWN, MachineState.TERMINATED}

    async def power_on(self) -> None:
        """Boot: serve metadata, run the user data."""
        if not self.face.user_data.strip():
            self.console.append("cloud-init: there is no user data")
            return
        if self.face.user_data.startswith("<"):  # EC2Launch's tags
            reason = "the local cloud plays Linux only, and this is an instance of Windows"
            self.console.append(reason)
            self.on_power_off(self, reason)
            return
        async with self._switch:
            if self.is_alive:
                await self._boot()

    async def _boot(self) -> None:
        disk = await asyncio.to_thread(make_disk, self.root, self.face.user_data, self.tools)
        self._watch_doorbell(disk)
        environment = disk.environment() | dict(self.environment)
        environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = self.metadata.url
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", str(_INIT_FILE), str(disk.user_data)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=disk.home,
            env=environment,
            start_new_session=True,
            limit=_LINE_LIMIT,
        )
        self._reader = asyncio.ensure_future(self._read_console(process))

    async def shut_down(self, grace: float) -> None:
        """Have the operating system shut down.

        Args:
            grace: Seconds between SIGTERM and SIGKILL.
        """
        await self._end(f"stop {grace}\n".encode(), grace + _KILL_SECONDS)

    async def pull_plug(self) -> None:
        """Kill everything at once."""
        await self._end(b"stop 0\n", _KILL_SECONDS)

    async def dispose(self) -> None:
        """Close what is open and remove the disk; the console stays."""
        await self.metadata.stop()
        if self._doorbell is not None:
            asyncio.get_running_loop().remove_reader(self._doorbell)
            os.close(self._doorbell)
            self._doorbell = None
        await asyncio.to_thread(shutil.rmtree, self.root, ignore_errors=True)

    def signal_agent(self, number: int) -> bool:
        """Signal the agent; SIGKILL as an out-of-memory killer would. False if none runs."""
        return self._signal((_AGENT,), number)

    def kill_runner(self) -> bool:
        """Kill GitHub's runner; False if none runs."""
        return self._signal(_RUNNERS, signal.SIGKILL)

    def _signal(self, marks: tuple[bytes, ...], number: int) -> bool:
        lines = {pid: _command_line(pid) for pid in processes_below(self.pid)}
        found = [pid for pid, line in lines.items() if any(mark in line for mark in marks)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(found)

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        face = self.face
        return {
            "instance_id": face.instance_id,
            "state": str(self.state),
            "instance_type": face.instance_type,
            "zone": face.zone,
            "capacity_type": face.lifecycle,
            "image_id": face.image_id,
            "private_ip": face.private_ip,
            "launched_at": face.launched_at,
            "changes": [{"time": moment, "state": str(state)} for moment, state in self.changes],
            "reason": self.reason,
            "interruption": face.interruption,
            "tags": dict(face.tags),
            "console": list(self.console),
        }

    def _watch_doorbell(self, disk: Disk) -> None:
        # for reading and writing, so that whoever rings never waits for a listener
        self._doorbell = os.open(disk.doorbell, os.O_RDWR | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._doorbell, self._rung)

    def _rung(self) -> None:
        if self._doorbell is None:
            return
        with contextlib.suppress(BlockingIOError):
            for line in os.read(self._doorbell, 4_096).decode(errors="replace").splitlines():
                self.console.append(f"systemd: {line.strip()}")
                # `shutdown -c` takes a planned one back; here they are not planned but done
                if "-c" not in line.split():
                    self.on_power_off(self, line.strip())

    async def _read_console(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        async for raw in process.stdout:
            self.console.append(_CONTROL.sub("", raw.decode("utf-8", "replace").rstrip()))

    async def _end(self, word: bytes, patience: float) -> None:
        async with self._switch:
            await self._end_processes(word, patience)

    async def _end_processes(self, word: bytes, patience: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(word)
                await process.stdin.drain()
        try:
            await asyncio.wait_for(process.wait(), patience)
        except TimeoutError:
            for pid in (*processes_below(process.pid), process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader


def processes_below(pid: int | None) -> list[int]:
    """All descendants of a process (Linux; elsewhere none are found)."""
    if pid is None:
        return []
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
    below: set[int] = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(below - {pid})


def _command_line(pid: int) -> bytes:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""
