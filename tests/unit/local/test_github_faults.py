"""Releases, injected faults and rate limits of the GitHub stand-in."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Iterator

import pytest

from runsfleet_cli.local.github import BackgroundStandIn, Fault, RateLimits
from runsfleet_cli.local.github.runner_package import pack
from tests.unit.local.github_api import control, fetch, installation_token

DOWNLOADS = "/orgs/octo-org/actions/runners/downloads"
JIT = "/orgs/octo-org/actions/runners/generate-jitconfig"


@pytest.fixture
def github() -> Iterator[BackgroundStandIn]:
    """Answer a fresh stand-in."""
    with BackgroundStandIn() as stand_in:
        yield stand_in


def mint(github: BackgroundStandIn, token: str, name: str) -> int:
    """Ask for a JIT configuration and answer the status."""
    body = {"name": name, "runner_group_id": 1, "labels": ["x"]}
    return fetch("POST", f"{github.url}{JIT}", token=token, body=body).status


def test_downloads_have_the_digest_of_what_is_served(github: BackgroundStandIn) -> None:
    """The checksum of `runners/downloads`, the asset's digest and the bytes agree."""
    found = fetch("GET", f"{github.url}{DOWNLOADS}", token=installation_token(github)).json
    assert {entry["architecture"] for entry in found} == {"arm64", "x64"}
    release = fetch("GET", f"{github.url}/repos/actions/runner/releases/latest").json
    digests = {asset["name"]: asset["digest"] for asset in release["assets"]}
    for entry in found:
        served = fetch("GET", entry["download_url"]).content
        digest = hashlib.sha256(served).hexdigest()
        assert digest == entry["sha256_checksum"]
        assert digests[entry["filename"]] == f"sha256:{digest}"
        assert f"-->{digest}<!--" in release["body"]


def test_the_runner_package_is_the_same_every_time() -> None:
    """Packing twice gives identical bytes."""
    assert pack("arm64") == pack("arm64")


def test_a_download_can_be_spoilt(github: BackgroundStandIn) -> None:
    """A fault changes a byte of a download, or cuts it short."""
    entry = github.stand_in.releases.downloads()[0]
    fault = github.call(
        lambda: github.stand_in.add_fault(Fault("*/releases/download/*", download="wrong-digest"))
    )
    spoilt = fetch("GET", entry["download_url"]).content
    assert hashlib.sha256(spoilt).hexdigest() != entry["sha256_checksum"]
    control(github, "DELETE", f"/faults/{fault.id}")
    control(github, "POST", "/faults", {"route": "*/releases/download/*", "download": "truncated"})
    with pytest.raises(http.client.IncompleteRead):
        fetch("GET", entry["download_url"])


def test_a_download_can_be_slow(github: BackgroundStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow download takes its time and is complete in the end."""
    monkeypatch.setattr("runsfleet_cli.local.github.releases.SLOW_SECONDS", 0.4)
    entry = github.stand_in.releases.downloads()[0]
    control(github, "POST", "/faults", {"route": "*/releases/download/*", "download": "slow"})
    began = time.monotonic()
    content = fetch("GET", entry["download_url"]).content
    assert time.monotonic() - began >= 0.4
    assert hashlib.sha256(content).hexdigest() == entry["sha256_checksum"]


def test_a_fault_answers_a_status_some_times(github: BackgroundStandIn) -> None:
    """A rule for a route strikes as often as it says, with its headers; others are untouched."""
    token = installation_token(github)
    control(
        github,
        "POST",
        "/faults",
        {
            "route": "*/generate-jitconfig",
            "status": 429,
            "headers": {"retry-after": "7"},
            "message": "slow down",
            "count": 1,
        },
    )
    body = {"name": "one", "runner_group_id": 1, "labels": ["x"]}
    answer = fetch("POST", f"{github.url}{JIT}", token=token, body=body)
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert not github.stand_in.world.runners
    assert mint(github, token, "one") == 201
    assert github.stand_in.requests()[-2].fault == 1


def test_a_fault_can_strike_after_the_work_is_done(github: BackgroundStandIn) -> None:
    """With `after` the runner is registered although the caller sees a 502."""
    token = installation_token(github)
    control(
        github,
        "POST",
        "/faults",
        {"route": "*/generate-jitconfig", "status": 502, "after": True, "count": 1},
    )
    assert mint(github, token, "one") == 502
    assert mint(github, token, "one") == 409


def test_a_fault_can_drop_and_delay(github: BackgroundStandIn) -> None:
    """A dropped connection gives no answer; a delayed one comes late."""
    token = installation_token(github)
    control(github, "POST", "/faults", {"route": "*", "drop": True, "count": 1})
    with pytest.raises(OSError, match=r"closed|reset"):
        mint(github, token, "one")
    control(github, "POST", "/faults", {"route": "*", "delay": 0.2, "count": 1})
    began = time.monotonic()
    assert mint(github, token, "two") == 201
    assert time.monotonic() - began >= 0.2


def test_faults_are_checked_and_cleared(github: BackgroundStandIn) -> None:
    """A misspelt key is refused; clearing leaves none."""
    wrong = fetch("POST", f"{github.url}/_control/faults", body={"rout": "*"})
    assert wrong.status == 422
    control(github, "POST", "/faults", {"route": "*", "status": 500})
    control(github, "DELETE", "/faults")
    assert control(github, "GET", "/faults")["faults"] == []


def test_a_probable_fault_asks_for_chance() -> None:
    """A probability is compared with the random numbers that were passed in."""
    numbers = iter([0.9, 0.1])
    with BackgroundStandIn(chance=lambda: next(numbers)) as github:
        control(github, "POST", "/faults", {"route": "/meta*", "status": 500, "probability": 0.5})
        statuses = [fetch("GET", f"{github.url}/meta").status for _ in range(2)]
    assert statuses == [404, 500]


def test_180_jit_configurations_fit_into_a_minute() -> None:
    """With the real limits the 181st write to a route within a minute is refused for a while."""
    moment = [1_800_000_000.0]
    with BackgroundStandIn(clock=lambda: moment[0], limits=RateLimits.real()) as github:
        token = installation_token(github)
        statuses = [mint(github, token, f"r{number}") for number in range(181)]
        assert statuses.count(201) == 180
        body = {"name": "late", "runner_group_id": 1, "labels": ["x"]}
        answer = fetch("POST", f"{github.url}{JIT}", token=token, body=body)
        assert answer.status == 403
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "secondary rate limit" in answer.json["message"]
        moment[0] += 61
        assert mint(github, token, "late") == 201


def test_the_primary_limit_counts_down_and_refuses() -> None:
    """`x-ratelimit-remaining` counts down; at none the answer is a 403 until the reset."""
    with BackgroundStandIn(limits=RateLimits(primary_per_hour=3)) as github:
        token = installation_token(github)
        url = f"{github.url}{DOWNLOADS}"
        answers = [fetch("GET", url, token=token) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 403]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert "API rate limit exceeded" in answers[-1].json["message"]


def test_limits_can_be_changed_while_it_runs(github: BackgroundStandIn) -> None:
    """The control API sets real or chosen limits."""
    told = control(github, "PUT", "/limits", {"real": True, "minute": 1})
    assert (told["points_per_minute"], told["minute"]) == (900, 1.0)
    control(github, "PUT", "/limits", {"points_per_minute": 5, "secondary_status": 429})
    token = installation_token(github)
    assert [mint(github, token, name) for name in ("one", "two")] == [201, 429]
