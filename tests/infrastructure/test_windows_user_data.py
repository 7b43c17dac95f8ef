"""The first script of a Windows instance: rendered, parsed, and its order checked; not run."""

from __future__ import annotations

import re
from pathlib import Path

import aws_cdk as cdk
import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from runsfleet_constructs import GitHubApp, RunnerFleet, RunnerImage, WindowsPython
from runsfleet_constructs.runner_image import WINDOWS_PYTHON
from runsfleet_constructs.user_data import MAX_BYTES, AgentDownload
from runsfleet_constructs.windows_user_data import render_windows_user_data
from runsfleet_runtime.contract.environment import AgentEnvironment, WatchdogEnvironment
from tests.infrastructure.templates import Template, flat, synthesize
from tests.powershell import commands, parse

ENVIRONMENT = AgentEnvironment(
    fleet="dev",
    platform="windows-x64",
    region="eu-west-1",
    termination_queue_url="https://sqs.eu-west-1.amazonaws.com/1/it's",
    instance_role_id="AROAEXAMPLE",
    runners_table="runners",
    runner_bucket="cache",
    log_group="/runsfleet/dev",
)


class PowerShellFile(SingleFileSnapshotExtension):
    """A snapshot that reads as what it is."""

    _write_mode = WriteMode.TEXT
    file_extension = "ps1"


def script(*, python: WindowsPython | None = WINDOWS_PYTHON, setup: tuple[str, ...] = ()) -> str:
    """Render the script."""
    return render_windows_user_data(
        environment=ENVIRONMENT,
        agent=AgentDownload(
            bucket="assets",
            key="a key.zip",
            sha256="a" * 64,
            region="eu-west-1",
            url_suffix="amazonaws.com",
        ),
        watchdog=WatchdogEnvironment(watchdog_lifetime_seconds=30000),
        python=python,
        setup_commands=setup,
    )


def powershell(text: str) -> str:
    """Return what EC2Launch gives to PowerShell: what is between the tags."""
    found = re.fullmatch(
        r"<powershell>\n(.*)\n</powershell>\n<persist>true</persist>\n", text, re.DOTALL
    )
    assert found is not None
    return found[1]


