"""The REST client: retries, deadlines, redirects, rate limits, and what refusals say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.github.errors import (
    NotFoundError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from runsfleet_runtime.github.rate_limits import SlidingWindow, rate_limited_until
from runsfleet_runtime.github.rest import RestApi

API = "https://github.example/api/v3"
THING = "GET /thing"


@pytest.fixture
def rest(github: Any, clock: Any) -> RestApi:
    """Make a client of the GitHub in memory."""
    return RestApi(API + "/", github, clock=clock, sleep=clock.sleep, uniform=lambda: 0.5)


@pytest.fixture
def get(rest: RestApi) -> Callable[..., Any]:
    """Request one path, whose answers each test scripts."""

    def call(**options: Any) -> Any:
        return rest.call("GET", "/thing", token="secret-token", caller="me", **options).body

    return call


def test_request_names_version_and_token(get: Any, github: Any, say: Any) -> None:
    """A request carries the API version, a user agent and the token, to the server's base path."""
    github.script[THING] = [say(200, {"a": 1})]
    assert get() == {"a": 1}
    headers = github.requests[0].headers
    assert headers["x-github-api-version"] == "2022-11-28"
    assert headers["authorization"] == "Bearer secret-token"
    assert headers["user-agent"].startswith("runsfleet/")


def test_failures_of_github_are_repeated_with_growing_pauses(
    get: Any, github: Any, clock: Any, say: Any, silence: Any
) -> None:
    """Server errors and lost answers are repeated, each time after a longer pause."""
    github.script[THING] = [say(502), silence(), say(500), say(200, {"a": 1})]
    assert get() == {"a": 1}
    assert len(clock.sleeps) == 3
    assert clock.sleeps == sorted(clock.sleeps)


def test_deadline_ends_the_repetition(get: Any, github: Any, clock: Any, say: Any) -> None:
    """When GitHub keeps failing the caller gets the last fault before its deadline passes."""
    github.script[THING] = [say(503, {"message": "no server is currently available"})] * 50
    deadline = clock.now + 6
    with pytest.raises(UnavailableError, match=r"GET /thing .* 503 no server") as caught:
        get(deadline=deadline)
    assert clock.now < deadline
    assert "secret-token" not in str(caught.value)


def test_nothing_is_sent_after_the_deadline(get: Any, github: Any, clock: Any) -> None:
    """A caller whose time is up gets an error without a request."""
    with pytest.raises(UnavailableError, match="deadline"):
        get(deadline=clock.now)
    assert not github.requests


def test_retry_after_of_a_failing_server_is_honoured(
    get: Any, github: Any, clock: Any, say: Any
) -> None:
    """A 503 that names a pause is repeated after that pause and not before."""
    github.script[THING] = [say(503, retry_after="7"), say(200)]
    assert get() is None
    assert clock.sleeps == [7.0]


def test_answer_that_is_no_json_is_repeated(get: Any, github: Any, say: Any) -> None:
    """A page of some proxy with status 200 is not taken for GitHub's answer."""
    page = say(200)
    github.script[THING] = [type(page)(200, {}, b"<html>"), say(200, [1])]
    assert get() == [1]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_keeps_method_and_body(rest: RestApi, github: Any, say: Any, status: int) -> None:
    """A renamed repository is followed to its new address with the same method and body."""
    github.script["POST /repos/o/old"] = [say(status, {}, location=f"{API}/repositories/7")]
    github.script["POST /repositories/7"] = [say(201, {"ok": True})]
    body = {"labels": ["a"]}
    answer = rest.call("POST", "/repos/o/old", token="t", caller="me", body=body).body
    assert answer == {"ok": True}
    assert [r.body for r in github.requests] == [body, body]


def test_redirect_to_another_host_is_refused(get: Any, github: Any, say: Any) -> None:
    """The token is never sent to a host that the configuration does not name."""
    github.script[THING] = [say(302, {}, location="https://evil.example/thing")]
    with pytest.raises(RefusedError, match=r"evil\.example"):
        get()
    assert len(github.requests) == 1


def test_endless_redirects_end(get: Any, github: Any, clock: Any, say: Any) -> None:
    """Redirects that go round in circles end with the deadline."""
    github.script[THING] = [say(302, {}, location=f"{API}/thing")] * 500
    with pytest.raises(UnavailableError, match="too many redirects"):
        get(deadline=clock.now + 3)


def test_plain_403_is_final(get: Any, github: Any, clock: Any, say: Any) -> None:
    """A refusal that is no rate limit is not repeated and names GitHub's words and a cure."""
    github.script[THING] = [say(403, {"message": "Resource not accessible by integration"})]
    with pytest.raises(RefusedError, match=r"not accessible by integration.*; grant it") as caught:
        get(cures={403: "grant it"})
    assert caught.value.status == 403
    assert len(github.requests) == 1
    assert not clock.sleeps


