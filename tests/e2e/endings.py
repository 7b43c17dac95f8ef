"""One job whose instances meet trouble: drive it, look at what is recorded and at what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runsfleet_cli.local.client import CloudRefusedError
from tests.e2e.clouds import processes_of
from tests.e2e.tuning import client

if TYPE_CHECKING:
    from tests.e2e.clouds import Cloud

WORKFLOW = """\
name: Ending
on: push
jobs:
  ending:
    runs-on: "runs-fleet=${{{{ github.run_id }}}}/runner=2cpu-linux-arm64"
    steps:
      - run: {command}
"""
POLL_SECONDS = 0.1


@dataclass
class Trial:
    """A job of one step, from its queueing on.

    Args:
        cloud: Where.
        folder: For its workflow file.
        command: What its step runs.
    """

    cloud: Cloud
    folder: Path
    command: str = "true"
    begun: float = field(init=False)
    job_id: int = field(init=False)

    def __post_init__(self) -> None:
        """Queue it."""
        file = self.folder / "ending.yml"
        file.write_text(WORKFLOW.format(command=self.command))
        self.begun = float(self.cloud.client.state()["time"])
        (run,) = self.cloud.client.github("POST", "runs", {"file": str(file)})["runs"]
        self.job_id = int(run["jobs"][0]["id"])

    @property
    def job(self) -> Mapping[str, Any]:
        """The job at GitHub."""
        found: Mapping[str, Any] = self.cloud.client.github("GET", f"jobs/{self.job_id}")
        return found

    @property
    def record(self) -> dict[str, Any]:
        """The fleet's record of the job."""
        item = client(self.cloud, "dynamodb").get_item(
            TableName=self.cloud.running.endpoints.tables["jobs"],
            Key={"job_id": {"S": str(self.job_id)}},
            ConsistentRead=True,
        )
        values = item.get("Item", {})
        return {name: next(iter(value.values())) for name, value in values.items()}

    @property
    def instances(self) -> list[Mapping[str, Any]]:
        """The instances that were launched since, in their order."""
        found = self.cloud.client.state()["instances"]
        mine = [one for one in found if float(one["launched_at"]) >= self.begun - 0.01]
        return sorted(mine, key=lambda one: float(one["launched_at"]))

    def until(self, what: Callable[[], Any], seconds: float = 30.0) -> Any:
        """Wait for something, within a bound; gives it."""
        deadline = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < deadline, (self.job, self.record, self.instances)
            time.sleep(POLL_SECONDS)
        return found

    def until_instance(self, number: int = 1) -> str:
        """Wait until so many instances were launched; gives the id of that one."""
        return str(self.until(lambda: self._launched(number))[number - 1]["instance_id"])

    def until_job_runs(self) -> str:
        """Wait until the fleet knows that the job started; gives its instance."""
        self.until(lambda: "started_at" in self.record)
        return str(self.record["instance_id"])

    def act(self, what: str, instance_id: str, **body: Any) -> float:
        """Do something to an instance, as soon as it can be done; gives the time."""

        def done() -> bool:
            try:
                self.cloud.client.act_on(instance_id, what, body)
            except CloudRefusedError:
                return False
            return True

        self.until(done)
        return time.time()

    def ended_after(self, since: float, instance_id: str, seconds: float) -> float:
        """Wait until an instance is gone with all that was on it, within a bound.

        Returns:
            The seconds that it took.
        """

        def gone() -> float | None:
            (one,) = [one for one in self.instances if one["instance_id"] == instance_id]
            if one["state"] != "terminated":
                return None
            return float(one["changes"][-1]["time"])

        end = float(self.until(gone, seconds + max(since - time.time(), 0.0)))
        mark = f"{self.cloud.running.endpoints.directory}/instances/{instance_id}"
        assert not processes_of(mark)
        assert not Path(mark).exists()
        assert end - since <= seconds, self.instances
        return end - since

    def closed(self, seconds: float = 30.0) -> dict[str, Any]:
        """Wait until the record is closed; gives it."""
        self.until(lambda: self.record.get("status") == "completed", seconds)
        return self.record

    def run_again(self, seconds: float = 120.0) -> None:
        """Wait until GitHub has run the job again, with success."""
        path = f"runs/{self.job['run_id']}"
        self.until(
            lambda: self.cloud.client.github("GET", path)["conclusion"] == "success", seconds
        )
        assert self.record["rerun"] == "done"

    def _launched(self, number: int) -> list[Mapping[str, Any]] | None:
        found = self.instances
        return found if len(found) >= number else None
