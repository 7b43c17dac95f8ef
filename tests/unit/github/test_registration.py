"""Registering and removing runners, with the tokens and installations behind it."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github.errors import (
    CredentialsError,
    InstallationNotFoundError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from runsfleet_runtime.github.model import Registration, Removal, RunnerScope
from runsfleet_runtime.github.transport import Answer

JIT = "POST /orgs/octo/actions/runners/generate-jitconfig"
TOKEN = "POST /app/installations/99/access_tokens"


def replace(job: JobMessage, **changes: Any) -> JobMessage:
    """Return a job that differs in some fields."""
    return dataclasses.replace(job, **changes)


def test_runner_gets_the_labels_of_its_job_byte_for_byte(
    connect: Any, github: Any, job: JobMessage
) -> None:
    """A runner is registered under its instance's name with exactly the labels that GitHub sent."""
    registration = connect(runner_group_id=7).registrar.register(job, instance_id="i-0abc")
    request = github.requests[-1]
    assert request.line == JIT
    assert request.body == {
        "name": "runsfleet-i-0abc",
        "runner_group_id": 7,
        "labels": list(job.labels),
        "work_folder": "_work",
    }
    assert registration == Registration(
        runner_name="runsfleet-i-0abc",
        runner_url="https://github.example/octo",
        runner_group_id=7,
        runner_id=next(iter(github.runners)),
        jit_config="jit-of-runsfleet-i-0abc",
    )


def test_warm_function_sends_one_request_for_each_job(
    connect: Any, github: Any, job: JobMessage
) -> None:
    """Once token and packages are known, a job costs one request to GitHub."""
    gateway = connect()
    gateway.packages.for_platform("linux-arm64", job.repository, installation_id=99)
    gateway.registrar.register(job, instance_id="i-0")
    before = len(github.requests)
    for number in range(1, 11):
        gateway.packages.for_platform("linux-arm64", job.repository, installation_id=99)
        gateway.registrar.register(job, instance_id=f"i-{number}")
    assert github.lines()[before:] == [JIT] * 10


def test_labels_of_one_job_never_reach_another(connect: Any, github: Any, job: JobMessage) -> None:
    """Jobs that one warm function handles each get a runner with their own labels only."""
    registrar = connect().registrar
    wanted = [("a",), ("b", "c"), ("a", "d")]
    for number, labels in enumerate(wanted):
        registrar.register(replace(job, labels=labels), instance_id=f"i-{number}")
    sent = [r.body["labels"] for r in github.requests if r.line == JIT]
    assert sent == [list(labels) for labels in wanted]


def test_concurrent_mints_share_one_token(connect: Any, github: Any, job: JobMessage) -> None:
    """Ten registrations at once ask for one installation token between them."""
    registrar = connect().registrar
    with ThreadPoolExecutor(10) as pool:
        names = list(
            pool.map(lambda n: registrar.register(job, instance_id=f"i-{n}").runner_name, range(10))
        )
    assert names == [f"runsfleet-i-{n}" for n in range(10)]
    assert github.lines().count(TOKEN) == 1
    assert github.lines().count(JIT) == 10


def test_token_is_narrowed_to_what_is_needed(connect: Any, github: Any, job: JobMessage) -> None:
    """A token may manage runners at its level or read jobs, and nothing beyond."""
    connect().registrar.register(job, instance_id="i-1")
    connect(RunnerLevel.REPOSITORY).registrar.register(job, instance_id="i-2")
    connect().job_states.status(job.repository, job.job_id, 99)
    asked = [r.body["permissions"] for r in github.requests if r.line == TOKEN]
    assert asked == [
        {"organization_self_hosted_runners": "write"},
        {"administration": "write"},
        {"actions": "read"},
    ]


def test_token_is_renewed_five_minutes_before_it_expires(
    connect: Any, github: Any, clock: Any, job: JobMessage
) -> None:
    """A token serves until five minutes before its end and is replaced then."""
    registrar = connect().registrar
    registrar.register(job, instance_id="i-1")
    clock.now += 3600 - 301
    registrar.register(job, instance_id="i-2")
    assert github.lines().count(TOKEN) == 1
    clock.now += 1
    registrar.register(job, instance_id="i-3")
    assert github.lines().count(TOKEN) == 2


