from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_lambda as lambda_

from runsfleet_constructs.bundling import Architecture, BundlingError, Platform, agent
from runsfleet_constructs.bundling.cdk import (
    UNBUNDLED_SHA256,
    agent_asset,
    dependencies_layer_code,
    function_code,
)
from tests.unit.bundling.conftest import LocalIndex

NOTHING_IS_BUILT: dict[str, Any] = {"aws:cdk:bundling-stacks": []}


def _app(
    outdir: Path, lock: Path, cache_dir: Path, context: dict[str, Any] | None = None
) -> tuple[dict[str, Any], str]:
    """Synthesize a stack with all three assets; return its template and the agent's hash."""
    app = cdk.App(outdir=str(outdir), context=context, analytics_reporting=False)
    stack = cdk.Stack(app, "Stack")
    layer = lambda_.LayerVersion(
        stack,
        "Layer",
        code=dependencies_layer_code(
            stack, Platform(Architecture.ARM64), lock=lock, cache_dir=cache_dir
        ),
    )
    for name in ("Webhook", "Dispatch"):
        lambda_.Function(
            stack,
            name,
            code=function_code(),
            handler=f"runsfleet_runtime.handlers.{name.lower()}.handler",
            runtime=lambda_.Runtime.PYTHON_3_13,
            layers=[layer],
        )
    packed = agent_asset(stack, "Agent", cache_dir=cache_dir)
    cdk.CfnOutput(stack, "AgentKey", value=packed.asset.s3_object_key)
    app.synth()
    return json.loads((outdir / "Stack.template.json").read_text()), packed.sha256


@pytest.fixture
def lock(index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock that the local index can serve, for functions and agent alike."""
    services = {
        f"botocore/data/{service}/2016-11-15/service-2.json.gz": ""
        for service in agent.AGENT_SERVICES
    }
    index.add("botocore", {"botocore/__init__.py": "", **services})
    path = index.lock(tmp_path / "test.lock")
    monkeypatch.setattr(agent, "AGENT_LOCK", path)
    return path


def test_the_template_does_not_tell_whether_assets_were_built(
    lock: Path, cache_dir: Path, tmp_path: Path
) -> None:
    """With and without the build, now and again later, the template has the same bytes."""
    built, sha256 = _app(tmp_path / "built", lock, cache_dir)
    again, sha256_again = _app(tmp_path / "again", lock, tmp_path / "other cache")
    skipped, no_sha256 = _app(tmp_path / "skipped", lock, cache_dir, NOTHING_IS_BUILT)

    assert built == again == skipped
    assert sha256 == sha256_again
    assert no_sha256 == UNBUNDLED_SHA256


def test_assets_hold_what_lambda_and_instances_expect(
    lock: Path, cache_dir: Path, tmp_path: Path
) -> None:
    """Functions share one asset with the runtime, the layer has `python/`, the agent is a zip."""
    template, _ = _app(tmp_path / "out", lock, cache_dir)
    resources = template["Resources"].values()
    keys = [r["Properties"]["Code"]["S3Key"] for r in resources if "Code" in r["Properties"]]
    (layer,) = [r["Properties"]["Content"] for r in resources if "Content" in r["Properties"]]

    def asset(key: str) -> Path:
        return tmp_path / "out" / f"asset.{key.removesuffix('.zip')}"

    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert (asset(keys[0]) / "runsfleet_runtime" / "contract" / "__init__.py").is_file()
    assert (asset(layer["S3Key"]) / "python" / "botocore" / "__init__.py").is_file()
    with zipfile.ZipFile(
        tmp_path / "out" / f"asset.{template['Outputs']['AgentKey']['Value']}"
    ) as z:
        assert "runsfleet_runtime/agent/__init__.py" in z.namelist()


def test_where_nothing_is_built_nothing_is_fetched(
    lock: Path, cache_dir: Path, tmp_path: Path
) -> None:
    """Tests and `cdk ls` neither start an installer nor touch the cache."""
    lock.write_text(f"absent==1.0 --hash=sha256:{'0' * 64}\n")

    _app(tmp_path / "out", lock, cache_dir, NOTHING_IS_BUILT)

    assert not cache_dir.exists()
    assert not list((tmp_path / "out").glob("asset.*"))


def test_a_failed_download_arrives_as_it_was_said(
    lock: Path, cache_dir: Path, tmp_path: Path
) -> None:
    """The error with its cure is not wrapped by the CDK's JavaScript."""
    lock.write_text(f"absent==1.0 --hash=sha256:{'0' * 64}\n")

    with pytest.raises(BundlingError, match="could not be fetched; check the network"):
        _app(tmp_path / "out", lock, cache_dir)
