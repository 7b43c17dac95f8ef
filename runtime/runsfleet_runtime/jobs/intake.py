"""Intake: a delivery of GitHub's becomes a message on a queue, or an answer why not.

Order, and nothing may change it: size, signature over the raw bytes, event, JSON, labels, durable
enqueue, and only then 2xx. A delivery that could not be enqueued is answered with 5xx, so that
GitHub lists it as failed and it can be delivered again (GitHub never does that by itself).

What is valid but asks for nothing (another event, another action, labels of others) gets 2xx too: a
4xx would fill the App's delivery log with failures that are none.

Every job ends, and most ends are told by the instance that ran the job. So of the ``completed``
deliveries only these go on, to the events queue:

- the job had no runner, or one that is none of ours: what was made for it is not needed any more;
- it was cancelled, or failed, on a runner of ours: it may be an interrupted one, whose re-run is
  waiting for just this.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.messages import JobEndedMessage, JobMessage
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.contract.tags import RUNNER_NAME_PREFIX
from runsfleet_runtime.jobs.ports import SendsJobs
from runsfleet_runtime.labels import Accepted, LabelSettings, NotOurs, resolve
from runsfleet_runtime.secrets import ReadsSecrets, SecretNotFoundError, SecretUnavailableError
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics
from runsfleet_runtime.telemetry.traces import OFF, SpanKind, TracesWork, trace_id_of

if TYPE_CHECKING:
    from runsfleet_runtime.interruptions.ports import SendsEvents

log = get_logger("webhook")

MAX_BODY_BYTES: Final = 1024 * 1024
"""Real ``workflow_job`` deliveries have 7 to 12 KB; whatever exceeds 1 MB is none of them."""
_MAX_LABELS: Final = 100  # GitHub accepts no more for a runner
_BROKEN_OFF: Final = frozenset({"cancelled", "failure"})
_FRESH_SECONDS: Final = 900.0  # a delivery comes within seconds, one after an outage within minutes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the delivery is answered with.

    Attributes:
        status: HTTP status.
        outcome: One word, for the log and the delivery's page at GitHub.
        reason: A sentence; empty when the outcome says it all.
        job: The job that the delivery is about; ``None`` when it is about none of ours.
    """

    status: int
    outcome: str
    reason: str = ""
    job: JobMessage | None = None


class _PayloadError(ValueError):
    """A payload lacks something that every ``workflow_job`` delivery has."""


def is_signed(body: bytes, signature: str, secret: str) -> bool:
    """Tell whether ``X-Hub-Signature-256`` fits the raw body.

    Args:
        body: The raw bytes, before any parsing.
        signature: The header, ``sha256=`` and 64 hexadecimal digits.
        secret: The webhook secret.

    Example:
        >>> is_signed(b"{}", "sha256=00", "s")
        False
    """
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"sha256={digest}".encode(), signature.encode(errors="replace"))