def test_revoked_token_is_replaced_once(connect: Any, github: Any, job: JobMessage) -> None:
    """A token that GitHub no longer accepts is replaced and the request repeated."""
    registrar = connect().registrar
    registrar.register(job, instance_id="i-1")
    github.tokens.clear()
    assert registrar.register(job, instance_id="i-2").jit_config
    assert github.lines().count(TOKEN) == 2


def test_token_that_is_never_accepted_ends(
    connect: Any, github: Any, say: Any, job: JobMessage
) -> None:
    """When fresh tokens are refused too, that is reported as the App's trouble."""
    github.script[JIT] = [say(401, {"message": "Bad credentials"})] * 9
    with pytest.raises(CredentialsError, match="Bad credentials"):
        connect().registrar.register(job, instance_id="i-1")
    assert github.lines().count(JIT) == 2


def test_repository_level_registers_at_the_repository(
    connect: Any, github: Any, job: JobMessage
) -> None:
    """At repository level the runner belongs to the repository and to the default group."""
    gateway = connect(RunnerLevel.REPOSITORY, runner_group_id=7)
    registration = gateway.registrar.register(job, instance_id="i-1")
    request = github.requests[-1]
    assert request.path == "/repos/octo/spoon/actions/runners/generate-jitconfig"
    assert request.body["runner_group_id"] == registration.runner_group_id == 1
    assert registration.runner_url == "https://github.example/octo/spoon"


def test_unknown_installation_is_looked_up_once(connect: Any, github: Any, job: JobMessage) -> None:
    """Without an id in the event the installation is found by repository and remembered."""
    registrar = connect().registrar
    for number in range(3):
        registrar.register(replace(job, installation_id=None), instance_id=f"i-{number}")
    assert github.lines().count("GET /repos/octo/spoon/installation") == 1
    assert github.lines().count(TOKEN) == 1


def test_foreign_installation_is_resolved_again_and_remembered(
    connect: Any, github: Any, job: JobMessage
) -> None:
    """An installation id of another App is replaced by ours, once, and later jobs go straight."""
    registrar = connect().registrar
    foreign = replace(job, installation_id=13)
    registrar.register(foreign, instance_id="i-1")
    assert github.lines() == [
        "POST /app/installations/13/access_tokens",
        "GET /repos/octo/spoon/installation",
        TOKEN,
        JIT,
    ]
    registrar.register(foreign, instance_id="i-2")
    assert github.lines()[4:] == [JIT]


def test_batch_looks_its_installation_up_once(connect: Any, github: Any, job: JobMessage) -> None:
    """Ten jobs at once that name no installation need one look-up between them."""
    registrar = connect().registrar
    nameless = replace(job, installation_id=None)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: registrar.register(nameless, instance_id=f"i-{n}"), range(10)))
    assert github.lines().count("GET /repos/octo/spoon/installation") == 1
    assert github.lines().count(TOKEN) == 1


def test_reinstalled_app_is_found_again(connect: Any, github: Any, job: JobMessage) -> None:
    """When the App was installed anew under another id, the next job finds it."""
    registrar = connect().registrar
    registrar.register(job, instance_id="i-1")
    github.installations["octo"] = 100
    github.tokens.clear()
    assert registrar.register(job, instance_id="i-2").jit_config
    nameless = replace(job, installation_id=None)
    assert registrar.register(nameless, instance_id="i-3").jit_config
    github.installations["octo"] = 101
    github.tokens.clear()
    assert registrar.register(nameless, instance_id="i-4").jit_config


def test_app_that_is_not_installed_says_so(connect: Any, github: Any, job: JobMessage) -> None:
    """Where the App is not installed the error names the account to install it on."""
    github.installations.clear()
    with pytest.raises(InstallationNotFoundError, match="install the App on octo"):
        connect().registrar.register(job, instance_id="i-1")


def test_rotated_key_is_read_again(
    connect: Any, github: Any, secrets: Any, app_secret: str, job: JobMessage
) -> None:
    """A refused App token makes the secret be read anew, and the new key is used."""
    secrets.value = app_secret.replace("4711", "1")
    secrets.rotated = app_secret
    github.script[TOKEN] = [github_says_401()]
    assert connect().registrar.register(job, instance_id="i-1").jit_config
    assert [claims["iss"] for claims in github.jwts] == ["4711"]


def github_says_401() -> Answer:
    """Answer as GitHub does to an App token that it does not accept."""
    return Answer(401, {}, b'{"message": "A JSON web token could not be decoded"}')


