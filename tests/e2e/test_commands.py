"""The commands as a person types them: a detached cloud, looked at, driven, and ended or killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runsfleet_cli.local.state import STATE_VARIABLE
from tests.e2e.clouds import PROJECT, gone, processes_of

Runsfleet = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def runsfleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runsfleet]:
    """Runs the command in this project, with a state of its own."""
    state = tmp_path_factory.mktemp("state")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runsfleet_cli.main", *arguments],
            cwd=PROJECT,
            env=os.environ | {STATE_VARIABLE: str(state)},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    yield run
    run("local", "down")


def test_without_a_cloud_every_command_says_what_to_do(runsfleet: Runsfleet) -> None:
    """One sentence with the cure, exit code 1, no traceback."""
    for words in (["calls"], ["page"], ["status"], ["fault", "list"], ["fault", "spot-notice"]):
        done = runsfleet("local", *words)
        assert done.returncode == 1, words
        assert "no local cloud is up here" in done.stderr
        assert "Traceback" not in done.stderr
    done = runsfleet("local", "run", "no-such-file.yml")
    assert (done.returncode, done.stderr) == (1, "runsfleet: there is no file no-such-file.yml\n")
    assert runsfleet("local", "down").returncode == 0


def test_a_detached_cloud_is_found_driven_and_killed_without_a_trace(
    runsfleet: Runsfleet, tmp_path: Path
) -> None:
    """up, run, fault, calls, page, and a kill of its process, after which nothing is left."""
    file = tmp_path / "cloud.json"
    up = runsfleet("local", "up", "--detach", "--json", str(file))
    assert up.returncode == 0, up.stderr
    endpoints = json.loads(file.read_text())
    assert file.stat().st_mode & 0o077 == 0
    assert {"jobs", "jobs_dead_letters", "termination"} <= set(endpoints["queues"])
    assert {"jobs", "runners"} <= set(endpoints["tables"])

    twice = runsfleet("local", "up", "--detach")
    assert twice.returncode == 1
    assert "a local cloud is up already" in twice.stderr

    rule = runsfleet("local", "fault", "capacity", "--capacity-type", "spot", "--count", "1")
    assert rule.stdout == "capacity-1\n"
    assert "capacity-1" in runsfleet("local", "fault", "list").stdout
    done = runsfleet("local", "run", "examples/workflows/hello.yml", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"]
    assert [job["capacity_type"] for job in result["jobs"]] == ["on-demand"]
    assert runsfleet("local", "fault", "clear").returncode == 0
    assert "no fault is in force" in runsfleet("local", "fault", "list").stdout

    calls = json.loads(runsfleet("local", "calls", "--json").stdout)
    assert {"sqs", "dynamodb", "ec2", "github"} <= {call["service"] for call in calls["calls"]}
    assert calls["summary"]["github_per_job"] == 1.0

    page = runsfleet("local", "page").stdout.strip()
    assert page == endpoints["page"]
    with urllib.request.urlopen(page, timeout=10) as answer:  # noqa: S310  (our own page)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        html = answer.read().decode()
    assert "<title>runsfleet local cloud</title>" in html
    assert "https://" not in html
    with urllib.request.urlopen(f"{page}/api/state", timeout=10) as answer:  # noqa: S310  (ours)
        state = json.load(answer)
    published = {series["name"] for series in state["metrics"]}
    assert {"JobsQueued", "JobsLaunched", "JobsCompleted"} <= published

    assert processes_of(endpoints["directory"])
    os.kill(endpoints["pid"], signal.SIGKILL)
    assert gone(endpoints["directory"]), processes_of(endpoints["directory"])
    gone_now = runsfleet("local", "calls")
    assert "no local cloud is up here" in gone_now.stderr
    assert runsfleet("local", "down").returncode == 0
