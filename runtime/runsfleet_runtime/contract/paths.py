"""SSM parameter names, S3 keys, log streams and paths on an image that several sides spell."""

from __future__ import annotations

AGENT_HOME = "/opt/runsfleet"
"""Where agent, runner and work live on an instance, unless ``RUNSFLEET_HOME`` says otherwise."""

WINDOWS_AGENT_HOME = "C:\\runsfleet"
"""The same on Windows; short, since many programs there know no path beyond 260 characters."""

WINDOWS_PLATFORM = "windows-"
"""Beginning of the names of the platforms that run Windows."""

BAKED_RUNNER_DIRECTORY = "runner"
"""Folder of the home where an image holds an unpacked runner, so that nobody need fetch one."""

BAKED_RUNNER_MARKER = "runner.json"
"""File of the home that tells of it: ``{"version": "2.337.0", "platform": "linux-arm64"}``."""

WORK_DIRECTORY = "work"
"""Folder of the home where each job's files are."""

HEARTBEAT_FILE = "heartbeat"
"""File of the home that the agent touches while it lives; the instance's watchdog looks at it."""

LOG_DIRECTORY = "log"
"""Folder of the home where log lines wait while the log service does not answer."""

REPORTS_DIRECTORY = "reports"
"""Folder of the home for the last report when the queue did not take it."""

KEPT_REPORTS_PREFIX = "reports/"
"""Beginning of the keys of such reports in the fleet's cache bucket."""


ARCHIVED_JOBS_PREFIX = "jobs/"
"""Beginning of the keys of archived job records in the fleet's cache bucket."""


def archived_jobs_key(day: str, batch_id: str) -> str:
    """Return the S3 key of a batch of archived job records, as JSON Lines.

    Args:
        day: Day of the archiving, ISO 8601.
        batch_id: Tells the batches of a day apart.

    Example:
        >>> archived_jobs_key("2026-11-21", "4f1c")
        'jobs/2026/11/21/4f1c.jsonl'
    """
    return f"{ARCHIVED_JOBS_PREFIX}{day.replace('-', '/')}/{batch_id}.jsonl"


COST_REPORTS_PREFIX = "cost/"
"""Beginning of the keys of cost reports in the fleet's cache bucket."""


def cost_report_key(day: str, suffix: str) -> str:
    """Return the S3 key of a day's cost report.

    Args:
        day: The day, ISO 8601.
        suffix: ``md``, ``html``, or ``json`` for the summary that later days compare with.

    Example:
        >>> cost_report_key("2026-11-21", "md")
        'cost/2026/11/21.md'
    """
    return f"{COST_REPORTS_PREFIX}{day.replace('-', '/')}.{suffix}"


def kept_report_key(role_id: str, instance_id: str) -> str:
    """Return the S3 key of a report that the termination queue did not take.

    IAM binds it to the instance: ``{role id}:{instance id}`` is its ``aws:userid``.

    Args:
        role_id: Unique id of the instance role (``AROA…``).
        instance_id: The EC2 instance id.

    Example:
        >>> kept_report_key("AROAEXAMPLE", "i-0abc")
        'reports/AROAEXAMPLE:i-0abc.json'
    """
    return f"{KEPT_REPORTS_PREFIX}{role_id}:{instance_id}.json"


def runner_config_parameter(prefix: str, instance_id: str, part: int) -> str:
    """Return the name of one part of a runner's configuration in Parameter Store.

    A configuration is split because a JIT configuration alone (about 4,100 characters) exceeds the
    4,096 of a standard parameter.

    Args:
        prefix: The fleet's prefix, such as ``/runs-fleet/dev/runners``.
        instance_id: The EC2 instance id.
        part: Number of the part, from 0.

    Example:
        >>> runner_config_parameter("/runs-fleet/dev/runners", "i-0abc", 0)
        '/runs-fleet/dev/runners/i-0abc/config/0'
    """
    return f"{prefix.rstrip('/')}/{instance_id}/config/{part}"


def runner_config_prefix(fleet: str) -> str:
    """Return the prefix of all runner configurations of a fleet in Parameter Store.

    Example:
        >>> runner_config_prefix("dev")
        '/runs-fleet/dev/runners'
    """
    return f"/runs-fleet/{fleet}/runners"


def runner_package_key(version: str, platform: str, filename: str) -> str:
    """Return the S3 key of a runner package in the fleet's cache bucket.

    Args:
        version: Version of actions/runner, such as ``2.337.0``.
        platform: ``linux-arm64``, ``linux-x64`` or ``windows-x64``.
        filename: Name of the release asset.

    Example:
        >>> runner_package_key(
        ...     "2.337.0", "linux-arm64", "actions-runner-linux-arm64-2.337.0.tar.gz"
        ... )
        'runners/2.337.0/linux-arm64/actions-runner-linux-arm64-2.337.0.tar.gz'
    """
    return f"runners/{version}/{platform}/{filename}"


WEBHOOK_PATH = "/webhook"
"""Where GitHub's deliveries arrive."""

HEALTH_PATH = "/health"
"""Where anybody may ask how the fleet is."""

HEALTH_ROUTE = f"GET {HEALTH_PATH}"
"""The same as API Gateway names the route in each event."""


def session_document(fleet: str) -> str:
    """Return the name of the SSM document by which shells on a fleet's instances are opened.

    Example:
        >>> session_document("dev")
        'runs-fleet-dev-session'
    """
    return f"runs-fleet-{fleet}-session"


def log_stream(instance_id: str, job_id: int) -> str:
    """Return the log stream of an instance and the job that it was launched for.

    Args:
        instance_id: The EC2 instance id.
        job_id: GitHub's job id; 0 when the instance never learned of one.

    Example:
        >>> log_stream("i-0abc", 5), log_stream("i-0abc", 0)
        ('i-0abc/5', 'i-0abc/boot')
    """
    return f"{instance_id}/{job_id or 'boot'}"


def diagnostics_stream(instance_id: str, job_id: int) -> str:
    """Return the log stream of the runner's own diagnostics (``_diag``).

    Example:
        >>> diagnostics_stream("i-0abc", 5)
        'i-0abc/5/diag'
    """
    return f"{log_stream(instance_id, job_id)}/diag"
