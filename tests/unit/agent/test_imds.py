from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from runsfleet_runtime.agent.errors import AgentError, StopRequestedError
from runsfleet_runtime.agent.imds import TRIES, Imds
from tests.unit.agent.fakes import INSTANCE_ID, FakeClock
from tests.unit.agent.servers import ImdsState, imds_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def service() -> Iterator[ImdsState]:
    """Give a running metadata service."""
    with imds_server(INSTANCE_ID) as state:
        yield state


def imds(url: str, clock: FakeClock | None = None) -> Imds:
    """Give a client whose pauses take no time."""
    return Imds(url, pause=(clock or FakeClock()).pause, draw=lambda: 0.5)


def test_an_instance_learns_who_it_is_by_a_token(service: ImdsState) -> None:
    """The id and launch time are read with one token, as version 2 wants it."""
    client = imds(service.url + "/")
    assert client.instance_id() == INSTANCE_ID
    assert client.launched_at() == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert [r.split()[0] for r in service.requests] == ["PUT", "GET", "GET"]


def test_a_service_that_comes_up_late_is_asked_again(service: ImdsState) -> None:
    """Failures at boot are no answer: the id is asked for again, with pauses."""
    service.failures = 3
    clock = FakeClock()
    assert imds(service.url, clock).instance_id() == INSTANCE_ID
    assert clock.time > 1000


def test_an_expired_token_is_replaced(service: ImdsState) -> None:
    """A refused token leads to another one."""
    service.expired_tokens = 1
    assert imds(service.url).instance_id() == INSTANCE_ID
    assert sum(r.startswith("PUT") for r in service.requests) == 2


def test_a_service_that_never_answers_is_an_error(service: ImdsState) -> None:
    """After all tries the error names the address."""
    service.failures = 1000
    with pytest.raises(AgentError, match="meta-data/instance-id: HTTP Error 503"):
        imds(service.url).instance_id()
    assert len(service.requests) == TRIES


def test_an_unreachable_service_is_an_error() -> None:
    """A refused connection is tried again and told."""
    with pytest.raises(AgentError, match=r"cannot read http://127\.0\.0\.1:9"):
        imds("http://127.0.0.1:9").instance_id()


def test_only_an_instance_id_is_taken_for_one() -> None:
    """An answer of something else (a captive proxy, a path) is refused."""
    with (
        imds_server("../../etc") as service,
        pytest.raises(AgentError, match=r"answered '../../etc'"),
    ):
        imds(service.url).instance_id()


def test_a_proxy_never_sees_the_metadata(
    service: ImdsState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata is asked for directly even where a proxy is set."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert imds(service.url).instance_id() == INSTANCE_ID


@pytest.mark.parametrize("pending", [None, "yesterday"])
def test_an_unknown_launch_time_is_left_out(service: ImdsState, pending: str | None) -> None:
    """Without a usable identity document the launch time is unknown, which is no failure."""
    service.pending_time = pending
    assert imds(service.url).launched_at() is None


def test_a_stop_ends_the_retries(service: ImdsState) -> None:
    """The agent does not wait for a dead service after it was told to stop."""
    service.failures = 1000
    clock = FakeClock()
    clock.stop_at = 1000.5
    with pytest.raises(StopRequestedError):
        imds(service.url, clock).instance_id()
