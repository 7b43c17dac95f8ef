"""What sweeps ask of GitHub over real HTTP, against the stand-in, and the sweeps on top of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runsfleet_cli.local.github.background import BackgroundStandIn
from runsfleet_cli.local.github.traffic import Fault, RateLimits
from runsfleet_cli.local.jobs.plan import read_workflow_file
from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.github import (
    CredentialsError,
    JobState,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    Removal,
    RunnerScope,
    UnavailableError,
)
from runsfleet_runtime.github.accounts import InstalledAccounts
from runsfleet_runtime.github.deliveries import DeliveryLog
from runsfleet_runtime.github.deprecations import Deprecations
from runsfleet_runtime.github.gateway import GitHubGateway
from runsfleet_runtime.github.model import InstalledAccount
from runsfleet_runtime.github.queued_jobs import QueuedJobs
from runsfleet_runtime.github.runners import RunnerDirectory
from runsfleet_runtime.housekeeping.lost_deliveries import LostDeliveries
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.offline_runners import OfflineRunners
from runsfleet_runtime.housekeeping.runner_versions import RunnerVersions
from runsfleet_runtime.housekeeping.unannounced_jobs import UnannouncedJobs
from runsfleet_runtime.labels import LabelSettings
from tests.integration.test_github_client import connect_to, sent
from tests.unit.housekeeping.frame import Frame, Redispatcher
from tests.unit.housekeeping.github_fakes import Queue, Records

pytestmark = pytest.mark.integration

REPOSITORY = "octo-org/hello"
WORKFLOW = """
on: push
jobs:
  build:
    runs-on: "runs-fleet=1/runner=2cpu-linux-arm64"
    strategy: {matrix: {n: [1, 2, 3]}}
    steps: [{run: "true"}]
  other:
    runs-on: ubuntu-latest
    steps: [{run: "true"}]
"""


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as GitHub makes."""

    request_queue_size = 128


class Receiver:
    """A webhook that counts what it gets, and answers with a status."""

    def __init__(self) -> None:
        self.status = 202
        self.guids: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                receiver.guids.append(self.headers["X-GitHub-Delivery"])
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Stay silent."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Start a webhook."""
    started = Receiver()
    yield started
    started.close()


@pytest.fixture
def github() -> Iterator[BackgroundStandIn]:
    """Start a GitHub."""
    with BackgroundStandIn() as started:
        yield started


@pytest.fixture
def gateway(github: BackgroundStandIn) -> GitHubGateway:
    """Connect as housekeeping does."""
    return connect_to(github)


@pytest.fixture
def octo(gateway: GitHubGateway) -> InstalledAccount:
    """Return the App's installation at the organisation."""
    return next(
        account
        for account in InstalledAccounts(gateway.api).accounts()
        if account.login == "octo-org"
    )


def queue_run(github: BackgroundStandIn, tmp_path: Path) -> Any:
    """Queue a run whose jobs are ours, but one."""
    path = tmp_path / "ci.yml"
    path.write_text(WORKFLOW)
    return github.call(lambda: github.stand_in.queue_workflow(read_workflow_file(path)))


def deliver(github: BackgroundStandIn, count: int, url: str) -> None:
    """Have GitHub try to deliver as many events, and wait until it has."""

    def send() -> None:
        stand_in = github.stand_in
        stand_in.set_webhook(url, "secret")
        for number in range(count):
            payload = {"action": "queued", "number": number}
            stand_in.webhooks.send(stand_in.app, "workflow_job", payload)

    github.call(send)
    github.run(github.stand_in.webhooks.settled())


def spoil(github: BackgroundStandIn, route: str, **options: Any) -> None:
    """Switch a fault on."""
    github.call(lambda: github.stand_in.traffic.add_fault(Fault(route=route, **options)))


def register(
    github: BackgroundStandIn, count: int, *, scope: str = "orgs/octo-org", **changes: Any
) -> None:
    """Register runners of instances."""

    def add() -> None:
        registry = github.stand_in.services.registry
        for number in range(count):
            runner = registry.add(
                scope, f"runsfleet-i-{number:017x}", ["l"], 1, ephemeral=True, jit=True
            )
            for name, value in changes.items():
                setattr(runner, name, value)

    github.call(add)


ORGANIZATION = RunnerScope(RunnerLevel.ORGANIZATION, "octo-org", "")


