"""Makes the copy of a workflow that act runs for one job.

Act runs a job together with everything it needs and splits ``-P`` at the first ``=``. So the copy
holds one combination of one job whose ``runs-on`` is ``self-hosted``. An action that would have to
be fetched becomes a step that fails with the reason. Each needed job is replaced by a small one
that ends the same way and has the same outputs, so that ``needs.*`` stays true. A last step writes
the job's outputs to the file named by ``RUNSFLEET_JOB_OUTPUTS``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

OUTPUT_STEP_ID: Final = "runsfleet-job-outputs"
_OUTPUT_PREFIX: Final = "RUNSFLEET_OUTPUT_"


@dataclass(frozen=True, slots=True)
class NeededJob:
    """How a needed job ended: ``result`` is success, failure, cancelled or skipped."""

    result: str
    outputs: Mapping[str, str] = field(default_factory=dict)


def prepared_copy(
    document: Mapping[str, Any],
    key: str,
    combination: Mapping[str, Any],
    needed: Mapping[str, NeededJob],
) -> str:
    """Answer the copy as JSON (which YAML readers read).

    Args:
        document: The whole workflow.
        key: The job to run.
        combination: Its matrix combination, empty without a matrix.
        needed: The directly needed jobs.
    """
    job = dict(document["jobs"][key])
    job["runs-on"] = "self-hosted"
    # the service has decided these; a container or service would need Docker
    for decided in ("strategy", "needs", "environment", "concurrency", "container", "services"):
        job.pop(decided, None)
    job["if"] = "always()"
    if combination:
        job["strategy"] = {"matrix": {"include": [dict(combination)]}}
    if needed:
        job["needs"] = list(needed)
    steps = [_offline(step) for step in job["steps"]]
    if job.get("outputs"):
        steps.append(_output_step(job.pop("outputs")))
    job["steps"] = steps
    copy = {name: value for name, value in document.items() if name not in {"on", "concurrency"}}
    copy["on"] = {"push": None}
    copy["jobs"] = {name: _stand_in(entry) for name, entry in needed.items()} | {key: job}
    return json.dumps(copy, ensure_ascii=False, separators=(",", ":"))


def _offline(step: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a step that needs no network: what would fetch an action fails and says so."""
    action = str(step.get("uses", ""))
    if not action or action.startswith("./") or action.partition("@")[0] == "actions/checkout":
        return dict(step)
    reason = f"{action} would be fetched from the network, which this runner does not do"
    kept = {name: value for name, value in step.items() if name not in {"uses", "with"}}
    return {
        "name": f"Run {action}",
        **kept,
        "shell": "bash",
        "run": f"echo {shlex.quote('::error::' + reason)}; exit 1",
    }


def _output_step(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Let act itself evaluate the outputs: they go through a step's environment into a file."""
    lines = [
        f"printf '%s\\0%s\\0' '{name}' \"${_OUTPUT_PREFIX}{index}\""
        for index, name in enumerate(outputs)
    ]
    return {
        "id": OUTPUT_STEP_ID,
        "name": OUTPUT_STEP_ID,
        "if": "always()",
        "shell": "bash",
        "env": {f"{_OUTPUT_PREFIX}{index}": text for index, text in enumerate(outputs.values())},
        "run": "{ " + "; ".join(lines) + '; } > "$RUNSFLEET_JOB_OUTPUTS"',
    }


def _stand_in(needed: NeededJob) -> dict[str, Any]:
    job: dict[str, Any] = {
        "runs-on": "self-hosted",
        "outputs": dict(needed.outputs),
        "steps": [{"run": "true" if needed.result == "success" else "exit 1"}],
    }
    if needed.result == "skipped":
        job["if"] = "false"
    return job
