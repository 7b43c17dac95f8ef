"""The whole of a template, so that no change of it goes unseen."""

from __future__ import annotations

from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from tests.infrastructure.templates import Template, normalised


def test_template_of_dev(dev: Template, snapshot: SnapshotAssertion) -> None:
    """The dev stack is what the snapshot says; `pytest --snapshot-update` takes a change over."""
    assert normalised(dev.body) == snapshot.use_extension(JSONSnapshotExtension)
