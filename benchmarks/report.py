"""What a benchmark found, and the small table that it is shown in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        what: What was measured.
        figure: The figure with its unit, for people.
        against: What it is compared with, with its figure; empty when it is a count.
        ratio: Figure by baseline, or a count; what the budget is about unless ``judged`` is given.
        spread: Lowest and highest quarter of the ratio's rounds.
        budget: The most that it may be; ``None`` when it is shown for information.
        judged: What the budget is compared with when that is not the ratio.
        unit: Unit of the budget; ``x`` for a ratio.
    """

    what: str
    figure: str
    against: str = ""
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    budget: float | None = None
    judged: float | None = None
    unit: str = "x"

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or nothing when there is no budget."""
        value = self.ratio if self.judged is None else self.judged
        if self.budget is None or value is None:
            return ""
        return "met" if value <= self.budget else "missed"

    def as_dict(self) -> dict[str, Any]:
        """Return it with its verdict, for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def print_table(title: str, rows: Sequence[Row]) -> None:
    """Print rows as a table whose columns are as wide as they need to be."""
    head = (title, "figure", "against", "ratio", "quartiles", "budget", "")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    print()
    for index, line in enumerate(cells):
        print(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        )
        if index == 0:
            print("  ".join("-" * width for width in widths))


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    spread = "" if row.spread is None else f"{row.spread[0]:.2f}-{row.spread[1]:.2f}"
    unit = row.unit if row.unit == "x" else f" {row.unit}"
    budget = "" if row.budget is None else f"{row.budget:g}{unit}"
    return (row.what, row.figure, row.against, ratio, spread, budget, row.verdict)
