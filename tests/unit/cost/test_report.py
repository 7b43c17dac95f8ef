"""The report for people."""

from __future__ import annotations

from datetime import date, timedelta
from html.parser import HTMLParser
from typing import Any

from runsfleet_runtime.cost.advice import advise
from runsfleet_runtime.cost.model import Day, InstanceUse, Item, JobUse
from runsfleet_runtime.cost.page import to_html
from runsfleet_runtime.cost.prices import ListedPrices
from runsfleet_runtime.cost.reckon import DayCost, reckon
from runsfleet_runtime.cost.report import CostReport
from runsfleet_runtime.cost.trends import Summary, trends

LAST = date(2026, 11, 20)
DAY = Day.of(LAST)


def cost_of(count: int = 20, **changes: Any) -> DayCost:
    """Return the bill of instances that ran for half an hour each."""
    values: dict[str, Any] = {
        "instance_type": "c7g.xlarge",
        "availability_zone": "us-east-1a",
        "capacity_type": "on-demand",
        "workflow": "ci",
        "disk_gib": 50,
        "launched_at": DAY.start,
        "ended_at": DAY.start + 1800,
    }
    instances = [
        InstanceUse(
            **{
                **values,
                "instance_id": f"i-{n}",
                "repository": f"acme/<{n % 12}>|x",
                **changes,
            }
        )
        for n in range(count)
    ]
    jobs = [
        JobUse(job_id=n, repository="a/b", vcpus=4, arch="arm64", is_windows=False, seconds=1700)
        for n in range(count)
    ]
    return reckon(
        DAY,
        instances=instances,
        jobs=jobs,
        services={Item.LAMBDA_REQUEST: 1234.0, Item.SQS_REQUEST: None},
        prices=ListedPrices(),
        now=DAY.end + 3600,
        lifetime=8 * 3600,
    )


def report_of(cost: DayCost, before: float = 0.1) -> CostReport:
    """Return the report of a bill among thirty other days."""
    earlier = [
        Summary(
            day=(LAST - timedelta(days=n)).isoformat(),
            usd=before + n / 100,
            jobs=5,
            instance_seconds=1,
            spot_seconds=0,
        )
        for n in range(1, 30)
    ]
    together = trends(Summary.of(cost), earlier)
    return CostReport(fleet="dev", region="us-east-1", cost=cost, trends=together)


class _Page(HTMLParser):
    """Finds elements that are not closed, and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        del attrs
        if tag not in {"meta", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_markdown_has_total_sources_and_gaps() -> None:
    """A reader sees the sum, where each price is from, and what is not in it."""
    text = report_of(cost_of()).to_markdown()
    assert "| Total | 1.56 USD |" in text
    assert "table of 2026-01-19 (us-east-1)" in text
    assert "> Not in the sum: not measured: SQS requests." in text
    assert "dated table" in text
    assert "acme/<0>\\|x" in text


def test_page_is_well_formed_and_shows_names_as_they_are() -> None:
    """Every element is closed and no name of a repository becomes markup."""
    page = _Page()
    text = to_html(report_of(cost_of()))
    page.feed(text)
    assert page.open == []
    assert "acme/<0>|x" in page.texts
    assert "2 others" in page.texts
    assert text.count("<svg") == 2
    assert "http" not in text.replace("http-equiv", "")


def test_summary_fits_into_a_message() -> None:
    """A few lines with the sum, the month and the gaps."""
    text = report_of(cost_of()).summary()
    assert text.splitlines()[0] == (
        "dev in us-east-1, 2026-11-20: 1.56 USD, 20 jobs, 10.0 instance hours"
    )
    assert "GitHub's runners would have cost 4.64 USD." in text
    assert len(text) < 1000


def test_an_unusual_day_is_said_first() -> None:
    """Twice the usual and five dollars more."""
    text = report_of(cost_of(400)).summary()
    assert text.splitlines()[1].startswith("Unusual")


def test_advice_carries_its_arithmetic() -> None:
    """All on demand: what spot would have cost, and that its discount was not measured."""
    (first, *_) = advise(cost_of(200))
    assert "100% of the instance hours were bought on demand for 14.50 USD" in first.text
    assert "14.50 x 0.40 = 5.80 USD a day" in first.text
    assert "not measured" in first.text


def test_short_lives_and_large_disks_are_told_of() -> None:
    """Boots and volumes that cost more than they serve."""
    texts = [one.text for one in advise(cost_of(2000, ended_at=DAY.start + 80, disk_gib=500))]
    assert any("lived for 80 s" in text for text in texts)
    assert any("Volumes are" in text for text in texts)


def test_a_day_without_jobs_is_a_report_too() -> None:
    """Nothing is divided by zero, and nothing is advised."""
    report = report_of(cost_of(0))
    assert "| Total | 0.0002 USD |" in report.to_markdown()
    assert "Nothing that would save ten cents a day." in to_html(report)
