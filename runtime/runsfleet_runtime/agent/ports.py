"""What the agent needs of the world, one small Protocol each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from runsfleet_runtime.agent.log_batches import LogEvent
    from runsfleet_runtime.agent.vitals import Vitals
    from runsfleet_runtime.contract.messages import RunnerReport


class Clock(Protocol):
    """Time, and whether the agent was told to stop; see :class:`.clock.SignalClock`."""

    @property
    def stop_requested(self) -> str | None:
        """What told the agent to stop; ``None`` while nothing did."""

    @property
    def stop_by(self) -> float | None:
        """By when all must be over, on the monotonic clock; ``None`` when nobody said."""

    def request_stop(self, reason: str, *, within: float | None = None) -> None:
        """Ask the agent to stop, perhaps within so many seconds."""

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps."""

    def now(self) -> datetime:
        """The time of day, UTC."""

    def wait(self, seconds: float) -> None:
        """Wait until woken, at most ``seconds``."""

    def wake(self) -> None:
        """End the present wait."""

    def pause(self, seconds: float) -> None:
        """Wait, or raise ``StopRequestedError``."""

    def check(self) -> None:
        """Raise ``StopRequestedError`` when told to stop."""

    def rest(self, seconds: float) -> None:
        """Wait whatever happens."""


class KnowsInstance(Protocol):
    """Tells which instance this is."""

    def instance_id(self) -> str:
        """The EC2 instance id; raises when it cannot be learned."""

    def launched_at(self) -> datetime | None:
        """When EC2 launched it; ``None`` when unknown."""


class WatchesNotices(Protocol):
    """Stops the agent's clock when EC2 announces that it takes the instance."""

    @property
    def rebalance(self) -> str | None:
        """When a rebalance was recommended; ``None`` for never."""

    def start(self) -> None:
        """Begin to watch."""

    def stop(self) -> None:
        """Watch no longer."""


class ReadsConfiguration(Protocol):
    """Reads what dispatch wrote for an instance."""

    def read(self, instance_id: str, *, now: float) -> str | None:
        """The configuration as JSON; ``None`` while there is none. ``now`` is epoch seconds."""


class CachesPackages(Protocol):
    """Keeps runner packages near the instances."""

    def fetch(self, key: str, target: Path, *, check: Callable[[], None]) -> bool:
        """Write the cached package to ``target``; False when it is not there."""

    def store(self, key: str, source: Path) -> None:
        """Put a package into the cache."""


class StoresFiles(Protocol):
    """Keeps files by a key."""

    def store(self, key: str, source: Path) -> None:
        """Put a file there."""


class DownloadsFiles(Protocol):
    """Gets files by their address."""

    def download(self, url: str, target: Path, *, check: Callable[[], None]) -> None:
        """Write what is at ``url`` to ``target``; ``check`` is called often and may raise."""


class SendsReports(Protocol):
    """Hands reports to the fleet."""

    def send(self, report: RunnerReport) -> None:
        """Send one report; raises when it was not accepted."""


class KeepsReports(Protocol):
    """Keeps reports that were not taken, for a sweep to find."""

    def keep(self, report: RunnerReport) -> None:
        """Keep one report; raises when it cannot."""


class TakesVitals(Protocol):
    """Knows how the machine is."""

    def vitals(self) -> Vitals:
        """Look now."""


class TakesLogs(Protocol):
    """A log service."""

    def put(self, stream: str, events: Sequence[LogEvent]) -> None:
        """Write one batch to a stream; raises when it was not taken."""


class ShipsLogs(Protocol):
    """Brings the agent's log to a log service; see :mod:`.log_shipper`. Never raises."""

    def begin(self, stream: str) -> None:
        """Start to send to a stream what was and will be logged."""

    def attach(self, stream: str, lines: Iterable[tuple[int, str]]) -> None:
        """Send lines (epoch milliseconds, text) to a stream of their own."""

    def close(self, seconds: float) -> bool:
        """Send what is left, within this time; whether all was sent."""


class EndsInstance(Protocol):
    """Ends an instance by its id."""

    def terminate(self, instance_id: str) -> None:
        """Terminate the instance; raises when it was not accepted."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the instance's operating system.

    Attributes:
        name: Its name.
        uid: Its number.
        gid: Number of its own group.
        groups: Numbers of its further groups.
        home: Its home directory.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class Platform(Protocol):
    """What differs between operating systems; ``linux.py`` is one."""

    def account(self, name: str) -> Account | None:
        """The user to run the job as, made if missing; ``None`` to run it as the agent's own."""

    def hand_over(self, path: Path, account: Account | None) -> None:
        """Give a file, or a directory with all in it, to that user."""

    def environment(self, base: Mapping[str, str], account: Account | None) -> dict[str, str]:
        """The environment of that user's processes, made of the agent's own."""

    def write_hooks(
        self, directory: Path, state: Path, user_hooks: Mapping[str, str]
    ) -> dict[str, Path]:
        """Write the scripts of the job hooks; the runner's variable -> script."""

    def run_command(self, root: Path) -> list[str]:
        """The command that runs the runner in ``root``."""

    def configure_command(self, root: Path) -> list[str]:
        """The command that registers the runner in ``root``."""

    def start(
        self, argv: list[str], *, cwd: Path, env: Mapping[str, str], account: Account | None
    ) -> subprocess.Popen[bytes]:
        """Start a command as the head of a group of its own, output and errors in one pipe."""

    def wait_for_exit(self, process: subprocess.Popen[bytes]) -> None:
        """Block until it has ended, yet keep its group's number reserved until ``kill``."""

    def interrupt(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the whole group to end, the way that lets a runner cancel its job."""

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End what is left of the group at once, and collect its head."""

    def available_memory(self) -> int | None:
        """Bytes of memory that programs may still get; ``None`` when unknown."""

    def power_off(self) -> None:
        """Shut the machine down; raises when the system refused."""
