"""The Windows side through the platform's interface; what only Windows can do is recorded."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import signal
import stat
import subprocess
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from runsfleet_runtime.agent.clock import SignalClock
from runsfleet_runtime.agent.errors import PackageError
from runsfleet_runtime.agent.hooks import (
    COMPLETED_VARIABLE,
    STARTED_VARIABLE,
    read_moment,
)
from runsfleet_runtime.agent.lifecycle import Limits, ending
from runsfleet_runtime.agent.linux import Linux
from runsfleet_runtime.agent.package import TAR, unpack
from runsfleet_runtime.agent.platforms import ZIP, choose_system
from runsfleet_runtime.agent.ports import Platform
from runsfleet_runtime.agent.process import Launch, RunnerEnd, RunnerRoom
from runsfleet_runtime.agent.vitals import Vitals
from runsfleet_runtime.agent.windows import CREATE_NEW_PROCESS_GROUP, CTRL_BREAK_EVENT, Windows
from runsfleet_runtime.agent.windows_hooks import quoted, write_hooks
from runsfleet_runtime.agent.windows_kernel import (
    ExtendedLimits,
    JobObjects,
    MemoryStatus,
    available_memory,
)
from runsfleet_runtime.agent.windows_package import extract_zip
from runsfleet_runtime.contract.environment import AgentEnvironment
from runsfleet_runtime.contract.messages import ReportStatus
from tests.powershell import commands, parse

ROOT = PureWindowsPath(r"C:\runsfleet\runner")


class Trees:
    """Holds process trees, or refuses to."""

    def __init__(self, *, holds: bool = True) -> None:
        self.holds = holds
        self.held: list[int] = []
        self.ended: list[int] = []

    def hold(self, pid: int) -> bool:
        self.held.append(pid)
        return self.holds

    def end(self, pid: int) -> bool:
        self.ended.append(pid)
        if self.holds:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        return self.holds


class Started(subprocess.Popen[bytes]):
    """A process of this system that takes CTRL_BREAK as one of Windows would."""

    def send_signal(self, sig: int) -> None:
        super().send_signal(signal.SIGINT if sig == CTRL_BREAK_EVENT else sig)


class Machine:
    """Starts what Windows would start, by a shell script in the place of ``run.cmd``."""

    def __init__(self, *, holds: bool = True) -> None:
        self.trees = Trees(holds=holds)
        self.started: list[dict[str, Any]] = []
        self.commands: list[tuple[str, ...]] = []

    def popen(self, argv: Sequence[str], **options: Any) -> Started:
        self.started.append({"argv": list(argv), **options})
        options.pop("creationflags")
        script = Path(options["cwd"], "run.sh")
        return Started(["sh", str(script)], start_new_session=True, **options)

    def run(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self.commands.append(tuple(argv))

    def windows(self, **environ: str) -> Windows:
        return Windows(
            environ,
            trees=self.trees,
            popen=self.popen,
            run=self.run,
            memory=lambda: 5,
        )


class Healthy:
    """A machine that lacks nothing."""

    def vitals(self) -> Vitals:
        return Vitals()


def run(machine: Machine, directory: Path, script: str, *, limit: float = 30.0) -> RunnerEnd:
    """Run a stand-in for the runner in a room on Windows."""
    (directory / "run.sh").write_text(script)
    state = directory / "state"
    state.mkdir()
    room = RunnerRoom(machine.windows(), SignalClock(), machine=Healthy(), grace=3.0)
    return room.run(
        Launch(
            root=directory,
            state=state,
            environment={"PATH": os.environ["PATH"], "STATE": str(state)},
        ),
        Limits(max_runtime=limit, idle_timeout=30.0),
        on_started=lambda _: None,
    )


JOB = """\
echo 'Listening for Jobs'
printf 'TIME=%s\\r\\nGITHUB_RUN_ID=7\\r\\nGITHUB_RUN_ATTEMPT=1\\r\\nGITHUB_REPOSITORY=o/r\\r\\n\
GITHUB_JOB=j\\r\\n' "$(date +%s.%N)" > "$STATE/started"
"""


def test_a_job_runs_to_its_end(tmp_path: Path) -> None:
    """Started as a group of its own, held, seen by what the hooks wrote, and cleaned up."""
    machine = Machine()
    end = run(machine, tmp_path, JOB + 'cp "$STATE/started" "$STATE/completed"\n')
    assert ending(end.ended) is ReportStatus.SUCCESS
    assert end.started is not None
    assert end.started.job is not None
    assert (end.started.job.run_id, end.started.job.job) == (7, "j")
    (started,) = machine.started
    assert started["argv"][:3] == ["cmd.exe", "/d", "/c"]
    assert started["argv"][3].endswith("run.cmd")
    assert started["creationflags"] == CREATE_NEW_PROCESS_GROUP
    assert started["stdin"] == subprocess.DEVNULL
    assert machine.trees.held == machine.trees.ended


def test_a_job_past_its_time_is_asked_by_ctrl_break_and_cancels(tmp_path: Path) -> None:
    """The runner is asked first, and what it does on that is its own affair."""
    machine = Machine()
    script = JOB + "trap 'echo cancelled; exit 0' INT\nwhile :; do sleep 0.1; done\n"
    end = run(machine, tmp_path, script, limit=0.5)
    assert ending(end.ended) is ReportStatus.TIMEOUT
    assert end.last_lines[-1] == "cancelled"
    assert machine.commands == []


def test_a_runner_that_does_not_stop_is_ended_with_its_tree(tmp_path: Path) -> None:
    """After the grace the tree is ended, the children that ignore everything included."""
    machine = Machine()
    script = JOB + "trap '' INT\nsleep 60 & echo child=$!\nwhile :; do sleep 0.1; done\n"
    end = run(machine, tmp_path, script, limit=0.2)
    assert ending(end.ended) is ReportStatus.TIMEOUT
    child = int(next(line for line in end.last_lines if line.startswith("child=")).split("=")[1])
    deadline = time.monotonic() + 5
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_tree_that_is_not_held_is_ended_by_taskkill(tmp_path: Path) -> None:
    """Where there is no job object, the next best way is taken while the head still lives."""
    machine = Machine(holds=False)
    script = "trap '' INT\nexec sleep 60\n"
    (tmp_path / "run.sh").write_text(script)
    windows = machine.windows()
    process = windows.start(["x"], cwd=tmp_path, env={}, account=None)
    windows.kill(process)
    assert machine.commands == [("taskkill", "/f", "/t", "/pid", str(process.pid))]
    assert process.returncode == -signal.SIGKILL
    assert process.stdout is not None
    process.stdout.close()


def test_a_group_that_cannot_be_asked_is_no_failure(tmp_path: Path) -> None:
    """Without a console CTRL_BREAK cannot be sent; the kill after the grace still comes."""

    class Unreachable(Started):
        def send_signal(self, sig: int) -> None:
            if sig == CTRL_BREAK_EVENT:
                raise OSError(6, "the handle is invalid")
            super().send_signal(sig)

    process = Unreachable(["sleep", "60"], start_new_session=True)
    windows = Machine().windows()
    windows.interrupt(process)
    windows.kill(process)
    assert process.returncode == -signal.SIGKILL


def test_power_is_switched_off_by_force() -> None:
    """Windows is shut down at once, whatever programs say."""
    machine = Machine()
    machine.windows().power_off()
    assert machine.commands == [("shutdown", "/s", "/f", "/t", "0")]


def test_commands_of_the_runner_are_paths_of_windows() -> None:
    """`run.cmd` runs it; registering leaves `cmd.exe` out, which would read labels its own way."""
    windows = Windows({}, trees=Trees())
    root: Any = ROOT
    assert windows.run_command(root) == ["cmd.exe", "/d", "/c", r"C:\runsfleet\runner\run.cmd"]
    assert windows.configure_command(root) == [
        r"C:\runsfleet\runner\bin\Runner.Listener.exe",
        "configure",
    ]


def test_the_job_runs_as_the_agents_user(tmp_path: Path) -> None:
    """No account is made and nothing changes hands, whatever name is configured."""
    windows = Windows({}, trees=Trees())
    assert windows.account("runner") is None
    before = tmp_path.stat()
    windows.hand_over(tmp_path, None)
    assert tmp_path.stat() == before


def test_the_job_does_not_inherit_what_is_the_agents() -> None:
    """Names have no case; the agent's certificates go, an administrator's stay."""
    base = {
        "Path": r"C:\Windows",
        "runsfleet_fleet": "dev",
        "RUNSFLEET_REGION": "x",
        "PythonPath": r"C:\runsfleet\agent",
        "PYTHONUTF8": "1",
        "SSL_CERT_FILE": r"C:\runsfleet\agent\botocore\cacert.pem",
    }
    windows = Windows({}, trees=Trees())
    assert windows.environment(base, None) == {"Path": r"C:\Windows"}
    own = {**base, "SSL_CERT_FILE": r"D:\company.pem"}
    assert windows.environment(own, None)["SSL_CERT_FILE"] == r"D:\company.pem"


# hooks


@pytest.mark.parametrize(
    ("hook", "calls"),
    [
        (None, []),
        (r"C:\it's mine\hook.ps1", ["$shell.Source"]),
        ("C:/hooks/hook.sh", ["bash"]),
        (r"C:\hooks\hook.cmd", [r"'C:\hooks\hook.cmd'"]),
    ],
)
def test_hooks_are_powershell(tmp_path: Path, hook: str | None, calls: list[str]) -> None:
    """Both scripts parse, whatever the paths hold, and call the user's own hook."""
    state = tmp_path / "it's the \u2018state\u2019"
    hooks = {STARTED_VARIABLE: hook, COMPLETED_VARIABLE: hook} if hook else {}
    scripts = write_hooks(tmp_path, state, hooks)
    assert set(scripts) == {STARTED_VARIABLE, COMPLETED_VARIABLE}
    for script in scripts.values():
        assert script.suffix == ".ps1"
        assert script.read_bytes().startswith(b"\xef\xbb\xbf")
        text = script.read_text(encoding="utf-8-sig")
        parse(text)
        assert "Move-Item" in commands(text)
        for call in calls:
            assert f"& {call}" in text
        assert quoted(str(state / script.stem.removeprefix("job-"))) in text


