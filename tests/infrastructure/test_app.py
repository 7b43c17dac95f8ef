"""The app as a whole: stacks, feature flags, identical bytes, and a wrong environment file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import aws_cdk as cdk
import pytest

from runsfleet_constructs import GitHubApp, RunnerFleet
from tests.infrastructure.templates import ROOT, Template, recommended_flags, synthesize

APP = ("app.py", "stacks", "environments", "cdk.json")


def run_app(
    folder: Path, out: Path, *, seed: str = "0", context: dict[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an app.py as the CDK CLI would, without bundling."""
    settings = {**recommended_flags(), "aws:cdk:bundling-stacks": [], **(context or {})}
    environ = {
        **os.environ,
        "CDK_OUTDIR": str(out),
        "CDK_CONTEXT_JSON": json.dumps(settings),
        "PYTHONHASHSEED": seed,
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
    }
    return subprocess.run(
        [sys.executable, "app.py"],
        capture_output=True,
        check=False,
        cwd=folder,
        env=environ,
        text=True,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this repository's own app, whose environments a test may change."""
    for name in APP:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.integration
def test_synthesis_is_the_same_to_the_byte(tmp_path: Path) -> None:
    """Two syntheses by different processes write the same assembly, every file of it."""
    first, second = tmp_path / "first", tmp_path / "second"
    for out, seed in ((first, "1"), (second, "2")):
        done = run_app(ROOT, out, seed=seed, context={"environments": "dev"})
        assert done.returncode == 0, done.stderr
    found = contents(first)
    assert [name for name in found if name.endswith(".template.json")]
    assert found == contents(second)


@pytest.mark.integration
def test_every_environment_is_a_stage_with_a_stack_for_each_region(
    checkout: Path, tmp_path: Path
) -> None:
    """A second region of an environment makes a second stack; accounts may be pinned."""
    (checkout / "environments" / "prod.yaml").write_text(
        'extends: base.yaml\naccount: "111122223333"\nregions: [us-east-1, eu-west-1]\n'
    )
    out = tmp_path / "out"
    done = run_app(checkout, out)
    assert done.returncode == 0, done.stderr
    stacks = {
        artifact["properties"]["stackName"]: artifact["environment"]
        for manifest in out.glob("assembly-*/manifest.json")
        for artifact in json.loads(manifest.read_text())["artifacts"].values()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    assert stacks == {
        "runsfleet-dev-us-east-1": "aws://unknown-account/us-east-1",
        "runsfleet-staging-us-east-1": "aws://unknown-account/us-east-1",
        "runsfleet-prod-us-east-1": "aws://111122223333/us-east-1",
        "runsfleet-prod-eu-west-1": "aws://111122223333/eu-west-1",
    }


@pytest.mark.integration
def test_a_wrong_file_ends_in_findings_and_no_traceback(checkout: Path, tmp_path: Path) -> None:
    """Findings of all files, on standard error, exit code 1, nothing written."""
    environments = checkout / "environments"
    (environments / "dev.yaml").write_text("extends: base.yaml\nregion: us-east-1\n")
    (environments / "prod.yaml").write_text("extends: base.yaml\naccount: 12\n")
    done = run_app(checkout, tmp_path / "out")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "2 findings in environment files",
        "  dev.yaml:2: region: there is no such key; did you mean regions?",
        "  prod.yaml:2: account: must be text in quotes: YAML drops leading zeros, got 12",
    ]


@pytest.mark.integration
def test_an_unknown_environment_is_named(tmp_path: Path) -> None:
    """``-c environments=qa`` tells which environments there are."""
    done = run_app(ROOT, tmp_path / "out", context={"environments": "qa"})
    assert done.returncode == 1
    assert "qa.yaml:1: there is no such environment; use one of dev, prod, staging" in done.stderr


def test_flags_change_no_resource(tmp_path: Path, library: Template) -> None:
    """With no feature flag and with all of them the fleet has the same resources."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Library")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        RunnerFleet(stack, "Runners", github=github)

    flagged = synthesize(tmp_path, build, recommended_flags())["Library"]
    types = {name: r["Type"] for name, r in flagged.resources.items()}
    assert types == {name: r["Type"] for name, r in library.resources.items()}


def test_a_stack_with_account_and_region_asks_nothing(tmp_path: Path) -> None:
    """No look-up is left for the CLI, even where the CDK would know whom to ask."""
    app = cdk.App(outdir=str(tmp_path), context={"aws:cdk:bundling-stacks": []})
    env = cdk.Environment(account="123456789012", region="eu-central-1")
    stack = cdk.Stack(app, "Library", env=env)
    github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
    RunnerFleet(stack, "Runners", github=github)
    app.synth()
    assert "missing" not in json.loads((tmp_path / "manifest.json").read_text())


@pytest.mark.integration
def test_the_example_of_the_library_synthesizes(tmp_path: Path) -> None:
    """The example is an app of its own, and its alarm watches a metric that exists."""
    done = run_app(ROOT / "examples" / "library", tmp_path)
    assert done.returncode == 0, done.stderr
    template = Template(json.loads((tmp_path / "Ci.template.json").read_text()))
    assert template.only("AWS::CloudWatch::Alarm")["Properties"]["MetricName"] == "EnqueueFailures"
    assert "WebhookUrl" in template.body["Outputs"]
