"""The reference for workflow authors says what the grammar does."""

from __future__ import annotations

import re
from pathlib import Path

from runsfleet_runtime.fleet.catalogue import CATALOGUE
from runsfleet_runtime.labels import Accepted, LabelSettings, Refused, resolve
from runsfleet_runtime.labels.families import FAMILIES
from runsfleet_runtime.labels.named import CPU_COUNTS
from runsfleet_runtime.labels.reader import KEYS

TEXT = (Path(__file__).parents[3] / "docs" / "labels.md").read_text(encoding="utf-8")
SETTINGS = LabelSettings()


def blocks(kind: str) -> list[str]:
    """Return the lines of the fenced blocks of a kind."""
    found = re.findall(rf"^```{kind}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines()]


def test_examples_are_accepted() -> None:
    """Every label shown as an example is accepted."""
    examples = blocks("text")
    assert len(examples) > 10
    for label in examples:
        assert isinstance(resolve([label], SETTINGS), Accepted), label


def test_refusals_read_as_shown() -> None:
    """Every label shown as refused is refused with exactly the findings shown."""
    shown: dict[str, list[str]] = {}
    label = ""
    for line in blocks("refused"):
        if line.startswith("  "):
            shown[label].append(line.strip())
        else:
            label = line
            shown[label] = []
    assert len(shown) >= 10
    for label, lines in shown.items():
        outcome = resolve([label], SETTINGS)
        assert isinstance(outcome, Refused), label
        assert [str(finding) for finding in outcome.findings] == lines


def test_named_runners_are_as_in_the_table() -> None:
    """Each row of the table of named runners is what such a label gets."""
    rows = re.findall(
        r"^\| `(\d+cpu-[\w-]+)` \| ([\w.]+).*? \| (\d+) GiB \| (\d+) GiB \|$",
        TEXT,
        flags=re.MULTILINE,
    )
    assert len(rows) == 13
    for runner, first, memory, disk in rows:
        outcome = resolve([f"runs-fleet/runner={runner}"], SETTINGS)
        assert isinstance(outcome, Accepted)
        spec = outcome.spec
        assert (spec.preferred_type, spec.ram_gib_min, spec.disk_gib) == (
            first,
            int(memory),
            int(disk),
        )
        assert CATALOGUE[first].memory_gib == int(memory)


def test_nothing_is_left_out() -> None:
    """Every key, every family and every size of a named runner is mentioned."""
    assert re.findall(r"^\| `(\w+)` \| ", TEXT, flags=re.MULTILINE) == list(KEYS)
    assert set(FAMILIES) <= set(re.findall(r"\b[a-z]\d[a-z]+\b|\bt3\b", TEXT))
    *some, last = map(str, CPU_COUNTS)
    assert f"n of {', '.join(some)} or {last}" in TEXT
