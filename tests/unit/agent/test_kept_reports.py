from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runsfleet_runtime.agent.kept_reports import KeptReports
from runsfleet_runtime.contract.messages import ReportStatus, RunnerReport
from runsfleet_runtime.contract.paths import kept_report_key
from tests.unit.agent.fakes import INSTANCE_ID, FakeCache

if TYPE_CHECKING:
    from pathlib import Path

REPORT = RunnerReport(instance_id=INSTANCE_ID, job_id=5, status=ReportStatus.FAILURE)


def test_a_report_is_kept_on_disk_and_in_the_bucket(tmp_path: Path) -> None:
    """Both places hold the whole report, the bucket under the instance's identity."""
    bucket = FakeCache()
    KeptReports(tmp_path / "reports", role_id="AROA1", bucket=bucket).keep(REPORT)
    text = (tmp_path / "reports" / f"{INSTANCE_ID}.json").read_text()
    assert RunnerReport.from_json(text) == REPORT
    assert bucket.objects == {kept_report_key("AROA1", INSTANCE_ID): text.encode()}


def test_without_a_bucket_the_disk_has_it(tmp_path: Path) -> None:
    """A fleet without a cache keeps the report on disk alone."""
    KeptReports(tmp_path, role_id="AROA1", bucket=None).keep(REPORT)
    assert (tmp_path / f"{INSTANCE_ID}.json").exists()


def test_a_bucket_that_fails_leaves_the_file(tmp_path: Path) -> None:
    """The failure is told, the file stays."""
    kept = KeptReports(tmp_path, role_id="AROA1", bucket=FakeCache(OSError("no bucket")))
    with pytest.raises(OSError, match="no bucket"):
        kept.keep(REPORT)
    assert (tmp_path / f"{INSTANCE_ID}.json").exists()
