"""Reads a workflow file and says which jobs may be queued, as GitHub's scheduler would.

The plan keeps the file as it was written; a job becomes `PlannedJob`s only when everything it
needs has concluded, because its matrix, name and labels may use ``needs.*.outputs``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from runsfleet_cli.local.jobs import matrix as matrices
from runsfleet_cli.local.jobs.expressions import (
    ExpressionError,
    condition,
    interpolate,
    to_number,
    to_text,
    truthy,
)
from runsfleet_cli.local.jobs.prepare import NeededJob, prepared_copy

DEFAULT_TIMEOUT_MINUTES: Final = 360


class WorkflowError(ValueError):
    """A workflow file that GitHub would refuse; the message names the place and the cure."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans: ``on`` is a key of every workflow, not the value true."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:bool"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """One job that may be queued now: what the service knows, and what the runner executes.

    Attributes:
        key: The job's key in the file.
        name: The name that GitHub shows, for example ``build (3.12, arm64)``.
        labels: ``runs-on``, evaluated.
        matrix: The combination, empty without a matrix.
        document: The one-job copy of the workflow that act runs (JSON, which is YAML too).
        skipped: The job's ``if`` was false.
        fail_fast: Siblings are cancelled when this one fails.
        continue_on_error: Its failure does not fail the run.
        environment: The deployment environment it wants, if any.
        timeout_minutes: The runner stops it after so many minutes.
        group: The runner group that ``runs-on`` asks for, if any.
        max_parallel: How many of the matrix may run at once; None for no limit.
        error: Why it can never run: an expression that only failed once its needs were known.
    """

    key: str
    name: str
    labels: tuple[str, ...]
    matrix: Mapping[str, Any]
    document: str
    skipped: bool = False
    fail_fast: bool = True
    continue_on_error: bool = False
    environment: str | None = None
    timeout_minutes: float = DEFAULT_TIMEOUT_MINUTES
    group: str | None = None
    max_parallel: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class WorkflowPlan:
    """A workflow file, read and checked.

    Attributes:
        name: The workflow's name.
        path: The path inside the repository, for example ``.github/workflows/ci.yml``.
        document: The whole file as data.
        jobs: Each job's key and definition, in the order of the file.
        text: The file as it was written.
    """

    name: str
    path: str
    document: Mapping[str, Any]
    jobs: Mapping[str, Mapping[str, Any]]
    text: str

    def needs(self, key: str) -> tuple[str, ...]:
        """Answer the keys of the jobs that a job needs."""
        needed = self.jobs[key].get("needs") or []
        return (needed,) if isinstance(needed, str) else tuple(needed)

    def ancestors(self, key: str) -> set[str]:
        """Answer everything a job needs, directly or not."""
        found: set[str] = set()
        waiting = list(self.needs(key))
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting.extend(self.needs(current))
        return found

    def dependents(self, keys: set[str]) -> set[str]:
        """Answer the given jobs and everything that needs them."""
        return keys | {key for key in self.jobs if self.ancestors(key) & keys}


def read_workflow(text: str, *, path: str = ".github/workflows/workflow.yml") -> WorkflowPlan:
    r"""Read and check a workflow.

    Args:
        text: The file's content.
        path: Its path inside the repository.

    Raises:
        WorkflowError: When it is no workflow, or a job lacks ``runs-on`` or needs an unknown job.

    Example:
        >>> plan = read_workflow("on: push\njobs: {a: {runs-on: x, steps: [{run: 'true'}]}}")
        >>> list(plan.jobs)
        ['a']
    """
    try:
        # S506 is about the full loader; this one is a SafeLoader with fewer booleans
        document = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise WorkflowError(
            f"{where}: not YAML, {problem}; look at this line and the one before"
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("jobs"), dict):
        raise WorkflowError(f"{path} has no jobs; a workflow is a mapping with 'on' and 'jobs'")
    jobs = document["jobs"]
    for key, job in jobs.items():
        _check_job(path, key, job, jobs)
    plan = WorkflowPlan(
        name=str(document.get("name") or path), path=path, document=document, jobs=jobs, text=text
    )
    for key in jobs:
        if key in plan.ancestors(key):
            raise WorkflowError(f"{path}: job {key!r} needs itself; break the circle in 'needs'")
    return plan


def read_workflow_file(file: Path) -> WorkflowPlan:
    """Read a workflow from disk; its path in the repository is ``.github/workflows/NAME``.

    Raises:
        WorkflowError: When the file cannot be read or is no workflow.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"cannot read workflow {file}: {error}") from error
    return read_workflow(text, path=f".github/workflows/{file.name}")


def _check_job(path: str, key: str, job: object, jobs: Mapping[str, object]) -> None:
    if not isinstance(job, dict):
        raise WorkflowError(f"{path}: job {key!r} must be a mapping, got {job!r}")
    if "uses" in job:
        raise WorkflowError(
            f"{path}: job {key!r} calls a reusable workflow, which needs the network; "
            "give it steps instead"
        )
    if "runs-on" not in job:
        raise WorkflowError(f"{path}: job {key!r} has no 'runs-on'")
    if not isinstance(job.get("steps"), list) or not job["steps"]:
        raise WorkflowError(f"{path}: job {key!r} has no 'steps'")
    needed = job.get("needs") or []
    for name in [needed] if isinstance(needed, str) else needed:
        if name not in jobs:
            raise WorkflowError(f"{path}: job {key!r} needs {name!r}, which does not exist")


