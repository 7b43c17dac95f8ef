"""A day's bill as one HTML page, with charts that need no script and no network."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Final

from runsfleet_runtime.cost.advice import advise
from runsfleet_runtime.cost.report import SECTIONS, CostReport, row, share_row, usd

_BILL: Final = ("What", "Quantity", "Price", "USD", "Source")
_SHARE: Final = ("Name", "Instances", "Hours", "USD")
_BARS: Final = 10  # the rest together
_NAME: Final = 30  # characters that fit beside a bar


def to_html(report: CostReport) -> str:
    """Return a report as a page.

    Args:
        report: The report.
    """
    cost = report.cost
    title = f"{report.fleet} in {report.region}: {cost.day.name}"
    parts = [f"<h1>{_e(title)}</h1>", _table((), report.facts(), "facts")]
    parts += [f'<p class="remark">{_e(remark)}</p>' for remark in report.remarks()]
    if len(report.trends.history) > 1:
        days = [(s.day, s.usd) for s in report.trends.history]
        parts += ["<h2>Last 30 days</h2>", _columns(days)]
    if cost.repositories:
        parts += ["<h2>Who caused it</h2>", _bars([(s.name, s.usd) for s in cost.repositories])]
    for section, heading in SECTIONS.items():
        lines = [line for line in cost.lines if line.section == section]
        if lines:
            parts += [f"<h2>{heading}</h2>", _table(_BILL, map(row, lines), "bill")]
    for name, shares in report.shares():
        parts += [f"<h2>By {name}</h2>", _table(_SHARE, map(share_row, shares), "bill")]
    parts.append("<h2>What would be cheaper</h2>")
    advice = "".join(f"<li>{_e(one.text)}</li>" for one in advise(cost))
    parts.append(
        f"<ul>{advice}</ul>" if advice else "<p>Nothing that would save ten cents a day.</p>"
    )
    return _PAGE.format(title=_e(title), body="\n".join(parts))


def _e(text: str) -> str:
    return html.escape(text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    top = "".join(f"<th>{_e(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<table class="{kind}">{f"<tr>{top}</tr>" if top else ""}{body}</table>'


def _columns(days: Sequence[tuple[str, float]]) -> str:
    """Return a chart of one column for each day."""
    width, height, foot = 720.0, 160.0, 22.0
    most = max(amount for _, amount in days) or 1.0
    step = width / len(days)
    marks = []
    for index, (day, amount) in enumerate(days):
        tall = amount / most * (height - 18)
        x = index * step
        marks.append(
            f'<rect x="{x + step * 0.15:.1f}" y="{height - tall:.1f}" width="{step * 0.7:.1f}" '
            f'height="{tall:.1f}"><title>{_e(day)}: {usd(amount)}</title></rect>'
        )
        if index % max(1, len(days) // 6) == 0:
            marks.append(
                f'<text x="{max(x + step / 2, 16):.1f}" y="{height + 16:.1f}">{_e(day[5:])}</text>'
            )
    marks.append(f'<text class="most" x="0" y="11">{usd(most)}</text>')
    return (
        f'<svg viewBox="0 0 {width:.0f} {height + foot:.0f}" role="img" '
        f'aria-label="Cost of each day">{"".join(marks)}</svg>'
    )


def _bars(shares: Sequence[tuple[str, float]]) -> str:
    """Return a chart of one bar for each name, the dearest first; the small ones together."""
    shown = list(shares[:_BARS])
    rest = math.fsum(amount for _, amount in shares[_BARS:])
    if rest:
        shown.append((f"{len(shares) - _BARS} others", rest))
    most = max(amount for _, amount in shown) or 1.0
    tall, left, width = 24, 220, 720
    marks = []
    for index, (name, amount) in enumerate(shown):
        y = index * tall
        length = max(1.0, amount / most * (width - left - 90))
        short = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
        marks.append(
            f'<text class="name" x="{left - 8}" y="{y + 16}">{_e(short)}</text>'
            f'<rect x="{left}" y="{y + 4}" width="{length:.1f}" height="{tall - 8}"/>'
            f'<text class="value" x="{left + length + 6:.1f}" y="{y + 16}">{usd(amount)}</text>'
        )
    return (
        f'<svg viewBox="0 0 {width} {len(shown) * tall}" role="img" '
        f'aria-label="Cost by repository">{"".join(marks)}</svg>'
    )


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; --line: #8884; --bar: #2f6feb; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
td, th {{ padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line);
  text-align: left; }}
.facts td:first-child {{ width: 16rem; opacity: .75; }}
.bill td:nth-child(n+2):nth-child(-n+4), .bill th:nth-child(n+2):nth-child(-n+4)
  {{ text-align: right; white-space: nowrap; }}
.remark {{ border-left: 3px solid var(--bar); padding-left: .75rem; }}
svg {{ width: 100%; height: auto; }} svg rect {{ fill: var(--bar); }}
svg text {{ font-size: 11px; fill: currentColor; text-anchor: middle; }}
svg .name {{ text-anchor: end; }} svg .value, svg .most {{ text-anchor: start; }}
</style></head><body>
{body}
</body></html>
"""