def test_delivery_log_of_several_pages(
    github: BackgroundStandIn, gateway: GitHubGateway, receiver: Receiver
) -> None:
    """All deliveries are read by following the cursors, newest first, each once."""
    deliver(github, 130, receiver.url)
    deliver(github, 120, "http://127.0.0.1:9/")
    log = DeliveryLog(gateway.api)
    pages, cursor = [], None
    while True:
        page = log.page(cursor)
        pages.append(page.deliveries)
        cursor = page.following
        if cursor is None:
            break
    assert [len(page) for page in pages] == [100, 100, 50]
    found = [delivery for page in pages for delivery in page]
    assert len({delivery.guid for delivery in found}) == 250
    assert [d.is_ok for d in found] == [False] * 120 + [True] * 130
    assert found[0].id > found[-1].id > 2**52
    assert abs(found[0].delivered_at - time.time()) < 60
    assert {(d.event, d.action, d.is_redelivery) for d in found} == {
        ("workflow_job", "queued", False)
    }


def test_redelivery_comes_under_the_same_guid(
    github: BackgroundStandIn, gateway: GitHubGateway, receiver: Receiver
) -> None:
    """What failed is delivered again; what GitHub does not have is not found."""
    deliver(github, 1, "http://127.0.0.1:9/")
    log = DeliveryLog(gateway.api)
    (failed,) = log.page().deliveries
    github.call(lambda: github.stand_in.set_webhook(receiver.url, "secret"))
    log.redeliver(failed.id)
    github.run(github.stand_in.webhooks.settled())
    assert receiver.guids == [failed.guid]
    newest, oldest = log.page().deliveries
    assert (newest.guid, newest.is_ok, newest.is_redelivery) == (failed.guid, True, True)
    assert oldest.id == failed.id
    with pytest.raises(NotFoundError):
        log.redeliver(failed.id + 1)
    with pytest.raises(RefusedError):
        log.page("v1_nonsense!")


def test_accounts_and_their_repositories(
    github: BackgroundStandIn, gateway: GitHubGateway, octo: InstalledAccount
) -> None:
    """An account is told with its permissions, and all repositories that the App reaches."""

    def add() -> None:
        for number in range(120):
            github.stand_in.world.add_repository(f"octo-org/r{number:03}")

    github.call(add)
    assert octo.is_organization
    assert octo.permits({"organization_self_hosted_runners": "write", "actions": "read"})
    found = list(InstalledAccounts(gateway.api).repositories(octo))
    assert REPOSITORY in found
    assert {f"octo-org/r{number:03}" for number in range(120)} <= set(found)
    assert len(found) == len(set(found))


def test_runners_of_several_pages(
    github: BackgroundStandIn, gateway: GitHubGateway, octo: InstalledAccount
) -> None:
    """All runners are listed with their states; one is read, and removed unless it is busy."""
    register(github, 250)

    def change() -> list[int]:
        first, second, third, *_ = github.stand_in.world.runners.values()
        first.online = first.busy = True
        first.version = "2.336.0"
        second.online = True
        return [first.id, second.id, third.id]

    busy, idle, offline = github.call(change)
    directory = RunnerDirectory(gateway.api)
    found = {runner.id: runner for runner in directory.runners(ORGANIZATION, octo.installation_id)}
    assert len(found) == 250
    assert (found[busy].is_offline, found[busy].is_busy) == (False, True)
    assert found[busy].version == "2.336.0"
    assert (found[idle].is_offline, found[idle].is_busy) == (False, False)
    assert (found[offline].is_offline, found[offline].is_busy) == (True, False)
    assert found[offline].instance_id == f"i-{2:017x}"
    assert directory.remove(ORGANIZATION, octo.installation_id, busy) is Removal.BUSY
    assert directory.remove(ORGANIZATION, octo.installation_id, offline) is Removal.REMOVED
    assert directory.remove(ORGANIZATION, octo.installation_id, offline) is Removal.ABSENT
    assert directory.read(ORGANIZATION, octo.installation_id, offline) is None
    assert directory.read(ORGANIZATION, octo.installation_id, busy) == found[busy]


def test_queued_jobs_of_runs(
    github: BackgroundStandIn, gateway: GitHubGateway, octo: InstalledAccount, tmp_path: Path
) -> None:
    """Queued jobs are found, and no longer once they are not queued."""
    run = queue_run(github, tmp_path)
    queued = QueuedJobs(gateway.api)
    assert list(queued.runs(REPOSITORY, octo.installation_id)) == [run.id]
    jobs = queued.jobs(REPOSITORY, run.id, octo.installation_id)
    assert len(jobs) == 4
    ours = [job for job in jobs if job.labels[0].startswith("runs-fleet")]
    assert {job.labels for job in ours} == {("runs-fleet=1/runner=2cpu-linux-arm64",)}
    assert all(job.created_at and abs(job.created_at - time.time()) < 60 for job in jobs)
    state = gateway.job_states.status(REPOSITORY, ours[0].job_id, octo.installation_id)
    assert state is JobState.QUEUED
    github.call(lambda: github.stand_in.lifecycle.cancel_run(run))
    assert list(queued.runs(REPOSITORY, octo.installation_id)) == []
    assert queued.jobs(REPOSITORY, run.id, octo.installation_id) == []
    with pytest.raises(NotFoundError):
        queued.jobs(REPOSITORY, 1, octo.installation_id)