def labels_of(runs_on: object) -> tuple[tuple[str, ...], str | None]:
    """Answer the labels and the group of an evaluated ``runs-on`` (text, list or mapping)."""
    if isinstance(runs_on, dict):
        labels, _ = labels_of(runs_on.get("labels") or [])
        return labels, to_text(runs_on["group"]) if runs_on.get("group") else None
    if isinstance(runs_on, list):
        return tuple(to_text(label) for label in runs_on), None
    return (to_text(runs_on),), None


def plan_job(
    plan: WorkflowPlan,
    key: str,
    *,
    github: Mapping[str, Any],
    needed: Mapping[str, NeededJob],
    needs_succeeded: bool = True,
    needs_failed: bool = False,
    cancelled: bool = False,
    label_override: Sequence[str] | None = None,
) -> list[PlannedJob]:
    """Turn one job of a plan into the jobs to queue; all it needs must have concluded.

    Args:
        plan: The workflow.
        key: The job's key.
        github: The ``github`` context, with ``run_id``.
        needed: How each directly needed job ended, and its outputs.
        needs_succeeded: All ancestors succeeded (for ``if``).
        needs_failed: One of them failed.
        cancelled: The run was cancelled.
        label_override: Labels to use instead of ``runs-on``; expressions in them are evaluated.

    Raises:
        WorkflowError: When an expression or the matrix is wrong.
    """
    job = plan.jobs[key]
    contexts: dict[str, Any] = {
        "github": dict(github),
        "needs": {
            name: {"result": entry.result, "outputs": dict(entry.outputs)}
            for name, entry in needed.items()
        },
        "vars": {},
        "inputs": {},
    }
    try:
        wanted = condition(
            job.get("if"),
            contexts,
            needs_succeeded=needs_succeeded,
            needs_failed=needs_failed,
            cancelled=cancelled,
        )
        if not wanted:
            return [PlannedJob(key, _name(job, key, {}, contexts), (), {}, "", skipped=True)]
        strategy = interpolate(job.get("strategy") or {}, contexts)
        if not isinstance(strategy, dict):
            raise WorkflowError(f"{plan.path}: job {key!r}: strategy must be a mapping")
        matrix = strategy.get("matrix")
        combinations = matrices.expand(matrix) if matrix else [{}]
        return [
            _planned(
                plan,
                key,
                combination,
                strategy=strategy,
                contexts=contexts,
                needed=needed,
                label_override=label_override,
            )
            for combination in combinations
        ]
    except (ExpressionError, matrices.MatrixError) as error:
        raise WorkflowError(f"{plan.path}: job {key!r}: {error}") from error


def _planned(
    plan: WorkflowPlan,
    key: str,
    combination: Mapping[str, Any],
    *,
    strategy: Mapping[str, Any],
    contexts: Mapping[str, Any],
    needed: Mapping[str, NeededJob],
    label_override: Sequence[str] | None,
) -> PlannedJob:
    job = plan.jobs[key]
    scope = dict(contexts) | {"matrix": dict(combination), "strategy": dict(strategy)}
    runs_on = list(label_override) if label_override is not None else job["runs-on"]
    labels, group = labels_of(interpolate(runs_on, scope))
    if not labels and group is None:
        raise WorkflowError(f"{plan.path}: job {key!r}: 'runs-on' evaluates to no label")
    environment = job.get("environment")
    if isinstance(environment, dict):
        environment = environment.get("name")
    limit = strategy.get("max-parallel")
    timeout = interpolate(job.get("timeout-minutes", DEFAULT_TIMEOUT_MINUTES), scope)
    return PlannedJob(
        key=key,
        name=_name(job, key, combination, scope),
        labels=labels,
        matrix=dict(combination),
        document=prepared_copy(plan.document, key, combination, needed),
        fail_fast=truthy(strategy.get("fail-fast", True)),
        continue_on_error=truthy(interpolate(job.get("continue-on-error", False), scope)),
        environment=to_text(interpolate(environment, scope)) if environment else None,
        timeout_minutes=_positive(plan, key, "timeout-minutes", timeout),
        group=group,
        max_parallel=int(_positive(plan, key, "max-parallel", limit)) if limit else None,
    )


def _positive(plan: WorkflowPlan, key: str, name: str, value: object) -> float:
    number = to_number(value)
    if not number > 0:  # also when it is no number at all
        raise WorkflowError(
            f"{plan.path}: job {key!r}: {name} must be a number above 0, got {value!r}"
        )
    return number


def _name(
    job: Mapping[str, Any], key: str, combination: Mapping[str, Any], contexts: Mapping[str, Any]
) -> str:
    if job.get("name"):
        return to_text(interpolate(job["name"], contexts))
    if not combination:
        return key
    return f"{key} ({', '.join(_flat(value) for value in combination.values())})"


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(_flat(entry) for entry in value.values())
    if isinstance(value, list):
        return ", ".join(_flat(entry) for entry in value)
    return to_text(value)