def test_the_end_is_recorded_after_the_users_hook_even_if_that_fails(tmp_path: Path) -> None:
    """A start is recorded first and an end last, the latter whatever the user's hook does."""
    hooks = {STARTED_VARIABLE: "C:/a.ps1", COMPLETED_VARIABLE: "C:/b.ps1"}
    started, completed = (
        script.read_text(encoding="utf-8-sig")
        for script in write_hooks(tmp_path, tmp_path / "state", hooks).values()
    )
    body = started[started.index("$status = 0") :]
    assert body.index("Write-Moment") < body.index("a.ps1")
    body = completed[completed.index("$status = 0") :]
    assert body.index("b.ps1") < body.index("finally") < body.index("Write-Moment")


def test_what_powershell_writes_is_read(tmp_path: Path) -> None:
    """Lines that end as Windows ends them, and a time without a fraction, are understood."""
    file = tmp_path / "started"
    file.write_bytes(f"TIME={int(time.time())}\r\nGITHUB_RUN_ID=7\r\n".encode())
    moment = read_moment(file)
    assert moment is not None
    assert abs(moment.at - time.time()) < 5


@pytest.mark.parametrize("text", ["it's", "\u2018a\u2019", "$(Stop-Computer)", 'a"b`n', ""])
def test_quoted_text_is_one_literal(text: str) -> None:
    """Nothing in a quoted text is a variable, a command or the end of it."""
    assert commands(f"$x = {quoted(text)}") == []