def test_unaccepted_key_is_not_tried_twice(connect: Any, github: Any, job: JobMessage) -> None:
    """When the secret has not changed a refused App token is not sent again."""
    github.script[TOKEN] = [github_says_401()] * 5
    with pytest.raises(CredentialsError, match="private key"):
        connect().registrar.register(job, instance_id="i-1")
    assert github.lines() == [TOKEN]


def test_missing_permission_names_itself(
    connect: Any, github: Any, say: Any, job: JobMessage
) -> None:
    """An App without the permission gets told which one to grant."""
    github.script[TOKEN] = [say(422, {"message": "The permissions requested are not granted"})]
    with pytest.raises(RefusedError, match="organization_self_hosted_runners: write"):
        connect().registrar.register(job, instance_id="i-1")


def test_user_owned_repository_at_organisation_level_is_refused_with_the_cure(
    connect: Any, github: Any, say: Any, job: JobMessage
) -> None:
    """A user has no organisation runners, and the error says which setting to change."""
    github.script[JIT] = [say(404, {"message": "Not Found"})]
    with pytest.raises(NotFoundError, match="runner_level to repository"):
        connect().registrar.register(job, instance_id="i-1")


def test_stale_registration_is_replaced(connect: Any, github: Any, job: JobMessage) -> None:
    """A runner of the same name is removed and registered again, and no other is touched."""
    github.runners = {
        1: {"id": 1, "name": "runsfleet-i-1", "busy": False},
        2: {"id": 2, "name": "runsfleet-i-11", "busy": False},
    }
    registration = connect().registrar.register(job, instance_id="i-1")
    assert registration.jit_config
    assert 1 not in github.runners
    assert 2 in github.runners
    listing = next(r for r in github.requests if r.line == "GET /orgs/octo/actions/runners")
    assert listing.query["name"] == ["runsfleet-i-1"]


def test_lost_answer_does_no_harm(connect: Any, github: Any, silence: Any, job: JobMessage) -> None:
    """When the answer to a registration is lost its repetition replaces the runner."""
    registrar = connect().registrar
    registrar.register(job, instance_id="i-1")
    github.script[JIT] = [silence()]
    assert registrar.register(job, instance_id="i-1").jit_config
    assert [r["name"] for r in github.runners.values()] == ["runsfleet-i-1"]


def test_busy_runner_of_the_same_name_is_left_alone(
    connect: Any, github: Any, job: JobMessage
) -> None:
    """A runner that has a job is never removed, and the conflict is reported."""
    github.runners = {1: {"id": 1, "name": "runsfleet-i-1", "busy": True}}
    with pytest.raises(RefusedError) as caught:
        connect().registrar.register(job, instance_id="i-1")
    assert caught.value.status == 409
    assert 1 in github.runners


def test_second_conflict_ends(connect: Any, github: Any, say: Any, job: JobMessage) -> None:
    """A name that stays taken after the removal is reported instead of tried for ever."""
    github.script[JIT] = [say(409, {"message": "Already exists"})] * 5
    with pytest.raises(RefusedError, match="409"):
        connect().registrar.register(job, instance_id="i-1")
    assert github.lines().count(JIT) == 2


def test_secrets_do_not_show(connect: Any, job: JobMessage) -> None:
    """The representation of a registration holds neither JIT configuration nor token."""
    registration = connect().registrar.register(job, instance_id="i-1")
    token = dataclasses.replace(registration, jit_config="", registration_token="topsecret")
    assert registration.jit_config not in repr(registration)
    assert "topsecret" not in repr(token)


@pytest.mark.parametrize("repository", ["octo", "octo/", "../x/y", "octo/..", "o/a?b", "o/a/b", ""])
def test_malformed_repository_is_refused(connect: Any, github: Any, repository: str) -> None:
    """A repository name that would bend the path of a request is refused before one is sent."""
    with pytest.raises(RefusedError, match="owner/name"):
        RunnerScope.of(RunnerLevel.REPOSITORY, repository)
    assert not github.requests


