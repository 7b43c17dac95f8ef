"""A day's bill for people, among other days; as Markdown here, as a page in ``page.py``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from runsfleet_runtime.cost.advice import advise
from runsfleet_runtime.cost.model import Line
from runsfleet_runtime.cost.prices import HOSTED_SOURCE
from runsfleet_runtime.cost.reckon import DayCost, Share
from runsfleet_runtime.cost.trends import Span, Trends

SECTIONS: Final = {
    "compute": "Compute",
    "storage": "Storage",
    "network": "Network",
    "services": "Supporting services",
}
_USUAL_HOURS: Final = 24
_SHARES: Final = 20  # more would hide who matters


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """A day's bill, among other days.

    Attributes:
        fleet: Name of the fleet.
        region: Its region.
        cost: The bill.
        trends: The other days.
    """

    fleet: str
    region: str
    cost: DayCost
    trends: Trends

    def summary(self) -> str:
        """Return a few lines for a notification."""
        cost, trends = self.cost, self.trends
        hours = math.fsum(cost.seconds.values()) / 3600
        what = f"{usd(cost.usd)}, {cost.jobs} jobs, {hours:.1f} instance hours"
        lines = [f"{self.fleet} in {self.region}, {cost.day.name}: {what}"]
        if trends.is_unusual and trends.usual_usd is not None:
            lines.append(f"Unusual: the days before cost {usd(trends.usual_usd)} (median).")
        lines.append(f"Month to date {_span(trends.month_to_date)}, forecast {self._forecast()}.")
        if (saved := cost.spot_savings_usd) is not None:
            lines.append(f"Spot saved {usd(saved)} against on-demand.")
        if cost.hosted_usd is not None:
            lines.append(f"GitHub's runners would have cost {usd(cost.hosted_usd)}.")
        lines += [f"Not in the sum: {text}." for text in self._gaps()]
        return "\n".join(lines)

    def _forecast(self) -> str:
        forecast = self.trends.forecast_usd
        return "not known yet (too few days)" if forecast is None else usd(forecast)

    def _gaps(self) -> list[str]:
        cost = self.cost
        gaps = []
        if cost.unpriced:
            gaps.append("no price known for " + ", ".join(cost.unpriced))
        if cost.unmeasured:
            gaps.append("not measured: " + ", ".join(cost.unmeasured))
        return gaps

    def remarks(self) -> list[str]:
        """Return what a reader must know before trusting the numbers."""
        cost = self.cost
        remarks = []
        if cost.is_partial:
            remarks.append("The day was not over when this was reckoned.")
        if cost.day.hours != _USUAL_HOURS:
            remarks.append(f"The clocks changed: this day has {cost.day.hours:.0f} hours.")
        if cost.open_instances:
            remarks.append(
                f"The end of {cost.open_instances} of {cost.instances} instances was not seen; "
                "they are reckoned until now, or until their longest life."
            )
        if any(line.price is not None and line.price.is_listed for line in cost.lines):
            remarks.append(
                "Some prices are of a dated table, not of today; the column Source tells which."
            )
        remarks += [f"Not in the sum: {text}." for text in self._gaps()]
        return remarks

    def facts(self) -> list[tuple[str, str]]:
        """Return the figures that come first, with their names."""
        cost, trends = self.cost, self.trends
        hours = {kind: s / 3600 for kind, s in cost.seconds.items()}
        facts = [
            ("Total", usd(cost.usd)),
            ("Jobs", str(cost.jobs)),
            ("Instances", str(cost.instances)),
            (
                "Instance hours",
                ", ".join(f"{h:.1f} {kind}" for kind, h in sorted(hours.items())) or "none",
            ),
        ]
        if (saved := cost.spot_savings_usd) is not None and cost.at_on_demand_usd:
            facts.append(
                (
                    "Saved by spot",
                    f"{usd(saved)} of {usd(cost.at_on_demand_usd)} at on-demand prices",
                )
            )
        if cost.hosted_usd is not None:
            part = (
                "" if cost.hosted_jobs == cost.jobs else f", {cost.hosted_jobs} of {cost.jobs} jobs"
            )
            facts.append(
                (
                    "The same jobs on GitHub's runners",
                    f"{usd(cost.hosted_usd)} ({HOSTED_SOURCE}, private repositories{part})",
                )
            )
        facts += [
            ("Last 7 days", _span(trends.week)),
            ("The 7 days before", _span(trends.before)),
            ("Last 30 days", _span(trends.month)),
            ("Month to date", _span(trends.month_to_date)),
            ("Forecast of the month", self._forecast()),
        ]
        if trends.usual_usd is not None:
            word = "unusual" if trends.is_unusual else "usual"
            facts.append(
                ("Against the 7 days before", f"{word}; their median is {usd(trends.usual_usd)}")
            )
        return facts

    # -- Markdown ------------------------------------------------------------------------------

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        cost = self.cost
        out = [f"# {self.fleet} in {self.region}: {cost.day.name}", ""]
        out += _table(["", ""], self.facts())
        out += [f"> {remark}" for remark in self.remarks()] + [""]
        for section, title in SECTIONS.items():
            lines = [line for line in cost.lines if line.section == section]
            if lines:
                out += [f"## {title}", ""]
                out += _table(["What", "Quantity", "Price", "USD", "Source"], map(row, lines))
        for title, shares in self.shares():
            out += [f"## By {title}", ""]
            out += _table(["Name", "Instances", "Hours", "USD"], map(share_row, shares))
        out += ["## What would be cheaper", ""]
        advice = [f"- {one.text}" for one in advise(cost)]
        out += advice or ["Nothing that would save ten cents a day."]
        return "\n".join(out).rstrip() + "\n"

    def shares(self) -> list[tuple[str, Sequence[Share]]]:
        """Return who caused the cost: by repository, workflow and pool."""
        cost = self.cost
        every = (
            ("repository", cost.repositories),
            ("workflow", cost.workflows),
            ("pool", cost.pools),
        )
        return [(title, shares[:_SHARES]) for title, shares in every if shares]


def usd(amount: float) -> str:
    """Return an amount as people read it; small ones with four digits."""
    return f"{amount:.2f} USD" if abs(amount) >= 1 or amount == 0 else f"{amount:.4f} USD"


def _span(span: Span) -> str:
    gap = "" if span.days == span.of else f" ({span.days} of {span.of} days known)"
    return f"{usd(span.usd)}, {span.jobs} jobs{gap}"


def row(line: Line) -> tuple[str, ...]:
    """Return the cells of a line of the bill."""
    price = "not known" if line.price is None else f"{line.price.usd:.6g}"
    total = "not known" if line.usd is None else f"{line.usd:.4f}"
    source = "" if line.price is None else line.price.source
    return line.what, f"{line.quantity:,.4g} {line.unit}", price, total, source


def share_row(share: Share) -> tuple[str, ...]:
    """Return the cells of one who caused cost."""
    return share.name, str(share.instances), f"{share.seconds / 3600:.1f}", f"{share.usd:.4f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in cells] + [""]