class Intake:
    """The use case of the webhook function.

    Args:
        labels: What labels are resolved against.
        runner_level: Where runners are registered.
        secret: Reference to the webhook secret.
        secrets: Reads it.
        queue: The jobs queue.
        events: The events queue.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
        traces: Where spans go; by default nowhere.
    """

    def __init__(
        self,
        *,
        labels: LabelSettings,
        runner_level: RunnerLevel,
        secret: str,
        secrets: ReadsSecrets,
        queue: SendsJobs,
        events: SendsEvents,
        metrics: CountsMetrics,
        clock: Callable[[], float],
        traces: TracesWork = OFF,
    ) -> None:
        self._labels = labels
        self._runner_level = runner_level
        self._secret = secret
        self._secrets = secrets
        self._queue = queue
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._traces = traces

    def receive(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer a delivery.

        Args:
            headers: The request's headers; names in lower case.
            body: The raw body.
        """
        with bound(delivery_id=headers.get("x-github-delivery", "")[:64]):
            answer = self._answer(headers, body)
            write = {"refused": log.warning, "unavailable": log.error}.get(answer.outcome, log.info)
            about: dict[str, Any] = {"status": answer.status, "reason": answer.reason}
            if (job := answer.job) is not None:
                about |= {"job_id": job.job_id, "run_id": job.run_id, "repository": job.repository}
                about |= trace_id_of(job.traceparent)
            write(answer.outcome, extra=about)
            return answer

    def _answer(self, headers: Mapping[str, str], body: bytes) -> Answer:
        if len(body) > MAX_BODY_BYTES:
            self._metrics.add(Metric.DELIVERIES_REFUSED, kind="body_too_large")
            return Answer(413, "refused", f"the body has {len(body)} bytes, over {MAX_BODY_BYTES}")
        try:
            signed = self._is_signed(body, headers.get("x-hub-signature-256", ""))
        except SecretUnavailableError as error:
            return Answer(503, "unavailable", f"the webhook secret could not be read: {error}")
        if not signed:
            self._metrics.add(Metric.DELIVERIES_REFUSED, kind="signature")
            return Answer(401, "refused", "the signature does not fit the body and our secret")
        event = headers.get("x-github-event", "")
        if event != "workflow_job":
            self._metrics.add(Metric.DELIVERIES_IGNORED, kind="event")
            return Answer(200, "ignored", f"event {event[:40]!r} is not workflow_job")
        try:
            return self._workflow_job(_parse(body), headers)
        except _PayloadError as error:
            self._metrics.add(Metric.DELIVERIES_REFUSED, kind="malformed")
            return Answer(400, "refused", str(error))

    def _is_signed(self, body: bytes, signature: str) -> bool:
        if not signature.startswith("sha256="):
            return False
        try:
            if is_signed(body, signature, self._secrets.read(self._secret)):
                return True
            # the secret may have been rotated since it was read; the reader limits how often
            return is_signed(body, signature, self._secrets.refresh(self._secret))
        except SecretNotFoundError as error:
            log.error("no webhook secret", extra={"error": str(error)})
            return False

    def _workflow_job(self, payload: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        action = payload.get("action")
        workflow_job = payload.get("workflow_job")
        if action not in {"queued", "completed"} or workflow_job is None:
            self._metrics.add(Metric.DELIVERIES_IGNORED, kind="action")
            return Answer(200, "ignored", f"action {str(action)[:40]!r} asks for no runner")
        received_at = self._clock()
        job = _job(payload, headers.get("x-github-delivery", ""), received_at)
        with bound(job_id=job.job_id, run_id=job.run_id, repository=job.repository):
            if action == "completed":
                return replace(self._completed(job, payload), job=job)
            answer = self._queued(job, payload, received_at)
            return answer if answer.job else replace(answer, job=job)

    def _completed(self, job: JobMessage, payload: Mapping[str, Any]) -> Answer:
        ended = _end(job, payload["workflow_job"])
        is_ours = ended.runner_name.startswith(RUNNER_NAME_PREFIX)
        if is_ours and ended.conclusion not in _BROKEN_OFF:
            self._metrics.add(Metric.DELIVERIES_IGNORED, kind="action")
            return Answer(200, "ignored", "its instance tells of its end")
        outcome = resolve(job.labels, self._labels)
        if isinstance(outcome, NotOurs):
            self._metrics.add(Metric.DELIVERIES_IGNORED, kind="not_ours")
            return Answer(200, "ignored", outcome.reason)
        if not self._events.send(ended):
            self._metrics.add(Metric.ENQUEUE_FAILURES)
            return Answer(503, "unavailable", "the events queue did not take the end of the job")
        self._metrics.add(Metric.JOB_ENDS_QUEUED)
        return Answer(202, "end queued", ended.conclusion)

    def _queued(self, job: JobMessage, payload: Mapping[str, Any], received_at: float) -> Answer:
        outcome = resolve(job.labels, self._labels)
        if isinstance(outcome, NotOurs):
            self._metrics.add(Metric.DELIVERIES_IGNORED, kind="not_ours")
            return Answer(200, "ignored", outcome.reason)
        if not isinstance(outcome, Accepted):
            self._metrics.add(Metric.JOBS_REFUSED)
            return Answer(200, "job refused", "; ".join(map(str, outcome.findings)))
        if self._runner_level is RunnerLevel.ORGANIZATION and _is_user_owned(payload):
            self._metrics.add(Metric.JOBS_REFUSED)
            return Answer(
                200,
                "job refused",
                f"{job.repository} belongs to a user, and runners are registered with "
                "organisations; set the runner level to repository",
            )
        with self._traces.span(
            "webhook", kind=SpanKind.SERVER, start=received_at, **_told(job)
        ) as traceparent:
            job = replace(job, traceparent=traceparent)
            (sent,) = self._queue.send([job])
        if not sent:
            self._metrics.add(Metric.ENQUEUE_FAILURES)
            return Answer(503, "unavailable", "the jobs queue did not take the job", job)
        self._metrics.add(Metric.JOBS_QUEUED)
        return Answer(202, "queued", outcome.label, job)


def _parse(body: bytes) -> Mapping[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        cure = (
            "; set the webhook's content type to application/json"
            if body[:8] == b"payload="
            else ""
        )
        raise _PayloadError(f"the body is not JSON: {error}{cure}") from None
    if not isinstance(payload, dict):
        raise _PayloadError(f"the body must be an object, got {type(payload).__name__}")
    return payload


def _job(payload: Mapping[str, Any], delivery_id: str, now: float) -> JobMessage:
    """Read the job of a payload, or raise with everything that is missing."""
    job = payload["workflow_job"]
    repository = payload.get("repository")
    installation = payload.get("installation")
    if not isinstance(job, dict):
        raise _PayloadError(f"workflow_job must be an object, got {type(job).__name__}")
    faults = [
        f"workflow_job.{key} must be a positive whole number, got {str(job.get(key))[:40]!r}"
        for key in ("id", "run_id")
        if type(job.get(key)) is not int or job[key] <= 0
    ]
    labels = job.get("labels")
    if (
        not isinstance(labels, list)
        or len(labels) > _MAX_LABELS
        or not all(isinstance(label, str) for label in labels)
    ):
        faults.append(f"workflow_job.labels must be a list of at most {_MAX_LABELS} texts")
    name = repository.get("full_name") if isinstance(repository, dict) else None
    if not isinstance(name, str) or name.count("/") != 1 or not all(name.split("/")):
        faults.append("repository.full_name must be owner/name")
    if faults or not isinstance(labels, list):
        raise _PayloadError("; ".join(faults))
    attempt = job.get("run_attempt")
    installation_id = installation.get("id") if isinstance(installation, dict) else None
    return JobMessage(
        job_id=job["id"],
        run_id=job["run_id"],
        run_attempt=attempt if type(attempt) is int else 1,
        repository=str(name),
        labels=tuple(labels),
        queued_at=_queued_at(job.get("created_at") or job.get("started_at"), now),
        installation_id=installation_id if type(installation_id) is int else None,
        workflow_name=str(job.get("workflow_name") or "")[:200],
        job_name=str(job.get("name") or "")[:200],
        delivery_id=delivery_id[:64],
    )


def _told(job: JobMessage) -> dict[str, Any]:
    """Return what a span tells of a job."""
    return {
        "job_id": job.job_id,
        "run_id": job.run_id,
        "repository": job.repository,
        "workflow": job.workflow_name,
        "job": job.job_name,
        "delivery_id": job.delivery_id,
    }


def _end(job: JobMessage, workflow_job: Mapping[str, Any]) -> JobEndedMessage:
    return JobEndedMessage(
        job_id=job.job_id,
        run_id=job.run_id,
        run_attempt=job.run_attempt,
        repository=job.repository,
        labels=job.labels,
        conclusion=str(workflow_job.get("conclusion") or "")[:40],
        installation_id=job.installation_id,
        runner_name=str(workflow_job.get("runner_name") or "")[:200],
        delivery_id=job.delivery_id,
    )


def _queued_at(created_at: object, now: float) -> float:
    """Return when a job was queued: when it was created, unless that cannot be it.

    A job that waited for an approval (up to 30 days) was created long before GitHub queued it, and
    its 24 hours only begin now.
    """
    try:
        created = datetime.fromisoformat(str(created_at)).timestamp()
    except (ValueError, OverflowError):
        return now
    return created if abs(now - created) < _FRESH_SECONDS else now


def _is_user_owned(payload: Mapping[str, Any]) -> bool:
    owner = payload["repository"].get("owner")
    return isinstance(owner, dict) and owner.get("type") == "User"
