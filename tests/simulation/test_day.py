"""A simulated day, small: its figures add up, and nothing is lost, left or forgotten."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from tests.simulation import day, plot


def test_a_day_loses_no_job_and_leaves_nothing() -> None:
    """Through interruptions, an outage, lost webhooks and dying agents every job gets its run."""
    figures, picture = day.live(1000, seed=1)
    assert figures.left == []
    assert figures.zombies == 0
    assert figures.lost == 0
    # the day was as bad as it was meant to be
    assert figures.interrupted >= 20
    assert figures.in_mid_job >= 10
    assert figures.redeliveries >= 5
    assert figures.reruns == figures.in_mid_job - figures.broken_off_twice
    assert figures.waits["max"] > 3000.0 > figures.waits_outside_outage["p95"] > 30.0
    assert figures.usd < figures.usd_on_demand
    drawn = ET.fromstring(plot.draw(picture))  # noqa: S314  it is our own
    assert drawn.get("viewBox") == f"0 0 {plot.WIDTH} {plot.HEIGHT}"
