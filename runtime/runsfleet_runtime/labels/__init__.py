"""The label grammar: what ``runs-on`` of a job asks of the fleet.

Pure and standard library only; the webhook imports it, so that it imports little itself. Start at
:func:`resolve`; ``docs/labels.md`` is the reference for those who write workflows.
"""

from runsfleet_runtime.labels.model import (
    MARKER,
    Accepted,
    Arch,
    LabelFinding,
    NotOurs,
    Os,
    Outcome,
    Refused,
    RetryPolicy,
    RunnerSpec,
)
from runsfleet_runtime.labels.resolve import resolve
from runsfleet_runtime.labels.settings import (
    LabelAlias,
    LabelImage,
    LabelLimits,
    LabelSettings,
    LabelSettingsError,
    read_aliases,
)

__all__ = [
    "MARKER",
    "Accepted",
    "Arch",
    "LabelAlias",
    "LabelFinding",
    "LabelImage",
    "LabelLimits",
    "LabelSettings",
    "LabelSettingsError",
    "NotOurs",
    "Os",
    "Outcome",
    "Refused",
    "RetryPolicy",
    "RunnerSpec",
    "read_aliases",
    "resolve",
]
