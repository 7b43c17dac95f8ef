"""Local clouds that tests share: one plain, one strict, each started once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.clouds import Cloud, started


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Everything here drives the whole local cloud."""
    for item in items:
        if Path(item.fspath).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A plain local cloud."""
    with started(tmp_path_factory.mktemp("plain"), strict=False) as found:
        yield found


@pytest.fixture(scope="session")
def strict_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A local cloud with IAM enforcement and TLS."""
    with started(tmp_path_factory.mktemp("strict"), strict=True) as found:
        yield found
