"""The wheel works in another project's folder and environment, with nothing of this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runsfleet_constructs.bundling.agent import agent_fingerprint
from runsfleet_constructs.bundling.runtime import runtime_fingerprint

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "runsfleet_cli": ROOT / "runsfleet_cli",
    "runsfleet_constructs": ROOT / "runsfleet_constructs",
    "runsfleet_runtime": ROOT / "runtime" / "runsfleet_runtime",
}

A_USERS_APP = """
import json, sys
import aws_cdk as cdk
import runsfleet_constructs
from runsfleet_constructs import GitHubApp, RunnerFleet
from runsfleet_constructs.bundling.agent import agent_fingerprint
from runsfleet_constructs.bundling.runtime import runtime_fingerprint

app = cdk.App(outdir=sys.argv[1], analytics_reporting=False)
stack = cdk.Stack(app, "Theirs", env=cdk.Environment(account="123456789012", region="eu-central-1"))
RunnerFleet(stack, "Runners", github=GitHubApp.from_secret_name(stack, "App", "their/github-app"))
app.synth()
print(json.dumps([runsfleet_constructs.__file__, runtime_fingerprint(), agent_fingerprint()]))
"""


def _run(*command: str | Path, cwd: Path) -> str:
    """Run as a user would, who has no such checkout and no setting of ours."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ |= {"JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20", "UV_SYSTEM_CERTS": "1"}
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environ,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    _run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT),
        cwd=folder,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_ships_every_file_of_its_packages(wheel: Path) -> None:
    """Code, locks, scripts and type markers all travel; nothing else of the repository does."""
    tracked = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert shipped == tracked
    assert {f"{name}/py.typed" for name in PACKAGES} <= shipped


def test_a_users_app_synthesizes_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment and another folder, a fleet synthesizes with these assets."""
    environment = tmp_path / "environment"
    python = environment / "bin" / "python"
    _run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=tmp_path)
    _run(
        *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python),
        # the versions that were locked, so that a release of somebody else breaks nothing here
        *("--constraint", _versions(tmp_path), wheel, "pip"),
        cwd=tmp_path,
    )
    project = tmp_path / "their project"
    project.mkdir()
    (project / "app.py").write_text(A_USERS_APP)

    first = json.loads(_run(python, "app.py", "one", cwd=project))
    _run(python, "app.py", "two", cwd=project)

    installed, runtime, agent = first
    assert Path(installed).is_relative_to(environment)
    assert (runtime, agent) == (runtime_fingerprint(), agent_fingerprint())
    templates = [(project / run / "Theirs.template.json").read_bytes() for run in ("one", "two")]
    assert templates[0] == templates[1]


def _versions(folder: Path) -> Path:
    lock = (ROOT / "requirements" / "dev.lock").read_text().splitlines()
    pins = [line.removesuffix(" \\") for line in lock if line[:1].isalnum()]
    path = folder / "constraints.txt"
    path.write_text("\n".join(pins))
    return path