def test_ends_of_versions(
    github: BackgroundStandIn, gateway: GitHubGateway, octo: InstalledAccount
) -> None:
    """The offered version has no end, a superseded one has, and of nonsense nothing is known."""
    versions = Deprecations(gateway.api)
    (offered,) = versions.offered(ORGANIZATION, octo.installation_id)
    current = versions.of(offered, ORGANIZATION, octo.installation_id)
    assert current is not None
    assert current.runtime_ends_at is None
    old = versions.of("2.330.0", ORGANIZATION, octo.installation_id)
    assert old is not None
    assert old.runtime_ends_at is not None
    assert versions.of("latest", ORGANIZATION, octo.installation_id) is None


def test_what_is_left_of_the_allowance_is_known(octo: InstalledAccount) -> None:
    """Each answer of the real form tells how many requests are left."""
    with BackgroundStandIn(limits=RateLimits(primary_per_hour=5)) as github:
        gateway = connect_to(github)
        account, *_ = InstalledAccounts(gateway.api).accounts()
        queued = QueuedJobs(gateway.api)
        assert queued.quota(account.installation_id) is None
        list(queued.runs(REPOSITORY, account.installation_id))
        quota = queued.quota(account.installation_id)
        assert quota is not None
        assert (quota.left, quota.limit) == (3, 5)
        list(queued.runs(REPOSITORY, account.installation_id))
        with pytest.raises(RateLimitedError):
            list(queued.runs(REPOSITORY, account.installation_id))


def test_missing_permission_shows_in_the_account_and_in_the_refusal(
    github: BackgroundStandIn, gateway: GitHubGateway
) -> None:
    """What an installation does not grant can be known before it is asked for."""
    installation = github.call(github.stand_in.installation_of)
    installation.permissions.pop("actions")
    account = next(
        one
        for one in InstalledAccounts(gateway.api).accounts()
        if one.installation_id == installation.id
    )
    assert not account.permits({"actions": "read"})
    with pytest.raises(RefusedError, match="actions: read"):
        list(QueuedJobs(gateway.api).runs(REPOSITORY, account.installation_id))


def test_failing_page_and_wrong_key(
    github: BackgroundStandIn, gateway: GitHubGateway, receiver: Receiver
) -> None:
    """A page that fails is repeated and then told; a wrong key is a matter of the secret."""
    deliver(github, 150, receiver.url)
    log = DeliveryLog(gateway.api)
    spoil(github, "/app/hook/deliveries", status=502, count=1)
    first = log.page()
    assert len(first.deliveries) == 100
    spoil(github, "/app/hook/deliveries", status=404)
    with pytest.raises(NotFoundError):
        log.page(first.following)
    with BackgroundStandIn() as other:
        wrong = connect_to(github, secret={"private_key": other.stand_in.private_key})
        github.call(github.stand_in.clear_faults)
        with pytest.raises(CredentialsError):
            DeliveryLog(wrong.api).page()


@pytest.mark.parametrize("options", [{"drop": True}, {"status": 503}])
@pytest.mark.parametrize("arrives", [False, True])
def test_faults_of_deliveries(
    github: BackgroundStandIn,
    gateway: GitHubGateway,
    receiver: Receiver,
    options: dict[str, Any],
    arrives: bool,
) -> None:
    """A delivery can be lost, or arrive although GitHub never learns of it; both are listed."""
    spoil(github, "*", status=500)  # of the API, which webhooks are no part of
    spoil(github, "webhook/delivery", count=1, after=arrives, **options)
    deliver(github, 2, receiver.url)
    github.call(github.stand_in.clear_faults)
    found = DeliveryLog(gateway.api).page().deliveries
    assert sorted(delivery.is_ok for delivery in found) == [False, True]
    assert len(receiver.guids) == 1 + arrives


def test_fault_of_events(
    github: BackgroundStandIn, gateway: GitHubGateway, receiver: Receiver
) -> None:
    """An event that GitHub never announces is in no list; a redelivery is no event of its own."""
    deliver(github, 1, receiver.url)
    (known,) = DeliveryLog(gateway.api).page().deliveries
    spoil(github, "webhook/event")
    deliver(github, 3, receiver.url)
    DeliveryLog(gateway.api).redeliver(known.id)
    github.run(github.stand_in.webhooks.settled())
    assert receiver.guids == [known.guid, known.guid]
    assert len(DeliveryLog(gateway.api).page().deliveries) == 2


