from __future__ import annotations

import pytest

from runsfleet_runtime.agent.configuration import await_configuration
from runsfleet_runtime.agent.errors import ConfigurationError, StopRequestedError
from runsfleet_runtime.contract.messages import RunnerConfig
from tests.unit.agent.fakes import INSTANCE_ID, JIT, FakeClock, FakeConfigurations, runner_config


def wait(
    store: FakeConfigurations, clock: FakeClock | None = None, timeout: float = 300
) -> RunnerConfig:
    """Wait for the configuration, by a clock that jumps."""
    return await_configuration(
        store, INSTANCE_ID, timeout=timeout, clock=clock or FakeClock(), draw=lambda: 0.5
    )


def test_a_configuration_that_is_there_is_read_once() -> None:
    """An instance that boots after its configuration was written makes one call."""
    store = FakeConfigurations(runner_config().to_json())
    assert wait(store) == runner_config()
    assert store.reads == 1


def test_a_late_configuration_is_waited_for() -> None:
    """An instance that is faster than dispatch asks again until its configuration is there."""
    store = FakeConfigurations(None, None, None, runner_config().to_json())
    assert wait(store) == runner_config()
    assert store.reads == 4


def test_a_failing_store_is_not_read_as_empty() -> None:
    """An error of the store is tried again and, at the deadline, told."""
    clock = FakeClock()
    store = FakeConfigurations(OSError("throttled"), runner_config().to_json())
    assert wait(store, clock) == runner_config()
    with pytest.raises(ConfigurationError, match=r"within 60 s.*throttled"):
        wait(FakeConfigurations(OSError("throttled")), timeout=60)


def test_the_wait_has_a_deadline() -> None:
    """Without a configuration the wait ends at its deadline, after few calls."""
    clock = FakeClock()
    store = FakeConfigurations(None)
    with pytest.raises(ConfigurationError, match="no configuration for i-0123456789abcdef0"):
        wait(store, clock)
    assert 290 <= clock.time - 1000 <= 300
    assert store.reads < 120


def test_the_wait_ends_when_the_agent_is_told_to_stop() -> None:
    """A stop in the middle of the wait ends it."""
    clock = FakeClock()
    clock.stop_at = 1010.0
    with pytest.raises(StopRequestedError, match="SIGTERM"):
        wait(FakeConfigurations(None), clock)
    assert clock.time < 1020


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (runner_config(instance_id="i-0fffffffffffffff0").to_json(), "is for i-0ffff"),
        (runner_config(jit_config="").to_json(), "neither a JIT"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"instance_id": "i-0123456789abcdef0"}', "lacks"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(text: str, complaint: str) -> None:
    """Another instance's configuration, or a broken one, is refused at once and without secrets."""
    store = FakeConfigurations(text)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        wait(store)
    assert store.reads == 1
    assert JIT not in str(caught.value)
