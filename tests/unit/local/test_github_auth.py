"""App JWTs, installations and installation tokens of the GitHub stand-in."""

from __future__ import annotations

from collections.abc import Iterator

import jwt
import pytest

from runsfleet_cli.local.github import BackgroundStandIn, generate_key
from tests.unit.local.github_api import app_jwt, control, fetch, installation_token


@pytest.fixture(scope="module")
def github() -> Iterator[BackgroundStandIn]:
    """Answer a stand-in that only these tests use."""
    with BackgroundStandIn() as stand_in:
        yield stand_in


def test_a_good_jwt_is_the_app_at_both_roots(github: BackgroundStandIn) -> None:
    """`GET /app` answers the App at the root and at /api/v3, with GitHub's headers."""
    for root in (github.url, f"{github.url}/api/v3"):
        answer = fetch("GET", f"{root}/app", token=app_jwt(github))
        assert answer.status == 200
        assert answer.json["client_id"] == github.stand_in.app.client_id
        assert int(answer.headers["x-ratelimit-limit"]) == 5000
        assert answer.headers["X-GitHub-Api-Version-Selected"] == "2022-11-28"


def test_the_app_id_is_an_issuer_too(github: BackgroundStandIn) -> None:
    """`iss` may be the App ID, as a string or as a number, beside the client ID."""
    number = github.stand_in.app.id
    assert fetch("GET", f"{github.url}/app", token=app_jwt(github, iss=str(number))).status == 200


@pytest.mark.parametrize(
    ("claims", "status", "words"),
    [
        ({"exp": 1}, 401, "must be a numeric value representing the future time"),
        ({"exp": None}, 401, "must be a numeric value representing the future time"),
        ({"iat": 9_999_999_999}, 401, "'Issued at' claim"),
        ({"iat": None}, 401, "'Issued at' claim"),
        ({"iss": "Iv23liSomebodyElse"}, 404, "Integration not found"),
        ({"iss": None}, 401, "'Issuer' claim"),
    ],
)
def test_a_jwt_with_a_wrong_claim_is_refused(
    github: BackgroundStandIn, claims: dict[str, object], status: int, words: str
) -> None:
    """Each claim that breaks a rule gets the status and the message that GitHub gives."""
    answer = fetch("GET", f"{github.url}/app", token=app_jwt(github, **claims))
    assert answer.status == status
    assert words in answer.json["message"]
    assert answer.json["status"] == str(status)


def test_an_expiry_more_than_ten_minutes_ahead_is_refused(github: BackgroundStandIn) -> None:
    """`exp` may be at most ten minutes ahead."""
    late = int(github.stand_in.world.clock()) + 900
    answer = fetch("GET", f"{github.url}/app", token=app_jwt(github, exp=late))
    assert (answer.status, "too far in the future" in answer.json["message"]) == (401, True)


def test_a_jwt_of_another_key_is_refused(github: BackgroundStandIn) -> None:
    """The signature is really verified against the App's public key."""
    private, _ = generate_key()
    now = int(github.stand_in.world.clock())
    claims = {"iat": now, "exp": now + 60, "iss": github.stand_in.app.client_id}
    forged = jwt.encode(claims, private, algorithm="RS256")
    answer = fetch("GET", f"{github.url}/app", token=forged)
    assert answer.status == 401
    assert answer.json["message"] == "A JSON web token could not be decoded"


@pytest.mark.parametrize("algorithm", ["HS256", "none"])
def test_only_rs256_is_accepted(github: BackgroundStandIn, algorithm: str) -> None:
    """A JWT with another algorithm is refused, `none` included."""
    now = int(github.stand_in.world.clock())
    claims = {"iat": now, "exp": now + 60, "iss": github.stand_in.app.client_id}
    key = "x" * 32 if algorithm == "HS256" else ""
    token = jwt.encode(claims, key, algorithm=algorithm)
    assert fetch("GET", f"{github.url}/app", token=token).status == 401


def test_installations_are_found_by_repository_and_organization(github: BackgroundStandIn) -> None:
    """A repository and its organization lead to the same installation; unknown ones to a 404."""
    signed = app_jwt(github)
    by_repository = fetch("GET", f"{github.url}/repos/octo-org/hello/installation", token=signed)
    by_organization = fetch("GET", f"{github.url}/orgs/octo-org/installation", token=signed)
    assert by_repository.json["id"] == by_organization.json["id"]
    assert by_repository.json["target_type"] == "Organization"
    assert fetch("GET", f"{github.url}/orgs/nobody/installation", token=signed).status == 404
    assert fetch("GET", f"{github.url}/orgs/octocat/installation", token=signed).status == 404