class TestRegistrationTokens:
    """The fallback near GitHub's limit of JIT configurations."""

    def test_without_opting_in_the_job_waits(
        self, connect: Any, clock: Any, github: Any, job: JobMessage
    ) -> None:
        """At the limit nothing more is sent, and the caller is told when there is room."""
        registrar = connect(jit_configs_per_minute=2).registrar
        start = clock.now
        registrar.register(job, instance_id="i-1")
        clock.now += 20
        registrar.register(job, instance_id="i-2")
        with pytest.raises(RateLimitedError) as caught:
            registrar.register(job, instance_id="i-3")
        assert caught.value.retry_at == start + 60
        assert github.lines().count(JIT) == 2
        clock.now = start + 60
        assert registrar.register(job, instance_id="i-3").jit_config

    def test_opting_in_goes_on_with_one_token(
        self, connect: Any, github: Any, job: JobMessage
    ) -> None:
        """At the limit runners get a registration token, which is asked for once."""
        registrar = connect(jit_configs_per_minute=1, token_fallback=True).registrar
        made = [registrar.register(job, instance_id=f"i-{n}") for n in range(4)]
        assert [bool(r.jit_config) for r in made] == [True, False, False, False]
        assert {r.registration_token for r in made[1:]} == {"registration-1"}
        assert all(r.runner_id is None for r in made[1:])
        path = "POST /orgs/octo/actions/runners/registration-token"
        assert github.lines().count(path) == 1

    def test_token_is_replaced_before_it_expires(
        self, connect: Any, clock: Any, job: JobMessage
    ) -> None:
        """A registration token is not handed out within five minutes of its end."""
        registrar = connect(jit_configs_per_minute=1, token_fallback=True).registrar
        registrar.register(job, instance_id="i-1")
        first = registrar.register(job, instance_id="i-2")
        clock.now += 3300
        registrar.register(job, instance_id="i-3")
        second = registrar.register(job, instance_id="i-4")
        assert first.registration_token != second.registration_token

    def test_limit_set_by_github_uses_the_token_at_hand(
        self, connect: Any, github: Any, say: Any, clock: Any, job: JobMessage
    ) -> None:
        """When GitHub itself limits, a cached token serves without any further request."""
        registrar = connect(jit_configs_per_minute=2, token_fallback=True).registrar
        for number in range(3):
            registrar.register(job, instance_id=f"i-{number}")
        clock.now += 61
        github.script[JIT] = [say(403, {"message": "secondary rate limit"}, retry_after="60")]
        before = len(github.requests)
        for number in range(3, 6):
            assert registrar.register(job, instance_id=f"i-{number}").registration_token
        assert github.lines()[before:] == [JIT]

    def test_all_registrations_together_are_limited(self, connect: Any, job: JobMessage) -> None:
        """Near the limit of registrations of any kind the job waits, with a token or without."""
        registrar = connect(
            jit_configs_per_minute=1, registrations_per_minute=3, token_fallback=True
        ).registrar
        for number in range(3):
            registrar.register(job, instance_id=f"i-{number}")
        with pytest.raises(RateLimitedError, match="all registrations"):
            registrar.register(job, instance_id="i-9")