def test_sweep_of_lost_deliveries(
    github: BackgroundStandIn, gateway: GitHubGateway, receiver: Receiver
) -> None:
    """After an outage of the webhook every event has arrived, and none is asked for twice."""
    frame = Frame(now=time.time() + 600)
    task = LostDeliveries(deliveries=DeliveryLog(gateway.api), metrics=frame, clock=frame.clock)
    receiver.status = 503
    deliver(github, 120, receiver.url)
    receiver.guids.clear()
    receiver.status = 202
    assert frame.run(task).acted == 120
    github.run(github.stand_in.webhooks.settled())
    assert len(set(receiver.guids)) == len(receiver.guids) == 120
    frame.now += 300
    assert frame.run(task).selected == 0


def test_sweep_of_lost_deliveries_while_github_fails(
    github: BackgroundStandIn, gateway: GitHubGateway, receiver: Receiver
) -> None:
    """A page that cannot be read fails the run, and the next run reads it."""
    frame = Frame(now=time.time() + 600)
    task = LostDeliveries(deliveries=DeliveryLog(gateway.api), metrics=frame, clock=frame.clock)
    deliver(github, 130, "http://127.0.0.1:9/")
    github.call(lambda: github.stand_in.set_webhook(receiver.url, "secret"))
    spoil(github, "/app/hook/deliveries", method="GET", status=403, skip=1, count=1)
    with pytest.raises(RefusedError):
        frame.run(task)
    assert frame.outcomes["sweep:lost_deliveries"] is SweepOutcome.FAILED
    assert not receiver.guids
    assert frame.run(task).acted == 130


def test_sweep_of_unannounced_jobs(
    github: BackgroundStandIn, gateway: GitHubGateway, tmp_path: Path
) -> None:
    """Jobs of a run for which no webhook was ever made become messages, ours alone."""
    run = queue_run(github, tmp_path)
    frame = Frame(now=time.time() + 600)
    queue, records = Queue(), Records(known=set())
    task = UnannouncedJobs(
        accounts=InstalledAccounts(gateway.api),
        queued=QueuedJobs(gateway.api),
        repositories=records,
        records=records,
        queue=queue,
        redispatcher=Redispatcher(),
        labels=LabelSettings(),
        runner_level=RunnerLevel.ORGANIZATION,
        metrics=frame,
        clock=frame.clock,
    )
    frame.run(task)
    ours = [job.id for job in github.call(run.latest) if job.labels[0] != "ubuntu-latest"]
    assert sorted(job.job_id for job in queue.sent) == sorted(ours)
    assert {job.repository for job in queue.sent} == {REPOSITORY}


def test_sweeps_of_runners_and_versions(github: BackgroundStandIn, gateway: GitHubGateway) -> None:
    """A runner of a gone instance is taken off the list, and the ends of versions are measured."""
    register(github, 3)
    online = github.call(lambda: next(iter(github.stand_in.world.runners.values())))
    online.online, online.version = True, "2.330.0"

    class Nothing:
        def exists(self, instance_id: str) -> bool:
            return False

    frame = Frame(now=time.time())
    accounts, runners = InstalledAccounts(gateway.api), RunnerDirectory(gateway.api)
    offline = OfflineRunners(
        accounts=accounts,
        runners=runners,
        instances=Nothing(),
        repositories=Records(),
        runner_level=RunnerLevel.ORGANIZATION,
        ceiling_seconds=3600.0,
        metrics=frame,
        clock=frame.clock,
    )
    versions = RunnerVersions(
        accounts=accounts,
        runners=runners,
        ends=Deprecations(gateway.api),
        repositories=Records(),
        runner_level=RunnerLevel.ORGANIZATION,
        metrics=frame,
        clock=frame.clock,
    )
    assert frame.run(offline).acted == 0
    assert frame.run(versions).acted == 1
    frame.now += 3601
    assert frame.run(offline).acted == 2
    left = github.call(lambda: [r.name for r in github.stand_in.world.runners.values()])
    assert left == [online.name]


def test_github_that_hangs_costs_no_more_than_a_sweep_has(
    github: BackgroundStandIn, gateway: GitHubGateway
) -> None:
    """A question has nine seconds, so that two of them fit into what a run reserves."""
    spoil(github, "/app/hook/deliveries", drop=True)
    slept: list[float] = []
    now = [time.time()]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    hasty = connect_to(github, sleep=sleep, clock=lambda: now[0])
    with pytest.raises(UnavailableError):
        DeliveryLog(hasty.api).page()
    assert 4 < sum(slept) < 9
    assert len(sent(github)) > 3
