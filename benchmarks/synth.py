"""CPU of synthesizing an environment, against that of an app with one queue.

Each synthesis is a process of its own with an output folder of its own, and gets the context that
the CDK command would hand over: the flags of ``cdk.json`` and the command's own defaults. Assets
come from the warm cache; the warm-up round builds what is missing.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.measure import (
    PYTHONPATH,
    ROOT,
    Sample,
    environment,
    in_turns,
    median_and_quartiles,
    run_process,
)
from benchmarks.report import Row

ROUNDS = 5
ENVIRONMENT_BUDGET = 1.6
REGION_BUDGET = 0.15
USUAL_THREADS = "--v8-pool-size=4"
"""Node's default, which ``app.py`` lowers: shown to tell what that brings."""
REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-2")

_ONE_QUEUE = """
import aws_cdk as cdk
from aws_cdk import aws_sqs as sqs

app = cdk.App()
stack = cdk.Stack(app, "One", env=cdk.Environment(region="us-east-1"))
sqs.Queue(stack, "Queue")
app.synth()
"""
# what `cdk synth` sets beside the context of cdk.json
_OF_THE_COMMAND = {
    "aws:cdk:enable-path-metadata": True,
    "aws:cdk:enable-asset-metadata": True,
    "aws:cdk:version-reporting": True,
    "aws:cdk:bundling-stacks": ["**"],
}


def run(rounds: int | None = None) -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="runsfleet-bench-") as name:
        folder = Path(name)
        one_queue = folder / "one_queue.py"
        one_queue.write_text(_ONE_QUEUE)
        sides: dict[str, Callable[[], Sample]] = {"one queue": lambda: _synthesize(one_queue)}
        for count in range(1, len(REGIONS) + 1):
            app = _app(folder / str(count), REGIONS[:count])
            sides[str(count)] = lambda app=app: _synthesize(app)  # type: ignore[misc]
        usual = _app(folder / "usual", REGIONS[:1])
        sides["usual"] = lambda: _synthesize(usual, NODE_OPTIONS=USUAL_THREADS)
        samples = in_turns(sides, rounds or ROUNDS, title="synth")
    cpu = {side: [sample.cpu for sample in part] for side, part in samples.items()}
    base = cpu["one queue"]
    against = f"one queue, {median(base):.2f} s"
    ratio, spread = median_and_quartiles([a / b for a, b in zip(cpu["1"], base, strict=True)])
    rows = [
        Row(
            what="one environment, one region",
            figure=f"{median(cpu['1']):.2f} s CPU",
            against=against,
            ratio=ratio,
            spread=spread,
            budget=ENVIRONMENT_BUDGET,
        )
    ]
    ratio, spread = median_and_quartiles([a / b for a, b in zip(cpu["usual"], base, strict=True)])
    rows.append(
        Row(
            what="the same with all threads of node",
            figure=f"{median(cpu['usual']):.2f} s CPU",
            against=against,
            ratio=ratio,
            spread=spread,
        )
    )
    for count in range(2, len(REGIONS) + 1):
        more = [
            (many - one) / (count - 1) for many, one in zip(cpu[str(count)], cpu["1"], strict=True)
        ]
        ratio, spread = median_and_quartiles([a / b for a, b in zip(more, base, strict=True)])
        rows.append(
            Row(
                what=f"each further region, of {count}",
                figure=f"{median(more):.2f} s CPU",
                against=against,
                ratio=ratio,
                spread=spread,
                budget=REGION_BUDGET,
            )
        )
    return rows


def _app(folder: Path, regions: tuple[str, ...]) -> Path:
    """Copy ``app.py`` to stand beside an environment that is dev with these regions."""
    folder.mkdir()
    shutil.copytree(ROOT / "environments", folder / "environments")
    text = f"extends: dev.yaml\nregions: [{', '.join(regions)}]\n"
    (folder / "environments" / "bench.yaml").write_text(text)
    return Path(shutil.copy(ROOT / "app.py", folder))


def _synthesize(script: Path, **variables: str) -> Sample:
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    with tempfile.TemporaryDirectory(prefix="runsfleet-bench-") as out:
        return run_process(
            [sys.executable, str(script)],
            env=environment(
                PYTHONPATH=PYTHONPATH,
                CDK_OUTDIR=out,
                CDK_CONTEXT_JSON=json.dumps(
                    {**context, **_OF_THE_COMMAND, "environments": "bench"}
                ),
                CDK_DEFAULT_ACCOUNT="111111111111",
                CDK_DEFAULT_REGION="us-east-1",
                JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION="20",
                **variables,
            ),
        )