class TestReserving:
    """A place within the limits, kept before an instance is paid for."""

    def test_place_is_refused_before_the_launch_and_used_after_it(
        self, connect: Any, clock: Any, github: Any, job: JobMessage
    ) -> None:
        """As many places are given as there are, and each registration with one goes through."""
        registrar = connect(jit_configs_per_minute=2).registrar
        jobs = [replace(job, job_id=number) for number in (1, 2, 3)]
        start = clock.now
        registrar.reserve(jobs[0])
        registrar.reserve(jobs[1])
        with pytest.raises(RateLimitedError) as caught:
            registrar.reserve(jobs[2])
        assert caught.value.retry_at == start + 60
        assert not github.requests
        for number in (0, 1):
            assert registrar.register(jobs[number], instance_id=f"i-{number}").jit_config

    def test_place_that_is_not_used_is_lost_for_a_minute_only(
        self, connect: Any, clock: Any, job: JobMessage
    ) -> None:
        """An instance that EC2 did not deliver takes no place for ever."""
        registrar = connect(jit_configs_per_minute=1).registrar
        registrar.reserve(job)
        clock.now += 60
        registrar.reserve(replace(job, job_id=2))

    def test_limit_that_github_set_refuses_a_place(
        self, connect: Any, clock: Any, github: Any, say: Any, job: JobMessage
    ) -> None:
        """Other processes use up the same limit: the first refusal by GitHub is remembered."""
        registrar = connect().registrar
        github.script[JIT] = [say(403, {"message": "secondary rate limit"}, retry_after="60")]
        with pytest.raises(RateLimitedError):
            registrar.register(job, instance_id="i-1")
        with pytest.raises(RateLimitedError) as caught:
            registrar.reserve(job)
        assert caught.value.retry_at == clock.now + 60
        clock.now += 61
        registrar.reserve(job)

    def test_github_that_registered_nothing_is_tried_by_one_launch_at_a_time(
        self, connect: Any, clock: Any, github: Any, say: Any, job: JobMessage
    ) -> None:
        """Packages are known from before, so nothing else keeps an outage from costing instances.

        Every job that is launched for meanwhile would cost one, again and again.
        """
        registrar = connect().registrar
        jobs = [replace(job, job_id=number) for number in range(1, 5)]
        registrar.reserve(jobs[0])
        github.script[JIT] = [say(502, {}) for _ in range(99)]
        with pytest.raises(UnavailableError):
            registrar.register(jobs[0], instance_id="i-1")
        with pytest.raises(UnavailableError, match="octo"):
            registrar.reserve(jobs[1])
        registrar.reserve(replace(job, repository="other/hello"))
        clock.now += 30
        registrar.reserve(jobs[1])
        with pytest.raises(UnavailableError):
            registrar.reserve(jobs[2])
        github.script.clear()
        registrar.register(jobs[1], instance_id="i-2")
        registrar.reserve(jobs[2])
        registrar.reserve(jobs[3])

    def test_with_the_fallback_the_place_is_one_for_a_token(
        self, connect: Any, job: JobMessage
    ) -> None:
        """Where tokens are allowed the limit of all registrations is the one that counts."""
        registrar = connect(
            jit_configs_per_minute=1, registrations_per_minute=2, token_fallback=True
        ).registrar
        jobs = [replace(job, job_id=number) for number in (1, 2, 3)]
        registrar.reserve(jobs[0])
        registrar.reserve(jobs[1])
        with pytest.raises(RateLimitedError, match="all registrations"):
            registrar.reserve(jobs[2])
        made = [registrar.register(j, instance_id=f"i-{j.job_id}") for j in jobs[:2]]
        assert [bool(r.jit_config) for r in made] == [True, False]


class TestDeregistering:
    """Removing a runner whose instance is gone."""

    def test_idle_runner_is_removed(self, connect: Any, github: Any, job: JobMessage) -> None:
        """The runner of an ended instance disappears from GitHub."""
        registrar = connect().registrar
        registrar.register(job, instance_id="i-1")
        assert registrar.deregister(job.repository, instance_id="i-1") is Removal.REMOVED
        assert not github.runners

    def test_absent_runner_is_no_error(self, connect: Any, job: JobMessage) -> None:
        """Removing a runner that GitHub does not know is done already."""
        registrar = connect().registrar
        assert registrar.deregister(job.repository, instance_id="i-1") is Removal.ABSENT

    def test_busy_runner_stays(self, connect: Any, github: Any, job: JobMessage) -> None:
        """A runner with a job is left alone."""
        github.runners = {1: {"id": 1, "name": "runsfleet-i-1", "busy": True}}
        registrar = connect().registrar
        assert registrar.deregister(job.repository, instance_id="i-1") is Removal.BUSY
        assert 1 in github.runners

    def test_runner_that_gets_busy_meanwhile_stays(
        self, connect: Any, github: Any, say: Any, job: JobMessage
    ) -> None:
        """A runner that is given a job between listing and removal is reported as busy."""
        github.runners = {1: {"id": 1, "name": "runsfleet-i-1", "busy": False}}
        github.script["DELETE /orgs/octo/actions/runners/1"] = [
            say(422, {"message": "Runner is currently running a job"})
        ]
        registrar = connect().registrar
        assert registrar.deregister(job.repository, instance_id="i-1") is Removal.BUSY

    def test_runner_removed_by_another_is_absent(
        self, connect: Any, github: Any, say: Any, job: JobMessage
    ) -> None:
        """Losing the race for a removal is as good as winning it."""
        github.runners = {1: {"id": 1, "name": "runsfleet-i-1", "busy": False}}
        github.script["DELETE /orgs/octo/actions/runners/1"] = [say(404, {"message": "Not Found"})]
        registrar = connect().registrar
        assert registrar.deregister(job.repository, instance_id="i-1") is Removal.ABSENT
