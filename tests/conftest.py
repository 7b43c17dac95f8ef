"""What every test stands on: no AWS account, no developer's region, repeatable hypothesis."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# before any test module makes a client: nothing can reach a real account by accident
for _name in [name for name in os.environ if name.startswith(("AWS_", "RUNSFLEET_"))]:
    del os.environ[_name]
os.environ |= {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}

# a shell ignores SIGINT for what it starts in the background, and so would every runner of a test
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile(
    "explore", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


_WAITING = Path(__file__).parent / "e2e"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits most, so that the processes of `make test` end together."""
    items.sort(key=lambda item: _WAITING not in item.path.parents)


@pytest.fixture(autouse=True)
def logs_of_this_test_only() -> Iterator[None]:
    """Take the handlers away that a test configured: a late thread must not write to its stream."""
    yield
    logging.getLogger("runsfleet").handlers.clear()
