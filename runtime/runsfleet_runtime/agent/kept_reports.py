"""Reports that the queue did not take: kept where a sweep finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runsfleet_runtime.contract.paths import kept_report_key
from runsfleet_runtime.telemetry.log import get_logger

if TYPE_CHECKING:
    from pathlib import Path

    from runsfleet_runtime.agent.ports import StoresFiles
    from runsfleet_runtime.contract.messages import RunnerReport

_log = get_logger("agent.reports")


class KeptReports:
    """Keeps reports on disk and, as the disk goes with the instance, in the fleet's bucket.

    Args:
        directory: On disk.
        role_id: Unique id of the instance's role.
        bucket: The fleet's bucket; ``None`` when it has none.
    """

    def __init__(self, directory: Path, *, role_id: str, bucket: StoresFiles | None) -> None:
        self._directory = directory
        self._role_id = role_id
        self._bucket = bucket

    def keep(self, report: RunnerReport) -> None:
        """Keep a report; raises when neither place took it."""
        key = kept_report_key(self._role_id, report.instance_id)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._directory / f"{report.instance_id}.json"
        file.write_text(report.to_json(), encoding="utf-8")
        _log.warning("report kept", extra={"file": str(file)})
        if self._bucket is not None:
            self._bucket.store(key, file)
            _log.warning("report kept", extra={"key": key})