# the kernel


class Kernel:
    """Records calls; each refusal is named."""

    def __init__(self, *refuses: str) -> None:
        self.refuses = refuses
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.flags = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append((name, arguments))
            if name == "SetInformationJobObject":
                self.flags = arguments[2]._obj.BasicLimitInformation.LimitFlags
            if name == "GlobalMemoryStatusEx":
                arguments[0]._obj.ullAvailPhys = 123
            return 0 if name in self.refuses else len(self.calls)

        return call

    def names(self) -> list[str]:
        """The functions that were called."""
        return [name for name, _ in self.calls]


def test_structures_have_the_sizes_of_windows_headers() -> None:
    """144 and 64 bytes on a system of 64 bits: what the functions expect to be told."""
    assert ctypes.sizeof(ExtendedLimits) == 144
    assert ctypes.sizeof(MemoryStatus) == 64


def test_a_tree_is_held_by_a_job_that_ends_it_when_closed() -> None:
    """The process joins a job object that kills on close; ending terminates and closes it."""
    kernel = Kernel()
    jobs = JobObjects(kernel)
    assert jobs.hold(42)
    assert kernel.flags == 0x2000
    assert dict(kernel.calls)["OpenProcess"][2] == 42
    assert jobs.end(42)
    assert kernel.names()[-2:] == ["TerminateJobObject", "CloseHandle"]
    assert not jobs.end(42)


