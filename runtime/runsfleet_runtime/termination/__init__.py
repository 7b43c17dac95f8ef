"""The end of a runner: reports of instances close their job's record or hand the job back."""

from runsfleet_runtime.termination.reports import Reports

__all__ = ["Reports"]
