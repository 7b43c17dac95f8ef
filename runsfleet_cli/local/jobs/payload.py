"""Recorded ``workflow_job`` webhooks: read, adapted to this world, and made runnable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runsfleet_cli.local.jobs.plan import PlannedJob, WorkflowPlan, plan_job, read_workflow

ACTIONS: Final = ("queued", "waiting", "in_progress", "completed")


class PayloadError(ValueError):
    """A file that holds no ``workflow_job`` payload."""


@dataclass(frozen=True, slots=True)
class RecordedPayload:
    """One payload, as it was recorded.

    Attributes:
        body: The bytes to deliver, exactly as recorded when the file holds one payload.
        data: The same, parsed.
    """

    body: bytes
    data: Mapping[str, Any]

    @property
    def action(self) -> str:
        """Answer the action: queued, waiting, in_progress or completed."""
        return str(self.data["action"])

    @property
    def _job(self) -> Mapping[str, Any]:
        job: Mapping[str, Any] = self.data["workflow_job"]
        return job

    @property
    def makes_job(self) -> bool:
        """Say whether a runner can be expected.

        The action decides: one of GitHub's own examples is queued while its status still reads
        waiting (an approval has just been given), and a fleet has to launch for it.
        """
        return self.action == "queued"

    @property
    def full_name(self) -> str:
        """Answer the repository's full name."""
        return str(self.data["repository"]["full_name"])

    @property
    def owner_type(self) -> str:
        """Answer ``Organization`` or ``User``."""
        return str(self.data["repository"]["owner"].get("type", "Organization"))

    @property
    def job_id(self) -> int:
        """Answer the job's id."""
        return int(self._job["id"])

    @property
    def run_id(self) -> int:
        """Answer the run's id."""
        return int(self._job["run_id"])

    @property
    def name(self) -> str:
        """Answer the job's name."""
        return str(self._job.get("name", "job"))

    @property
    def head_sha(self) -> str:
        """Answer the commit."""
        return str(self._job.get("head_sha", "0" * 40))

    @property
    def head_branch(self) -> str | None:
        """Answer the branch, when it was recorded."""
        branch = self._job.get("head_branch")
        return None if branch is None else str(branch)

    @property
    def labels(self) -> tuple[str, ...]:
        """Answer the job's labels."""
        return tuple(str(label) for label in self._job.get("labels") or ())

    def adapted(
        self,
        *,
        installation_id: int,
        organization: Mapping[str, Any] | None,
        repository: Mapping[str, Any] | None = None,
        labels: Sequence[str] | None = None,
        job_id: int | None = None,
        run_id: int | None = None,
        moment: str | None = None,
    ) -> bytes:
        """Answer the payload with this world's installation, and what else is to differ.

        Args:
            installation_id: The installation whose token reads the repository here.
            organization: The ``organization`` object, None for a user's repository.
            repository: A ``repository`` object in its place.
            labels: Labels in their place.
            job_id: A job id in its place.
            run_id: A run id in its place.
            moment: When the job was made, ISO 8601, in place of years ago: GitHub keeps no job
                queued for longer than a day, and a fleet gives up what is older.
        """
        changed = json.loads(self.body) if _is_object(self.body) else dict(self.data)
        changed["installation"] = dict(changed.get("installation") or {"node_id": "MDEyOklu"})
        changed["installation"]["id"] = installation_id
        if organization is not None:
            changed["organization"] = dict(organization)
        if repository is not None:
            changed["repository"] = dict(repository)
        job = changed["workflow_job"] = dict(changed["workflow_job"])
        if labels is not None:
            job["labels"] = list(labels)
        if job_id is not None:
            job["id"] = job_id
        if run_id is not None:
            job["run_id"] = run_id
        if moment is not None:
            job["created_at"] = moment
        return json.dumps(changed, separators=(",", ":"), ensure_ascii=False).encode()


def _is_object(body: bytes) -> bool:
    return body.lstrip().startswith(b"{")


def read_payloads(file: Path) -> list[RecordedPayload]:
    """Read every ``workflow_job`` payload of a file.

    The file holds one payload, a list of them, or the index of @octokit/webhooks-examples (a list
    of events with their ``examples``).

    Raises:
        PayloadError: When it cannot be read or holds none.
    """
    try:
        content = file.read_bytes()
        data = json.loads(content)
    except (OSError, ValueError) as error:
        raise PayloadError(f"cannot read payload {file}: {error}") from error
    if isinstance(data, dict):
        return [_checked(file, data, content)]
    found: list[RecordedPayload] = []
    for entry in data if isinstance(data, list) else []:
        examples = entry.get("examples") if isinstance(entry, dict) else None
        if examples is not None and entry.get("name") != "workflow_job":
            continue
        for example in [entry] if examples is None else examples:
            body = json.dumps(example, separators=(",", ":"), ensure_ascii=False).encode()
            found.append(_checked(file, example, body))
    if not found:
        raise PayloadError(f"{file} holds no workflow_job payload")
    return found


def _checked(file: Path, data: Mapping[str, Any], body: bytes) -> RecordedPayload:
    job, repository = data.get("workflow_job"), data.get("repository")
    if data.get("action") not in ACTIONS or not isinstance(job, dict):
        raise PayloadError(
            f"{file} is no workflow_job payload: action must be one of {', '.join(ACTIONS)} and "
            f"workflow_job an object, got action {data.get('action')!r}"
        )
    if not isinstance(repository, dict) or "id" not in job or "run_id" not in job:
        raise PayloadError(f"{file} lacks repository, workflow_job.id or workflow_job.run_id")
    return RecordedPayload(body=body, data=data)


def as_planned(
    recorded: RecordedPayload,
    labels: Sequence[str] | None = None,
    *,
    job_id: int | None = None,
    run_id: int | None = None,
) -> tuple[WorkflowPlan, PlannedJob]:
    """Make a small workflow for a payload, which has no steps of its own: one step that says so.

    Args:
        recorded: A queued payload.
        labels: Labels in place of the payload's.
        job_id: The job's id in place of the payload's.
        run_id: The run's id in place of the payload's.
    """
    chosen = recorded.labels if labels is None else tuple(labels)
    key = f"job-{recorded.job_id if job_id is None else job_id}"
    workflow = {
        "name": str(recorded.data["workflow_job"].get("workflow_name") or "recorded"),
        "on": {"push": None},
        "jobs": {
            key: {
                "name": recorded.name,
                "runs-on": list(chosen) or ["self-hosted"],
                "steps": [
                    {
                        "name": "Recorded payload",
                        "run": 'echo "job of a recorded payload in run $GITHUB_RUN_ID"',
                    }
                ],
            }
        },
    }
    plan = read_workflow(json.dumps(workflow), path=".github/workflows/recorded.yml")
    run = recorded.run_id if run_id is None else run_id
    (planned,) = plan_job(plan, key, github={"run_id": str(run)}, needed={})
    return plan, planned