@pytest.mark.parametrize(
    "refused",
    [
        "CreateJobObjectW",
        "OpenProcess",
        "SetInformationJobObject",
        "AssignProcessToJobObject",
    ],
)
def test_a_refusal_of_windows_is_told_and_leaves_no_handle(refused: str) -> None:
    """What could not be held is not ended as if it were, and what was opened is closed."""
    kernel = Kernel(refused)
    jobs = JobObjects(kernel)
    assert not jobs.hold(42)
    opened = {"CreateJobObjectW", "OpenProcess"} - {refused}
    assert kernel.names().count("CloseHandle") == len(opened)
    assert not jobs.end(42)


def test_another_system_has_no_job_objects_and_says_so() -> None:
    """Where there is no Windows kernel nothing is held, and nothing fails."""
    assert JobObjects().hold(42) is False
    assert available_memory() is None


def test_memory_is_what_windows_says() -> None:
    """The available physical memory; unknown when the call fails."""
    assert available_memory(Kernel()) == 123
    assert available_memory(Kernel("GlobalMemoryStatusEx")) is None
    assert Machine().windows().available_memory() == 5


# the package


def package(path: Path, *members: zipfile.ZipInfo | str) -> Path:
    """Write a zip with these members."""
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "content")
    return path


def test_a_zip_is_unpacked(tmp_path: Path) -> None:
    """The package of Windows holds `run.cmd` where that of Linux holds `run.sh`."""
    archive = package(tmp_path / "p.zip", "run.cmd", "bin/Runner.Listener.exe")
    unpack(archive, tmp_path / "runner", ZIP)
    assert (tmp_path / "runner" / "bin" / "Runner.Listener.exe").read_text() == "content"
    with pytest.raises(PackageError, match=r"holds no run\.cmd"):
        unpack(package(tmp_path / "q.zip", "run.sh"), tmp_path / "runner", ZIP)


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/evil", "C:/evil", "C:evil", r"a\..\..\evil", "a:stream", "//h/s"],
)
def test_nothing_in_a_zip_leads_out(tmp_path: Path, name: str) -> None:
    """Paths that leave the root on Windows are refused before anything is written."""
    info = zipfile.ZipInfo("run.cmd")
    info.filename = name  # as it is: the constructor would mend it
    archive = package(tmp_path / "p.zip", "run.cmd", info)
    root = tmp_path / "runner"
    root.mkdir()
    with pytest.raises(PackageError, match="has no place in it"):
        extract_zip(archive, root)
    assert list(root.iterdir()) == []


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    """A member that would become a link elsewhere is no part of a runner."""
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(PackageError, match="'link' has no place"):
        unpack(package(tmp_path / "p.zip", link), tmp_path / "runner", ZIP)


def test_a_damaged_zip_is_told(tmp_path: Path) -> None:
    """What is no zip, and one whose content changed, is a package that cannot be used."""
    archive = tmp_path / "p.zip"
    archive.write_bytes(b"no zip")
    with pytest.raises(PackageError, match=r"cannot unpack p\.zip"):
        unpack(archive, tmp_path / "runner", ZIP)
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as made:
        made.writestr("run.cmd", "content")
    archive.write_bytes(body.getvalue().replace(b"content", b"c0ntent", 1))
    with pytest.raises(PackageError, match=r"cannot unpack p\.zip"):
        unpack(archive, tmp_path / "runner", ZIP)


# the choice


@pytest.mark.parametrize(
    ("platform", "kind", "home", "form"),
    [
        ("linux-arm64", Linux, "/opt/runsfleet", TAR),
        ("linux-x64", Linux, "/opt/runsfleet", TAR),
        ("windows-x64", Windows, "C:\\runsfleet", ZIP),
    ],
)
def test_the_platform_of_the_template_chooses_the_system(
    platform: str, kind: type, home: str, form: object
) -> None:
    """Processes, home and package belong together and are chosen in one place."""
    settings = AgentEnvironment(
        fleet="dev",
        platform=platform,
        region="eu-central-1",
        termination_queue_url="https://sqs/x",
        instance_role_id="AROA",
    )
    system = choose_system(settings, {})
    assert (type(system.platform), system.home, system.package_form) == (kind, home, form)
    chosen: Platform = system.platform
    assert chosen.account("root") is None
