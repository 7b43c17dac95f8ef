"""What sweeps ask of GitHub: accounts, deliveries, runners, queued jobs, deprecations."""

from __future__ import annotations

from typing import Any

import pytest

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.github.accounts import InstalledAccounts
from runsfleet_runtime.github.deliveries import DeliveryLog
from runsfleet_runtime.github.deprecations import Deprecations
from runsfleet_runtime.github.errors import (
    CredentialsError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from runsfleet_runtime.github.model import (
    Deprecation,
    InstalledAccount,
    ListedRunner,
    QueuedJob,
    Removal,
    RunnerScope,
)
from runsfleet_runtime.github.queued_jobs import QueuedJobs
from runsfleet_runtime.github.rest import Quota
from runsfleet_runtime.github.runners import RunnerDirectory

INSTALLATION = 99
DELIVERIES = "GET /app/hook/deliveries"
RUNNERS = "GET /orgs/octo/actions/runners"
RUNS = "GET /repos/octo/spoon/actions/runs"
ORGANIZATION = RunnerScope(RunnerLevel.ORGANIZATION, "octo", "")
OCTO = InstalledAccount(
    installation_id=INSTALLATION,
    login="octo",
    is_organization=True,
    is_suspended=False,
    permissions={"actions": "read"},
)


def delivery(number: int, **changes: Any) -> dict[str, Any]:
    """Make an entry of the delivery log."""
    return {
        "id": 2**53 + number,
        "guid": f"guid-{number}",
        "delivered_at": "2026-11-20T11:01:14.250Z",
        "redelivery": False,
        "status": "OK",
        "status_code": 202,
        "event": "workflow_job",
        "action": "queued",
    } | changes


def runner(number: int, **changes: Any) -> dict[str, Any]:
    """Make an entry of a list of runners."""
    return {
        "id": number,
        "name": f"runsfleet-i-{number:08x}",
        "status": "offline",
        "busy": False,
        "version": "2.337.0",
    } | changes


def pages_asked(github: Any, line: str) -> list[str]:
    """Return the pages of a list that were asked for."""
    return [request.query["page"][0] for request in github.requests if request.line == line]


def test_accounts_of_the_app(connect: Any, github: Any, say: Any) -> None:
    """Each installation is told with its account, its permissions and whether it is suspended."""
    entries = [
        {
            "id": 7,
            "account": {"login": "octo", "type": "Organization"},
            "permissions": {"actions": "read", "administration": "write"},
            "suspended_at": None,
        },
        {"id": 8, "account": {"login": "cat", "type": "User"}, "suspended_at": "2026-01-01"},
        {"id": 9, "account": None},
    ]
    github.script["GET /app/installations"] = [say(200, entries)]
    octo, cat = InstalledAccounts(connect().api).accounts()
    assert (octo.installation_id, octo.login, octo.is_organization) == (7, "octo", True)
    assert octo.permits({"administration": "read", "actions": "read"})
    assert not octo.permits({"actions": "write"})
    assert (cat.is_organization, cat.is_suspended, cat.permits({"actions": "read"})) == (
        False,
        True,
        False,
    )


def test_repositories_of_an_account(connect: Any, github: Any, say: Any) -> None:
    """All pages are read, and what is archived has no jobs."""
    first = [{"full_name": f"octo/r{n}"} for n in range(100)]
    second = [{"full_name": "octo/last"}, {"full_name": "octo/old", "archived": True}]
    line = "GET /installation/repositories"
    github.script[line] = [
        say(200, {"repositories": first}),
        say(200, {"repositories": second}),
    ]
    found = list(InstalledAccounts(connect().api).repositories(OCTO))
    assert len(found) == 101
    assert found[-1] == "octo/last"
    assert pages_asked(github, line) == ["1", "2"]


def test_unknown_installation_is_not_looked_up(connect: Any, github: Any) -> None:
    """An installation that is gone by now is told, and no other one spoken for in its place."""
    gone = InstalledAccount(
        installation_id=5, login="octo", is_organization=True, is_suspended=False, permissions={}
    )
    with pytest.raises(NotFoundError):
        list(InstalledAccounts(connect().api).repositories(gone))
    assert github.lines() == ["POST /app/installations/5/access_tokens"]


def test_delivery_log_is_paged_by_cursor(connect: Any, github: Any, say: Any) -> None:
    """A page names the cursor of the next one, and the last page none."""
    link = '<https://elsewhere.example/a?per_page=100&cursor=v1_a%2Bb>; rel="next"'
    github.script[DELIVERIES] = [say(200, [delivery(2)], link=link), say(200, [delivery(1)])]
    log = DeliveryLog(connect().api)
    newest = log.page()
    assert newest.following == "v1_a+b"
    assert newest.deliveries[0].id == 2**53 + 2
    assert newest.deliveries[0].delivered_at % 1 == 0.25
    assert log.page(newest.following).following is None
    assert github.requests[-1].query["cursor"] == ["v1_a+b"]


@pytest.mark.parametrize(
    "answered",
    [
        ("Invalid HTTP Response: 503", 503),
        ("timed out", 0),
        ("timed out", 504),
        ("failed to connect to host", None),
    ],
)
def test_only_2xx_is_a_delivery(connect: Any, github: Any, say: Any, answered: Any) -> None:
    """Whatever was not answered with 2xx failed, with or without a status code."""
    status, code = answered
    entries = [delivery(1, status=status, status_code=code), delivery(2)]
    github.script[DELIVERIES] = [say(200, entries)]
    found = DeliveryLog(connect().api).page().deliveries
    assert [entry.is_ok for entry in found] == [False, True]


@pytest.mark.parametrize(
    "body", [{}, [{"id": 1}], ["x"], [delivery(1, delivered_at="soon")], [delivery(1, guid="")]]
)
def test_page_that_cannot_be_read_is_no_page(
    connect: Any, github: Any, say: Any, body: Any
) -> None:
    """An entry that is not understood may be a lost job, so it is not passed over."""
    github.script[DELIVERIES] = [say(200, body)]
    with pytest.raises(UnavailableError):
        DeliveryLog(connect().api).page()


def test_redelivery_is_asked_for_as_the_app(connect: Any, github: Any, say: Any) -> None:
    """GitHub is asked once, and one that it no longer has is told apart."""
    line = f"POST /app/hook/deliveries/{2**53 + 1}/attempts"
    github.script[line] = [say(202, {}), say(404, {"message": "Not Found"})]
    log = DeliveryLog(connect().api)
    log.redeliver(2**53 + 1)
    with pytest.raises(NotFoundError):
        log.redeliver(2**53 + 1)
    assert github.lines() == [line, line]


def test_refused_app_is_a_matter_of_its_secret(connect: Any, github: Any, say: Any) -> None:
    """A key that GitHub does not accept is told as such."""
    github.script[DELIVERIES] = [say(401, {"message": "Bad credentials"})] * 2
    with pytest.raises(CredentialsError):
        DeliveryLog(connect().api).page()


def test_all_runners_are_listed(connect: Any, github: Any, say: Any) -> None:
    """Fifteen thousand runners are read page by page, in a request for each hundred."""
    entries = [runner(number) for number in range(15_000)]
    github.script[RUNNERS] = [
        say(200, {"total_count": 15_000, "runners": entries[start : start + 100]})
        for start in range(0, 15_100, 100)
    ]
    found = list(RunnerDirectory(connect().api).runners(ORGANIZATION, INSTALLATION))
    assert len(found) == 15_000
    assert len(pages_asked(github, RUNNERS)) == 151


def test_listed_runner(connect: Any, github: Any, say: Any) -> None:
    """What GitHub says differently from what is known is neither offline nor idle."""
    odd = {"id": 9, "name": "runsfleet-i-0123456789abcdef0", "status": "sleeping", "busy": "no"}
    github.script[RUNNERS] = [say(200, {"runners": [runner(7), odd]})]
    directory = RunnerDirectory(connect().api)
    first, second = directory.runners(ORGANIZATION, INSTALLATION)
    assert first == ListedRunner(
        id=7, name="runsfleet-i-00000007", is_offline=True, is_busy=False, version="2.337.0"
    )
    assert (second.is_offline, second.is_busy) == (False, True)
    assert second.instance_id == "i-0123456789abcdef0"


@pytest.mark.parametrize(
    "name", ["", "i-00000007", "runsfleet-", "runsfleet-mine", "my-runsfleet-i-00000007", "RUNNER"]
)
def test_runner_of_somebody_else(name: str) -> None:
    """Only a name that is made of our prefix and an instance is a runner of a fleet."""
    assert ListedRunner(id=1, name=name, is_offline=True, is_busy=False).instance_id is None


@pytest.mark.parametrize(
    ("status", "removal"), [(204, Removal.REMOVED), (404, Removal.ABSENT), (422, Removal.BUSY)]
)
def test_removing_a_runner(
    connect: Any, github: Any, say: Any, status: int, removal: Removal
) -> None:
    """A runner is removed unless it is gone or GitHub says that it has a job."""
    github.script["DELETE /orgs/octo/actions/runners/7"] = [say(status, {"message": "m"})]
    assert RunnerDirectory(connect().api).remove(ORGANIZATION, INSTALLATION, 7) is removal


def test_refused_removal_is_no_removal(connect: Any, github: Any, say: Any) -> None:
    """Without the permission nothing is known to be removed."""
    github.script["DELETE /orgs/octo/actions/runners/7"] = [say(403, {"message": "m"})]
    with pytest.raises(RefusedError):
        RunnerDirectory(connect().api).remove(ORGANIZATION, INSTALLATION, 7)


def test_reading_a_runner(connect: Any, github: Any, say: Any) -> None:
    """A runner is read as it is now, or is gone."""
    github.script["GET /orgs/octo/actions/runners/7"] = [
        say(200, runner(7, busy=True)),
        say(404),
    ]
    directory = RunnerDirectory(connect().api)
    found = directory.read(ORGANIZATION, INSTALLATION, 7)
    assert found is not None
    assert found.is_busy
    assert directory.read(ORGANIZATION, INSTALLATION, 7) is None


def test_runs_that_may_wait(connect: Any, github: Any, say: Any) -> None:
    """Runs that wait and runs that have begun are both asked for."""
    github.script[RUNS] = [
        say(200, {"workflow_runs": [{"id": 3}, {"id": "x"}]}),
        say(200, {"workflow_runs": [{"id": 2}]}),
    ]
    assert list(QueuedJobs(connect().api).runs("octo/spoon", INSTALLATION)) == [3, 2]
    asked = [r.query["status"][0] for r in github.requests if r.line == RUNS]
    assert asked == ["queued", "in_progress"]


def test_queued_jobs_of_a_run(connect: Any, github: Any, say: Any) -> None:
    """Only queued jobs are told, with their labels byte for byte."""
    job = {
        "id": 55_812_345_678,
        "status": "queued",
        "labels": ["runs-fleet=1/cpu=2", " Spaced ", "ÜNICODE"],
        "run_attempt": 2,
        "created_at": "2026-11-20T11:01:14Z",
        "workflow_name": "CI",
        "name": "build",
    }
    entries = [
        job,
        job | {"id": 2, "status": "in_progress"},
        job | {"id": 3, "status": "waiting"},
        job | {"id": 4, "labels": None},
        job | {"id": 5, "created_at": None},
    ]
    github.script[f"{RUNS}/19/jobs"] = [say(200, {"jobs": entries})]
    first, ageless = QueuedJobs(connect().api).jobs("octo/spoon", 19, INSTALLATION)
    assert first == QueuedJob(
        job_id=55_812_345_678,
        run_id=19,
        run_attempt=2,
        repository="octo/spoon",
        labels=("runs-fleet=1/cpu=2", " Spaced ", "ÜNICODE"),
        created_at=1795172474.0,
        workflow_name="CI",
        job_name="build",
    )
    assert ageless.created_at is None


def test_list_in_another_form_is_no_answer(connect: Any, github: Any, say: Any) -> None:
    """Something else than a list is treated as an outage, not as an empty list."""
    github.script[RUNS] = [say(200, {"message": "hello"})]
    with pytest.raises(UnavailableError, match="no list of workflow runs"):
        list(QueuedJobs(connect().api).runs("octo/spoon", INSTALLATION))


DEPRECATION = "GET /orgs/octo/actions/runners/deprecations/2.336.0"


def test_end_of_a_version(connect: Any, github: Any, say: Any) -> None:
    """A version's ends are told; none means that none is set."""
    body = {
        "runner_version": "2.336.0",
        "registration_deprecates_at": None,
        "runtime_deprecates_at": "2026-11-20T11:01:14Z",
    }
    github.script[DEPRECATION] = [say(200, body)]
    found = Deprecations(connect().api).of("2.336.0", ORGANIZATION, INSTALLATION)
    assert found == Deprecation(
        version="2.336.0", registration_ends_at=None, runtime_ends_at=1795172474.0
    )


def test_server_that_does_not_know_ends(connect: Any) -> None:
    """A server without the question leaves the answer open."""
    assert Deprecations(connect().api).of("2.336.0", ORGANIZATION, INSTALLATION) is None


def test_versions_that_are_offered(connect: Any, github: Any) -> None:
    """All platforms together; usually they have the same version."""
    assert Deprecations(connect().api).offered(ORGANIZATION, INSTALLATION) == {"2.337.0"}


def test_offer_in_another_form_is_no_answer(connect: Any, github: Any, say: Any) -> None:
    """Something else than a list is treated as an outage."""
    github.script["GET /orgs/octo/actions/runners/downloads"] = [say(200, {})]
    with pytest.raises(UnavailableError):
        Deprecations(connect().api).offered(ORGANIZATION, INSTALLATION)


@pytest.mark.parametrize("body", [[], {"runtime_deprecates_at": "soon"}])
def test_end_that_cannot_be_read_is_no_end(connect: Any, github: Any, say: Any, body: Any) -> None:
    """A malformed answer is not taken for a version without end."""
    github.script[DEPRECATION] = [say(200, body)]
    with pytest.raises(UnavailableError):
        Deprecations(connect().api).of("2.336.0", ORGANIZATION, INSTALLATION)


def test_quota_is_what_the_last_answer_said(connect: Any, github: Any, say: Any) -> None:
    """What is left of an hour's requests is known once an answer has told it."""
    api = connect().api
    assert api.quota(INSTALLATION) is None
    headers = {"x_ratelimit_remaining": "4990", "x_ratelimit_limit": "5000"}
    github.script[RUNS] = [
        say(200, {"workflow_runs": []}, **headers),
        say(200, {"workflow_runs": []}),
    ]
    list(QueuedJobs(api).runs("octo/spoon", INSTALLATION))
    assert api.quota(INSTALLATION) == Quota(left=4990, limit=5000)
