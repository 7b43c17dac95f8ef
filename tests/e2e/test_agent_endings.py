"""Whatever befalls an instance: its record tells the truth and it is gone within its bound.

With real agents on a plain local cloud. `-rP` shows how long each end took (docs/agent.md).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.endings import Trial
from tests.e2e.tuning import client, tuned

if TYPE_CHECKING:
    from tests.e2e.clouds import Cloud

START_SECONDS = 10.0
"""From launch to the agent's work, with a bit for a busy machine."""

SETTLING_SECONDS = 150.0
"""For a report that is just being taken, the second look at a lost instance (90 s after its end),
and the message of a re-run (60 s), which comes also when the job runs again already."""

HANGS = "test ${{ github.run_attempt }} -gt 1 || sleep 300"
"""In the first attempt of its run: what is interrupted runs again at GitHub."""
INSTANCES = "instance:*"

Try = Callable[..., Trial]


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left(cloud: Cloud) -> Iterator[None]:
    """After all of it no instance lives, no message waits, and none was given up."""
    yield
    deadline = time.monotonic() + SETTLING_SECONDS
    while (left := left_over(cloud)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def left_over(cloud: Cloud) -> dict[str, int | str]:
    """What waits in queues, dead-letter queues too, and the instances that live."""
    state = cloud.client.state()
    waiting = {role: sum(depth.values()) for role, depth in state["queues"].items()}
    living = {one["instance_id"]: one["state"] for one in state["instances"]}
    return {role: number for role, number in waiting.items() if number} | {
        instance_id: what for instance_id, what in living.items() if what != "terminated"
    }


@pytest.fixture
def trial(cloud: Cloud, tmp_path: Path) -> Try:
    """Queues a job that runs a command."""
    return lambda command="true": Trial(cloud, tmp_path, command)


def say(what: str, seconds: float) -> None:
    """Note a measured time."""
    print(f"{what}: {seconds:.1f} s")  # noqa: T201  (shown by -rP)


def launched_at(one: Trial, number: int = 0) -> float:
    """When an instance of a trial was launched."""
    return float(one.instances[number]["launched_at"])


def without_cached_runner(cloud: Cloud) -> None:
    """Empty the cache of runner packages."""
    s3 = client(cloud, "s3")
    bucket = cloud.running.endpoints.outputs["RunnerCacheBucketName"]
    for found in s3.list_objects_v2(Bucket=bucket, Prefix="runners/").get("Contents", []):
        s3.delete_object(Bucket=bucket, Key=found["Key"])


def served_by_another(one: Trial, *, seconds: float) -> dict[str, str]:
    """The first instance is gone in time; another one serves the job; the final record."""
    first = one.until_instance()
    say("gone", one.ended_after(launched_at(one), first, seconds))
    second = one.until_instance(2)
    record = one.closed()
    assert record["outcome"] == "success"
    assert record["requeues"] == "1"
    assert record["instance_id"] == second != first
    assert one.job["conclusion"] == "success"
    one.ended_after(launched_at(one, 1), second, START_SECONDS + 10)
    return record


@pytest.mark.parametrize(("command", "conclusion"), [("true", "success"), ("exit 3", "failure")])
def test_a_job_that_ends_ends_its_instance(trial: Try, command: str, conclusion: str) -> None:
    """Green or red is the workflow's business: for the fleet both were served."""
    one = trial(command)
    record = one.closed()
    assert one.job["conclusion"] == conclusion
    assert record["outcome"] == "success"
    say("gone", one.ended_after(launched_at(one), record["instance_id"], START_SECONDS + 5))
    assert len(one.instances) == 1


def test_a_job_that_hangs_is_ended(cloud: Cloud, trial: Try) -> None:
    """Beyond its maximum runtime a job is cancelled, and the record says so."""
    with tuned(cloud, dispatch={"RUNSFLEET_MAX_RUNTIME_SECONDS": "2"}):
        one = trial(HANGS)
        record = one.closed()
    assert record["outcome"] == "timeout"
    assert "longer than 2 s" in record["error"]
    assert one.job["conclusion"] == "cancelled"
    say("gone", one.ended_after(launched_at(one), record["instance_id"], START_SECONDS + 10))


def test_a_slow_and_a_broken_download_are_survived(cloud: Cloud, trial: Try) -> None:
    """A package that breaks off is fetched again, a slow one is waited for."""
    without_cached_runner(cloud)
    route = "/actions/runner/releases/download/*"
    for kind in ("truncated", "slow"):
        cloud.client.github("POST", "faults", {"route": route, "download": kind, "count": 1})
    try:
        one = trial()
        record = one.closed()
    finally:
        cloud.client.github("DELETE", "faults")
    assert record["outcome"] == "success"
    say("gone", one.ended_after(launched_at(one), record["instance_id"], START_SECONDS + 15))
    (instance,) = one.instances
    assert any("runner package not downloaded" in line for line in instance["console"])


def test_a_wrong_digest_is_never_run(cloud: Cloud, trial: Try) -> None:
    """The instance ends at once, keeps the package to itself, and another one serves the job."""
    without_cached_runner(cloud)
    rule = {"route": "/actions/runner/releases/download/*", "download": "wrong-digest", "count": 1}
    cloud.client.github("POST", "faults", rule)
    try:
        one = trial()
        served_by_another(one, seconds=START_SECONDS + 5)
    finally:
        cloud.client.github("DELETE", "faults")
    first, second = ("\n".join(found["console"]) for found in one.instances)
    assert "has SHA-256" in first
    assert '"source":"download"' in second


@contextlib.contextmanager
def expired(cloud: Cloud, *, times: int) -> Iterator[None]:
    """Have GitHub know nothing of the next runners that sign in, as of expired configurations."""
    rule = {"route": "/_runner/oauth2/token", "status": 400, "message": "Registration not found."}
    cloud.client.github("POST", "faults", {**rule, "count": times})
    try:
        yield
    finally:
        cloud.client.github("DELETE", "faults")


def asked_for_renewal(console: Sequence[str]) -> int:
    """How often an agent asked for another registration."""
    return sum("registration refused, another is asked for" in line for line in console)


def test_an_expired_configuration_is_renewed(cloud: Cloud, trial: Try) -> None:
    """The same instance gets another one and serves the job: nothing is launched again."""
    with expired(cloud, times=1):
        one = trial()
        record = one.closed()
    assert record["outcome"] == "success"
    assert record["renewed_dispatch"] == record["dispatch"]
    assert record["requeues"] == "0"
    assert one.job["conclusion"] == "success"
    say("gone", one.ended_after(launched_at(one), record["instance_id"], START_SECONDS + 15))
    (instance,) = one.instances
    assert asked_for_renewal(instance["console"]) == 1


def test_a_renewed_configuration_that_expired_too_ends_the_instance(
    cloud: Cloud, trial: Try
) -> None:
    """It asks once and no more; another instance serves the job."""
    with expired(cloud, times=2):
        one = trial()
        record = served_by_another(one, seconds=START_SECONDS + 15)
    first, second = (found["console"] for found in one.instances)
    assert (asked_for_renewal(first), asked_for_renewal(second)) == (1, 0)
    assert (record["renewed_dispatch"], record["dispatch"]) == ("0", "1")


def test_a_full_disk_fails_before_anything_is_fetched(cloud: Cloud, trial: Try) -> None:
    """The instance says how much it needs, and the job gets another one."""
    with tuned(cloud, agent={"RUNSFLEET_RUNNER_DISK_BYTES": str(10**18)}):
        one = trial()
        first = one.until_instance()
        one.ended_after(launched_at(one), first, START_SECONDS + 5)
    served_by_another(one, seconds=START_SECONDS + 5)
    assert f"a runner needs {10**18}" in "\n".join(one.instances[0]["console"])


def test_sigterm_interrupts_a_job(trial: Try) -> None:
    """The runner cancels its job, the record says who stopped it, the instance goes."""
    one = trial(HANGS)
    instance = one.until_job_runs()
    since = one.act("stop-agent", instance)
    record = one.closed()
    assert record["outcome"] == "interrupted"
    assert "SIGTERM" in record["error"]
    assert one.job["conclusion"] == "cancelled"
    say("gone", one.ended_after(since, instance, 15))
    one.run_again()


def test_a_spot_notice_before_the_job_gives_it_to_another_instance(
    cloud: Cloud, trial: Try
) -> None:
    """The agent does not even start a runner on an instance that is being taken away."""
    with tuned(cloud, setup=["sleep 2"]):
        one = trial()
        one.act("interrupt", one.until_instance(), seconds=120)
        one.until_instance(2)
    served_by_another(one, seconds=START_SECONDS + 5)
    assert not any("Listening for Jobs" in line for line in one.instances[0]["console"])


def test_a_spot_notice_during_the_job_interrupts_it(trial: Try) -> None:
    """Report and end come well before EC2 takes the instance."""
    one = trial(HANGS)
    instance = one.until_job_runs()
    since = one.act("interrupt", instance, seconds=60)
    record = one.closed()
    assert record["outcome"] == "interrupted"
    assert "spot interruption" in record["error"]
    say("gone", one.ended_after(since, instance, 35))
    assert one.instances[0]["reason"].startswith("TerminateInstances by itself")
    one.run_again()


def test_a_runner_that_is_killed_is_a_failure(trial: Try) -> None:
    """Its exit code says nothing, its hooks say that the job never ended."""
    one = trial(HANGS)
    instance = one.until_job_runs()
    since = one.act("kill-runner", instance)
    record = one.closed()
    assert record["outcome"] == "failure"
    say("gone", one.ended_after(since, instance, 15))


def test_an_agent_that_is_killed_is_spoken_for(trial: Try) -> None:
    """The first script outlives it, closes the record with the truth and ends the instance."""
    one = trial(HANGS)
    instance = one.until_job_runs()
    since = one.act("crash-agent", instance)
    record = one.closed()
    assert record["outcome"] == "failure"
    assert record["error"] == "the agent died with status 137 in mid-job"
    say("gone", one.ended_after(since, instance, 20))


def test_an_agent_that_hangs_is_ended_by_the_watchdog(cloud: Cloud, trial: Try) -> None:
    """Without signs of life the machine is shut down: 6 s of silence here, 300 s by default."""
    with tuned(cloud, agent={"RUNSFLEET_WATCHDOG_SILENCE_SECONDS": "6"}):
        one = trial(HANGS)
        instance = one.until_job_runs()
        since = one.act("freeze-agent", instance)
        say("gone", one.ended_after(since, instance, 6 + 4 + 12))
    assert "watchdog: no sign of life" in one.instances[0]["reason"]
    assert (one.record["status"], one.record["instance_id"]) == ("running", instance)


def test_an_instance_whose_script_hangs_is_ended_by_the_watchdog(cloud: Cloud, trial: Try) -> None:
    """An agent that never starts is waited for 3 s here, for 30 minutes by default."""
    limits = {
        "RUNSFLEET_WATCHDOG_START_SECONDS": "3",
        "RUNSFLEET_WATCHDOG_SILENCE_SECONDS": "6",
    }
    # the limits stand before all that can hang, the hanging command after them
    with tuned(cloud, agent=limits, setup=["sleep 300"]):
        one = trial()
        instance = one.until_instance()
        say("gone", one.ended_after(launched_at(one), instance, START_SECONDS + 10))
        record = one.record
        cloud.client.github("POST", f"runs/{one.job['run_id']}/cancel")
    assert "watchdog: no sign of life" in one.instances[0]["reason"]
    # until the end of its instance has been looked into, a minute and a half later
    assert (record["status"], record["instance_id"]) == ("launched", instance)


def test_user_data_that_fails_ends_the_instance(cloud: Cloud, trial: Try) -> None:
    """A failing setup command ends it at once; the record names the instance that never spoke."""
    with tuned(cloud, setup=["false"]):
        one = trial()
        instance = one.until_instance()
        say("gone", one.ended_after(launched_at(one), instance, START_SECONDS))
        record = one.record
        cloud.client.github("POST", f"runs/{one.job['run_id']}/cancel")
    assert one.instances[0]["reason"].startswith("shutdown -h now")
    assert (record["status"], record["instance_id"]) == ("launched", instance)


def test_reports_are_sent_again(cloud: Cloud, trial: Try) -> None:
    """SQS that refuses and hangs for a while delays the reports, and no more."""
    rule = {"service": "sqs", "action": "SendMessage", "caller": INSTANCES}
    with cloud.fault(effect="error", code="ServiceUnavailable", status=503, count=2, **rule) as hit:
        one = trial()
        record = one.closed()
        assert hit()["applied"] == 2
    assert record["outcome"] == "success"
    assert "started_at" in record
    say("gone", one.ended_after(launched_at(one), record["instance_id"], START_SECONDS + 15))


def test_a_report_that_nobody_takes_is_kept(cloud: Cloud, trial: Try) -> None:
    """With SQS refusing all the time, the report is in the bucket, under the instance's key."""
    with cloud.fault(effect="refuse", service="sqs", action="SendMessage", caller=INSTANCES):
        one = trial()
        instance = one.until_instance()
        say("gone", one.ended_after(launched_at(one), instance, START_SECONDS + 25))
    assert one.job["conclusion"] == "success"
    assert (one.record["status"], one.record["instance_id"]) == ("launched", instance)
    bucket = cloud.running.endpoints.outputs["RunnerCacheBucketName"]
    s3 = client(cloud, "s3")
    (key,) = [
        found["Key"]
        for found in s3.list_objects_v2(Bucket=bucket, Prefix="reports/")["Contents"]
        if instance in found["Key"]
    ]
    report = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    assert (report["job_id"], report["status"]) == (one.job_id, "success")


@pytest.mark.parametrize("fault", [{"effect": "refuse"}, {"effect": "delay", "delay_seconds": 30}])
def test_a_log_service_in_trouble_hinders_no_job(
    cloud: Cloud, trial: Try, fault: dict[str, object]
) -> None:
    """Refusing or hanging, CloudWatch Logs costs its bounded wait at the end and nothing else."""
    with cloud.fault(service="logs", caller=INSTANCES, **fault):
        one = trial()
        record = one.closed()
        assert record["outcome"] == "success"
        say("gone", one.ended_after(launched_at(one), record["instance_id"], START_SECONDS + 15))


def test_an_instance_that_ec2_does_not_end_shuts_itself_down(cloud: Cloud, trial: Try) -> None:
    """TerminateInstances is refused each time: the system is shut down, which terminates it."""
    with cloud.fault(effect="refuse", service="ec2", action="Terminate*", caller=INSTANCES):
        one = trial()
        record = one.closed()
        assert record["outcome"] == "success"
        say("gone", one.ended_after(launched_at(one), record["instance_id"], START_SECONDS + 25))
    assert one.instances[0]["reason"].startswith("shutdown -h now")


@pytest.mark.parametrize("how", ["refuse", "hang"])
def test_metadata_that_is_late_is_waited_for(cloud: Cloud, trial: Try, how: str) -> None:
    """A metadata service that fails for 3 s after the launch delays the job, and no more."""
    cloud.client.trouble_metadata(how, 3600)
    try:
        one = trial()
        one.until_instance()
        cloud.client.trouble_metadata(how, 3)
        record = one.closed()
    finally:
        cloud.client.trouble_metadata(how, 0)
    assert record["outcome"] == "success"
    say("gone", one.ended_after(launched_at(one), record["instance_id"], START_SECONDS + 15))