def watchdog(text: str) -> str:
    """Return the script of the scheduled task, which is a text within the first script."""
    found = re.search(r"-Value @'\n(.*?)\n'@\n", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_script_of_windows(snapshot: SnapshotAssertion) -> None:
    """The whole script is what the snapshot says."""
    assert script(setup=("choco install -y jq",)) == snapshot.use_extension(PowerShellFile)


@pytest.mark.parametrize("setup", [(), ("choco install -y jq", "if ($true) {\n  'two lines'\n}")])
@pytest.mark.parametrize("python", [WINDOWS_PYTHON, None])
def test_script_and_its_watchdog_are_powershell(
    setup: tuple[str, ...], python: WindowsPython | None
) -> None:
    """A script that does not parse would run not even its end, so a real parser reads both."""
    text = powershell(script(python=python, setup=setup))
    assert not re.search(r"#[A-Z]+#", text)
    parse(text)
    parse(watchdog(text))


def test_every_way_out_ends_the_instance() -> None:
    """All of the script stands in one `try` whose `finally` shuts down, by one way or another."""
    text = powershell(script())
    (body,) = [n for n in parse(text).named_children if n.type == "statement_list"]
    statements = [node.type for node in body.named_children if node.type != "comment"]
    assert statements == ["pipeline"] * 4 + ["try_statement"]
    finale = text[text.rindex("} finally {") :]
    assert commands(finale.removeprefix("} finally {").rpartition("}")[0])[-1] == "Stop-Computer"
    assert 'catch { & "$env:SystemRoot\\System32\\shutdown.exe" /s /f /t 0 }' in finale
    assert text.index("$ErrorActionPreference = 'Stop'") < text.index("try {")


def test_the_watchdog_comes_before_anything_that_may_fail() -> None:
    """The task is registered before variables, Python, setup commands and the agent."""
    text = powershell(script(setup=("setup-of-mine",)))
    order = [
        "Register-ScheduledTask -Force",
        "$env:RUNSFLEET_FLEET",
        "$python = Find-Python",
        "setup-of-mine",
        "Read-S3Object",
        "Start-Process",
        "} finally {",
    ]
    places = [text.index(mark) for mark in order]
    assert places == sorted(places)


def test_an_agent_that_died_is_spoken_for() -> None:
    """Within 120 s, in the agent's own environment, and before the instance ends."""
    text = powershell(script())
    (died,) = re.findall(
        r"if \(\$status -notin 0, -1073741510\) \{\n(.*?)\n  \}\n", text, re.DOTALL
    )
    assert '"-m runsfleet_runtime.agent.last_words $status"' in died
    assert "$words.WaitForExit(120000)" in died
    assert commands(died) == ["Write-Output", "Start-Process"]
    order = ["$status = $process.ExitCode", "last_words $status", "} finally {"]
    places = [text.index(mark) for mark in order]
    assert places == sorted(places)


def test_the_watchdog_needs_nothing_of_the_script() -> None:
    """It calls what Windows has, holds its limits as numbers, and ends the instance itself."""
    text = watchdog(powershell(script()))
    assert "RUNSFLEET_" not in text
    for limit in ("-gt 30000", "-gt 1800", "-gt 300"):
        assert limit in text
    assert r"'C:\runsfleet\heartbeat'" in text
    assert "shutdown.exe" in text
    known = {
        *("Get-CimInstance", "Get-Date", "Get-Item", "Test-Path"),
        *("Remove-Item", "New-Item", "Add-Content", "Out-Null"),
    }
    assert set(commands(text)) <= known


def test_nothing_is_used_before_its_digest_is_right() -> None:
    """Python and the agent are compared with their SHA-256 before they are unpacked."""
    text = powershell(script())
    for fetch in ("Invoke-WebRequest", "Read-S3Object"):
        rest = text[text.index(fetch) :]
        assert rest.index("Assert-Digest") < rest.index("Expand-Package")
    assert f"$env:RUNSFLEET_PYTHON_SHA256 = '{WINDOWS_PYTHON.sha256}'" in text
    assert "Get-FileHash -Algorithm SHA256" in text
    assert "Tls12" in text


def test_an_image_that_is_sure_to_have_python_names_none() -> None:
    """Without a Python to install, an image that lacks one ends with the reason."""
    text = powershell(script(python=None))
    assert "$env:RUNSFLEET_PYTHON_URL =" not in text
    assert "the fleet names none to install" in text


def test_values_are_literals() -> None:
    """A quote in a value neither ends the text nor runs anything."""
    assert "'https://sqs.eu-west-1.amazonaws.com/1/it''s'" in script()


def test_a_setup_command_that_fails_is_a_failure() -> None:
    """PowerShell goes on after a program that fails, so its exit code is looked at each time."""
    text = script(setup=("first.exe", "second.exe"))
    assert text.count('throw "a setup command ended with $LASTEXITCODE"') == 2


def test_script_fits_into_user_data() -> None:
    """A third of EC2's limit is left for setup commands; a script that needs more is refused."""
    assert len(script().encode()) < MAX_BYTES * 2 / 3
    with pytest.raises(ValueError, match="move setup_commands into an image"):
        script(setup=("#" * MAX_BYTES,))


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [
        ("http://files.example.com/p.zip", "a" * 64, "url must be an https address"),
        ("https://files.example.com/p.zip", "A" * 64, "64 hexadecimal digits in lower case"),
    ],
)
def test_a_python_that_cannot_be_trusted_is_refused(url: str, sha256: str, message: str) -> None:
    """Neither an open way nor a digest that could never match is accepted."""
    with pytest.raises(ValueError, match=message):
        WindowsPython(url=url, sha256=sha256)


def fleet(folder: Path, image: RunnerImage) -> Template:
    """Return the template of a fleet with that image."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Fleet")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        RunnerFleet(stack, "Runners", github=github, image=image)

    return synthesize(folder, build)["Fleet"]


def test_a_fleet_without_windows_has_no_template_and_says_so(tmp_path: Path) -> None:
    """With no image for it, Windows is no platform of the fleet, and its labels are refused."""
    linux = RunnerImage(
        linux_arm64="ami-1", linux_x64="ami-2", root_device="/dev/xvda", windows_x64=None
    )
    template = fleet(tmp_path, linux)
    assert len(template.of_type("AWS::EC2::LaunchTemplate")) == 2
    platforms = template.variables("Runners/Intake")["RUNSFLEET_PLATFORMS"]
    assert platforms == '["linux-arm64","linux-x64"]'


def test_an_image_of_ones_own_keeps_its_root_device(tmp_path: Path) -> None:
    """Template and dispatch name the root device of each image."""
    own = RunnerImage(
        linux_arm64="ami-1",
        linux_x64="ami-2",
        root_device="/dev/xvda",
        windows_x64="ami-3",
        windows_root_device="/dev/sda2",
        windows_python=None,
    )
    template = fleet(tmp_path, own)
    windows = template.at("WindowsX64/Resource", "AWS::EC2::LaunchTemplate")["Properties"]
    data = windows["LaunchTemplateData"]
    assert data["ImageId"] == "ami-3"
    assert data["BlockDeviceMappings"][0]["DeviceName"] == "/dev/sda2"
    targets = flat(template.variables("Runners/Dispatch")["RUNSFLEET_LAUNCH_TARGETS"])
    assert targets.count('"root_device":"/dev/xvda"') == 2
    assert targets.count('"root_device":"/dev/sda2"') == 1
    assert "RUNSFLEET_PYTHON_URL =" not in flat(data["UserData"])