def test_a_token_has_the_new_long_form_and_lives_one_hour(github: BackgroundStandIn) -> None:
    """Tokens are `ghs_<APP ID>_<JWT>`, longer than 40 characters, and differ every time."""
    first, second = installation_token(github), installation_token(github)
    assert first.startswith(f"ghs_{github.stand_in.app.id}_ey")
    assert len(first) > 200
    assert first != second
    grant = github.stand_in.world.tokens[first]
    assert 3590 < grant.expires_at - github.stand_in.world.clock() <= 3600


def test_an_expired_token_is_bad_credentials() -> None:
    """A token is void when its hour is over."""
    moment = [1_800_000_000.0]
    with BackgroundStandIn(clock=lambda: moment[0]) as github:
        token = installation_token(github)
        url = f"{github.url}/orgs/octo-org/actions/runners"
        assert fetch("GET", url, token=token).status == 200
        moment[0] += 3601
        answer = fetch("GET", url, token=token)
        assert (answer.status, answer.json["message"]) == (401, "Bad credentials")


def test_an_unknown_installation_is_a_404(github: BackgroundStandIn) -> None:
    """The id of another App's installation, or of none, is not found; after an uninstall too."""
    signed = app_jwt(github)
    url = f"{github.url}/app/installations/1/access_tokens"
    assert fetch("POST", url, token=signed).status == 404
    _, public = generate_key()
    made = control(
        github,
        "POST",
        "/apps",
        {"slug": "other", "public_key": public, "install_on": ["octo-org"]},
    )
    others = [e for e in github.stand_in.world.installations.values() if e.app_id == made["id"]]
    url = f"{github.url}/app/installations/{others[0].id}/access_tokens"
    assert fetch("POST", url, token=signed).status == 404
    control(github, "DELETE", f"/installations/{others[0].id}")
    assert others[0].id not in github.stand_in.world.installations


def test_a_token_is_narrowed_to_permissions_and_repositories(github: BackgroundStandIn) -> None:
    """A narrowed token is refused what it was not given; asking for too much is a 422."""
    token = installation_token(github, permissions={"actions": "read"})
    url = f"{github.url}/orgs/octo-org/actions/runners"
    answer = fetch("GET", url, token=token)
    assert (answer.status, answer.json["message"]) == (
        403,
        "Resource not accessible by integration",
    )
    signed = app_jwt(github)
    number = github.stand_in.installation_of().id
    url = f"{github.url}/app/installations/{number}/access_tokens"
    wanted: list[dict[str, object]] = [
        {"permissions": {"packages": "write"}},
        {"repositories": ["nowhere"]},
    ]
    for body in wanted:
        assert fetch("POST", url, token=signed, body=body).status == 422


def test_what_a_token_cannot_see_is_not_found(github: BackgroundStandIn) -> None:
    """Another owner's private repository is a 404, and so is another organization."""
    token = installation_token(github, "octocat/hello")
    for path in ("/repos/octo-org/hello/actions/runs", "/orgs/octo-org/actions/runners"):
        assert fetch("GET", f"{github.url}{path}", token=token).status == 404


def test_requests_without_credentials_or_user_agent_are_refused(
    github: BackgroundStandIn,
) -> None:
    """No token is a 401, no User-Agent a 403, an unknown API version a 400."""
    url = f"{github.url}/orgs/octo-org/actions/runners"
    assert fetch("GET", url).json["message"] == "Requires authentication"
    assert fetch("GET", url, headers={"User-Agent": ""}).status == 403
    version = {"X-GitHub-Api-Version": "1999-01-01"}
    assert fetch("GET", url, headers=version).status == 400


def test_every_request_is_recorded_with_its_caller(github: BackgroundStandIn) -> None:
    """The record names time, method, route template, caller and status."""
    token = installation_token(github)
    fetch("GET", f"{github.url}/api/v3/repos/octo-org/hello/actions/jobs/1", token=token)
    last = control(github, "GET", "/requests")["requests"][-1]
    assert last["method"] == "GET"
    assert last["route"] == "/repos/{owner}/{repo}/actions/jobs/{job_id}"
    assert last["caller"] == f"installation:{github.stand_in.installation_of().id}"
    assert last["status"] == 404
    assert last["time"] > 0
