"""Runner registration of the GitHub stand-in: JIT configurations, tokens, listing, groups."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from runsfleet_cli.local.github import BackgroundStandIn
from tests.unit.local.github_api import Answer, fetch, installation_token

JIT = "/orgs/octo-org/actions/runners/generate-jitconfig"
RUNNERS = "/orgs/octo-org/actions/runners"


@pytest.fixture
def github() -> Iterator[BackgroundStandIn]:
    """Answer a fresh stand-in."""
    with BackgroundStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def token(github: BackgroundStandIn) -> str:
    """Answer an installation token of the organization."""
    return installation_token(github)


def mint(github: BackgroundStandIn, token: str, name: str = "one", **more: Any) -> Answer:
    """Ask for a JIT configuration."""
    body = {"name": name, "runner_group_id": 1, "labels": ["self-hosted", "x"]} | more
    return fetch("POST", f"{github.url}{JIT}", token=token, body=body)


def test_a_jit_configuration_is_json_of_three_files(github: BackgroundStandIn, token: str) -> None:
    """The configuration decodes to the runner's three files and is as long as the real one."""
    answer = mint(github, token)
    assert answer.status == 201
    encoded = answer.json["encoded_jit_config"]
    assert 4096 < len(encoded) < 5000
    files = json.loads(base64.b64decode(encoded))
    assert set(files) == {".runner", ".credentials", ".credentials_rsaparams"}
    settings = json.loads(base64.b64decode(files[".runner"]))
    assert settings["AgentName"] == "one"
    assert settings["ServerUrlV2"].startswith(github.url)
    runner = answer.json["runner"]
    assert (runner["status"], runner["busy"], runner["ephemeral"]) == ("offline", False, True)


def test_labels_are_only_those_sent(github: BackgroundStandIn, token: str) -> None:
    """No label is added; each is kept byte for byte."""
    label = "runs-fleet=19512345678/runner=2cpu-linux-arm64"
    answer = mint(github, token, labels=[label])
    assert [entry["name"] for entry in answer.json["runner"]["labels"]] == [label]


def test_a_taken_name_is_a_conflict(github: BackgroundStandIn, token: str) -> None:
    """The second runner of a name gets a 409, whatever its case."""
    assert mint(github, token).status == 201
    answer = mint(github, token, name="ONE")
    assert answer.status == 409
    assert "Already exists" in answer.json["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"name": ""},
        {"name": "n" * 65},
        {"runner_group_id": None},
        {"runner_group_id": "1"},
        {"labels": None},
        {"labels": []},
        {"labels": ["l"] * 101},
        {"labels": [1]},
        {"work_folder": 3},
    ],
)
def test_a_bad_request_is_unprocessable(
    github: BackgroundStandIn, token: str, change: dict[str, Any]
) -> None:
    """A missing or wrong field is a 422 and registers nothing."""
    assert mint(github, token, **change).status == 422
    assert not github.stand_in.world.runners


def test_unknown_groups_and_bad_json(github: BackgroundStandIn, token: str) -> None:
    """An unknown group is a 404; a hundred labels are allowed; a list is no object."""
    assert mint(github, token, runner_group_id=99).status == 404
    assert mint(github, token, labels=[f"l{number}" for number in range(100)]).status == 201
    assert fetch("POST", f"{github.url}{JIT}", token=token, body=[]).status == 422


def test_a_repository_has_runners_of_its_own(github: BackgroundStandIn) -> None:
    """A user's repository registers at repository level, in group 1, apart from others."""
    token = installation_token(github, "octocat/hello")
    base = f"{github.url}/repos/octocat/hello/actions/runners"
    body = {"name": "one", "runner_group_id": 1, "labels": ["x"]}
    assert fetch("POST", f"{base}/generate-jitconfig", token=token, body=body).status == 201
    assert fetch("GET", base, token=token).json["total_count"] == 1
    organization = installation_token(github)
    assert fetch("GET", f"{github.url}{RUNNERS}", token=organization).json["total_count"] == 0