def test_422_shows_the_details(get: Any, github: Any, say: Any) -> None:
    """A refused request shows the errors that GitHub lists, in one line of bounded length."""
    github.script[THING] = [
        say(422, {"message": "Validation\nFailed", "errors": [{"field": "labels"}] * 100})
    ]
    with pytest.raises(RefusedError, match=r"Validation Failed .*labels") as caught:
        get()
    assert len(str(caught.value)) < 500


def test_404_is_an_error_of_its_own(get: Any, github: Any, say: Any) -> None:
    """What does not exist is told from what is refused."""
    github.script[THING] = [say(404, {"message": "Not Found"})]
    with pytest.raises(NotFoundError, match="installed"):
        get()


@pytest.mark.parametrize("status", [403, 429])
def test_rate_limit_tells_when_to_come_back_and_blocks_until_then(
    rest: RestApi, github: Any, clock: Any, say: Any, status: int
) -> None:
    """After a rate limit nothing more is sent for that installation until the named time."""
    github.script[THING] = [say(status, {"message": "slow down"}, retry_after="30")]
    start = clock.now
    for _ in range(3):
        with pytest.raises(RateLimitedError) as caught:
            rest.call("GET", "/thing", token="t", caller="me")
        assert caught.value.retry_at == start + 30
    assert len(github.requests) == 1
    github.script[THING] = [say(200, {"a": 1})] * 2
    assert rest.call("GET", "/thing", token="t", caller="another installation").body == {"a": 1}
    clock.now = start + 30
    assert rest.call("GET", "/thing", token="t", caller="me").body == {"a": 1}


def test_short_rate_limit_is_waited_out(get: Any, github: Any, clock: Any, say: Any) -> None:
    """A pause of a few seconds is waited out, as an instance may already be up for the job."""
    github.script[THING] = [say(429, {"message": "slow down"}, retry_after="2"), say(200, {"a": 1})]
    start = clock.now
    assert get() == {"a": 1}
    assert clock.now >= start + 2


def test_short_rate_limit_is_not_waited_out_beyond_the_deadline(
    get: Any, github: Any, clock: Any, say: Any
) -> None:
    """A pause that reaches past the caller's deadline is the caller's business at once."""
    github.script[THING] = [say(429, {"message": "slow down"}, retry_after="3")]
    with pytest.raises(RateLimitedError):
        get(deadline=clock.now + 2)
    assert not clock.sleeps


NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("status", "headers", "message", "expected"),
    [
        (403, {}, "Resource not accessible by integration", None),
        (403, {"x-ratelimit-remaining": "17", "x-ratelimit-reset": "9"}, "no", None),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1000100"}, "", NOW + 100),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "5"}, "", NOW + 1),
        (403, {"x-ratelimit-remaining": "0"}, "", NOW + 60),
        (403, {}, "You have exceeded a secondary rate limit", NOW + 60),
        (429, {}, "", NOW + 60),
        (429, {"retry-after": "Mon, 12 Jan 1970 13:47:40 GMT"}, "", NOW + 60),
        (429, {"retry-after": "soon"}, "", NOW + 60),
        (404, {"retry-after": "30"}, "", None),
        (503, {"retry-after": "30"}, "", None),
    ],
)
def test_signs_of_a_rate_limit(
    status: int, headers: dict[str, str], message: str, expected: float | None
) -> None:
    """A rate limit is known by its headers or its words, and anything else is none."""
    assert rate_limited_until(status, headers, message, now=NOW) == expected


@given(
    limit=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 90, allow_nan=False, width=32), max_size=120),
)
def test_window_never_lets_more_through(limit: int, gaps: list[float]) -> None:
    """Whatever the pace, no minute holds more than the limit, and room comes when it was said."""
    now = 0.0
    window = SlidingWindow(limit, clock=lambda: now)
    taken: list[float] = []
    for gap in gaps:
        now += gap
        free_at = window.take("key")
        if free_at is None:
            taken.append(now)
        else:
            assert now < free_at <= now + 60
    for moment in taken:
        assert sum(moment - 60 < other <= moment for other in taken) <= limit


def test_window_counts_each_key_by_itself() -> None:
    """The registrations of one organisation do not slow down another's."""
    window = SlidingWindow(1, clock=lambda: 5.0)
    assert window.take("a") is None
    assert window.take("b") is None
    assert window.take("a") == 65.0


def test_window_without_room_is_refused() -> None:
    """A limit below one would block everything for ever."""
    with pytest.raises(ValueError, match="at least 1, got 0"):
        SlidingWindow(0, clock=lambda: 0.0)


@pytest.mark.parametrize("url", ["github.example/api/v3", "", "ftp://github.example"])
def test_malformed_api_url_is_refused(github: Any, url: str) -> None:
    """An API address without its scheme is refused when it is configured, with an example."""
    with pytest.raises(ValueError, match="https://HOST/api/v3"):
        RestApi(url, github)
