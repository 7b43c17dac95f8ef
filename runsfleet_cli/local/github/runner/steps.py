"""Keeps the state of a job's steps from the lines that act writes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

SET_UP_JOB = "Main:--setup-job"
SET_UP_RUNNER = "Set up runner"
COMPLETE_RUNNER = "Complete runner"
COMPLETE_JOB = "Complete job"
OUTPUT_STEP_ID = "runsfleet-job-outputs"
# act asks git for a ref and a commit that a checkout without history does not have
_NOISE = ("unable to get git", "not located inside a git repository", "docker connection")
_RESULTS = {"success", "failure", "skipped", "cancelled"}


def step_name(step: Mapping[str, Any]) -> str:
    """Answer the name that GitHub shows for a step."""
    if step.get("name"):
        return str(step["name"])
    if step.get("uses"):
        return f"Run {step['uses']}"
    first = str(step.get("run", "")).strip().splitlines()
    return f"Run {first[0] if first else ''}".strip()


class StepBook:
    """The steps of one job, numbered as GitHub does.

    Args:
        key: The job's key in the workflow.
        steps: Their definitions, from the prepared workflow.
    """

    def __init__(self, key: str, steps: Sequence[Mapping[str, Any]]) -> None:
        self._key = key
        self._entries: dict[str, dict[str, Any]] = {}
        self._defined = {
            str(step.get("id") or index): step_name(step) for index, step in enumerate(steps)
        }
        self.result: str | None = None
        self.changed = True

        # steps are shown in the order of the file, whenever they began
        self._order = [
            SET_UP_JOB,
            SET_UP_RUNNER,
            *(f"Main:{number}" for number in self._defined),
            *(f"Post:{number}" for number in reversed(self._defined)),
            COMPLETE_RUNNER,
            COMPLETE_JOB,
        ]

    def begin(self, identity: str, name: str) -> None:
        """Note that a step began."""
        if identity not in self._entries:
            self._entries[identity] = {
                "name": name,
                "status": "in_progress",
                "conclusion": None,
                "startedAt": time.time(),
                "completedAt": None,
            }
            self.changed = True

    def end(self, identity: str, conclusion: str) -> None:
        """Note how a step ended."""
        entry = self._entries.get(identity)
        if entry is not None and entry["status"] != "completed":
            entry |= {
                "status": "completed",
                "conclusion": conclusion,
                "completedAt": time.time(),
            }
            self.changed = True

    def close(self, conclusion: str) -> None:
        """End whatever is open, and add the defined steps that never began as skipped."""
        for identity in self._entries:
            self.end(identity, conclusion)
        for number, name in self._defined.items():
            identity = f"Main:{number}"
            if identity not in self._entries and number != OUTPUT_STEP_ID:
                self.begin(identity, name)
                self.end(identity, "skipped")

    def read(self, line: Mapping[str, Any]) -> str | None:
        """Take one line of act; answers the text for the log, if it has any.

        Args:
            line: A parsed line of ``act --json``.
        """
        message = str(line.get("msg", "")).rstrip("\n")
        if line.get("jobID") not in {None, self._key}:
            return None
        if "jobResult" in line:
            self.result = str(line["jobResult"])
        numbers = line.get("stepID") or line.get("stepid") or []
        number = str(numbers[0]) if numbers else ""
        if number in {OUTPUT_STEP_ID, "--complete-job"}:
            return None
        if number:
            self._follow(line, number, message)
        if line.get("level") in {"warning", "error"} and any(text in message for text in _NOISE):
            return None
        return message or None

    def _follow(self, line: Mapping[str, Any], number: str, message: str) -> None:
        stage = str(line.get("stage", "Main"))
        identity = f"{stage}:{number}"
        name = "Set up job" if number == "--setup-job" else self._defined.get(number, number)
        if stage == "Post":
            name = f"Post {name}"
        if message.startswith("⭐ Run "):
            self.begin(identity, name)
        result = line.get("stepResult")
        if result in _RESULTS:
            self.begin(identity, name)
            self.end(identity, str(result))

    def as_list(self) -> list[dict[str, Any]]:
        """Answer the steps for the service."""
        self.changed = False
        known = [self._entries[key] for key in self._order if key in self._entries]
        return [entry | {"number": number} for number, entry in enumerate(known, 1)]