def test_runners_are_listed_by_name_and_page(github: BackgroundStandIn, token: str) -> None:
    """`name` picks one, `per_page` and `page` cut the list, `Link` leads through it."""
    for number in range(5):
        mint(github, token, name=f"r{number}")
    one = fetch("GET", f"{github.url}{RUNNERS}?name=R3", token=token).json
    assert [runner["name"] for runner in one["runners"]] == ["r3"]
    url: str | None = f"{github.url}{RUNNERS}?per_page=2"
    names: list[str] = []
    while url is not None:
        answer = fetch("GET", url, token=token)
        assert answer.json["total_count"] == 5
        names += [runner["name"] for runner in answer.json["runners"]]
        links = {
            part.split('rel="')[1].rstrip('"'): part.split(";")[0].strip(" <>")
            for part in answer.headers.get("link", "").split(", ")
            if part
        }
        url = links.get("next")
    assert names == [f"r{number}" for number in range(5)]


def test_a_runner_is_read_and_deleted(github: BackgroundStandIn, token: str) -> None:
    """A runner can be read and deleted once; a busy one is refused."""
    number = mint(github, token).json["runner"]["id"]
    url = f"{github.url}{RUNNERS}/{number}"
    assert fetch("GET", url, token=token).json["name"] == "one"
    github.stand_in.world.runners[number].busy = True
    assert fetch("DELETE", url, token=token).status == 422
    github.stand_in.world.runners[number].busy = False
    assert fetch("DELETE", url, token=token).status == 204
    assert fetch("GET", url, token=token).status == 404
    assert fetch("DELETE", url, token=token).status == 404


def test_registration_and_remove_tokens(github: BackgroundStandIn, token: str) -> None:
    """Both tokens are made with an expiry one hour ahead."""
    for kind in ("registration-token", "remove-token"):
        answer = fetch("POST", f"{github.url}{RUNNERS}/{kind}", token=token)
        assert answer.status == 201
        assert len(answer.json["token"]) == 29
        assert answer.json["expires_at"].endswith("Z")


def test_runner_groups_can_be_managed(github: BackgroundStandIn, token: str) -> None:
    """A group is made, opened to a repository, used by a runner, and deleted."""
    groups = f"{github.url}/orgs/octo-org/actions/runner-groups"
    assert fetch("GET", groups, token=token).json["runner_groups"][0]["name"] == "Default"
    body = {"name": "builds", "visibility": "selected"}
    made = fetch("POST", groups, token=token, body=body)
    assert made.status == 201
    url = f"{groups}/{made.json['id']}"
    repository = github.stand_in.repository().id
    chosen = {"selected_repository_ids": [repository]}
    assert fetch("PUT", f"{url}/repositories", token=token, body=chosen).status == 204
    assert fetch("GET", f"{url}/repositories", token=token).json["total_count"] == 1
    mint(github, token, runner_group_id=made.json["id"])
    assert fetch("GET", f"{url}/runners", token=token).json["total_count"] == 1
    assert fetch("DELETE", url, token=token).status == 204
    (runner,) = github.stand_in.world.runners.values()
    assert runner.group_id == 1
    assert fetch("DELETE", f"{groups}/1", token=token).status == 422


def test_a_full_group_is_unprocessable(
    github: BackgroundStandIn, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group takes its limit of runners and refuses the next with a 422."""
    monkeypatch.setattr("runsfleet_cli.local.github.registry.MAX_GROUP_RUNNERS", 2)
    assert [mint(github, token, name=f"r{n}").status for n in range(3)] == [201, 201, 422]


def test_deprecations_name_the_dates_of_old_versions(github: BackgroundStandIn, token: str) -> None:
    """The current version has no dates, an older one has, a non-version is a 404."""
    base = f"{github.url}{RUNNERS}/deprecations"
    current = fetch("GET", f"{base}/{github.stand_in.releases.version}", token=token).json
    assert current["runtime_deprecates_at"] is None
    old = fetch("GET", f"{base}/2.330.0", token=token).json
    assert old["runtime_deprecates_at"].endswith("Z")
    assert fetch("GET", f"{base}/latest", token=token).status == 404
