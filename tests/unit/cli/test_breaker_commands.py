"""`runsfleet breaker ...` against a deployed fleet, on moto."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner, Result

from runsfleet_cli.breaker_commands import LONGEST_DAYS
from runsfleet_cli.deployed import FleetEnvironment
from runsfleet_cli.main import app
from runsfleet_runtime.contract.environment import SubnetZone
from runsfleet_runtime.contract.tables import AuditAttr, CircuitAttr

REGION = "eu-central-1"
OFFERING = "spot:c7g.xlarge:eu-central-1a"


class Account:
    """An account with fleets."""

    def __init__(self) -> None:
        self._lambda = boto3.client("lambda")
        self.dynamodb = boto3.client("dynamodb")
        self._role = boto3.client("iam").create_role(
            RoleName="functions", AssumeRolePolicyDocument="{}"
        )["Role"]["Arn"]

    def fleet(self, name: str = "dev") -> None:
        """Deploy the tables and functions of a fleet."""
        for table, keys in (
            ("circuits", [CircuitAttr.OFFERING.value]),
            ("audit", [AuditAttr.SUBJECT.value, AuditAttr.AT.value]),
        ):
            self.dynamodb.create_table(
                TableName=f"{name}-{table}",
                KeySchema=[
                    {"AttributeName": key, "KeyType": kind}  # type: ignore[typeddict-item]
                    for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
                ],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
                BillingMode="PAY_PER_REQUEST",
            )
        tables: dict[str, Any] = {
            "circuit_table": f"{name}-circuits",
            "audit_table": f"{name}-audit",
        }
        zones = tuple(
            SubnetZone(subnet_id=f"subnet-{zone}", availability_zone=f"eu-central-1{zone}")
            for zone in "ab"
        )
        dispatch = FleetEnvironment(fleet=name, subnet_zones=zones, **tables)
        self.function(f"{name}-dispatch", dispatch.to_environ())
        self.function(f"{name}-events", FleetEnvironment(fleet=name, **tables).to_environ())

    def function(self, name: str, variables: dict[str, str]) -> None:
        """Deploy a function."""
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as packed:
            packed.writestr("handler.py", "")
        self._lambda.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=self._role,
            Handler="handler.handler",
            Code={"ZipFile": code.getvalue()},
            Environment={"Variables": variables},
        )

    def audit(self, name: str = "dev") -> list[dict[str, Any]]:
        """Return the audit rows of a fleet."""
        rows = self.dynamodb.scan(TableName=f"{name}-audit")["Items"]
        plain = [{k: next(iter(v.values())) for k, v in row.items()} for row in rows]
        return sorted(plain, key=lambda row: str(row[AuditAttr.AT.value]))


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An empty account that the commands reach by the environment alone."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with mock_aws(config={"lambda": {"use_docker": False}}):
        yield Account()


def run(*arguments: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(app, ["breaker", *arguments])


def circuits(*arguments: str) -> dict[str, dict[str, Any]]:
    """Run a command with --json and return its circuits by offering."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return {circuit["offering"]: circuit for circuit in json.loads(result.stdout)["circuits"]}


def test_open_list_close(account: Account) -> None:
    """An offering is left out for a time, listed with its reason, and used again."""
    account.fleet()
    opened = circuits("open", OFFERING, "--for", "1h30m", "--note", "zone event")[OFFERING]
    assert (opened["state"], opened["left_out"]) == ("open", True)
    assert opened["open_until"] - opened["opened_at"] == pytest.approx(5400)
    shown = run("list")
    assert shown.exit_code == 0
    assert OFFERING in shown.stdout
    assert "by hand: zone event" in shown.stdout
    assert circuits("close", OFFERING)[OFFERING]["left_out"] is False
    assert circuits("list") == {}
    assert list(circuits("list", "--all")) == [OFFERING]
    assert "no offering of the fleet dev" in run("list").stdout


def test_everything_done_by_hand_is_audited(account: Account) -> None:
    """Who did it is the caller's own identity, not a word of theirs."""
    account.fleet()
    run("open", OFFERING, "--note", "n")
    run("close", OFFERING)
    run("reset")
    rows = account.audit()
    assert [row[AuditAttr.ACTION.value] for row in rows] == ["opened", "closed", "reset"]
    assert {row[AuditAttr.ACTOR.value][:8] for row in rows} == {"arn:aws:"}
    assert rows[0][AuditAttr.SUBJECT.value] == f"circuit:{OFFERING}"


def test_reset_of_some(account: Account) -> None:
    """Named offerings are reset, the others stay as they are."""
    account.fleet()
    other = "on-demand:c7g.xlarge:eu-central-1b"
    circuits("open", OFFERING, other)
    assert list(circuits("reset", other)) == [other]
    assert list(circuits("list")) == [OFFERING]
    assert list(circuits("reset")) == [other, OFFERING]
    assert circuits("list") == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("open", "c7g.xlarge"), "an offering is written as {spot|on-demand}:TYPE:ZONE"),
        (("open", "spot:c7g.xlrge:eu-central-1a"), "did you mean c7g.xlarge"),
        (("open", "spot:c7g.xlarge:eu-central-1z"), "its zones are eu-central-1a, eu-central-1b"),
        (("open", OFFERING, "--for", "soon"), "such as 90s, 30m, 2h or 1d"),
        (("open", OFFERING, "--for", "0m"), "got '0m'"),
        (("open", OFFERING, "--for", f"{LONGEST_DAYS + 1}d"), f"up to {LONGEST_DAYS}d"),
        (("close", OFFERING), f"nothing is known against {OFFERING}"),
        (("reset", OFFERING), f"nothing is known against {OFFERING}"),
        (("list", "--fleet", "prod"), "there is no fleet 'prod' in eu-central-1"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    account: Account, arguments: tuple[str, ...], message: str
) -> None:
    """What cannot be meant is refused with the cure, before anything is written."""
    account.fleet()
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.startswith("runsfleet: ")
    assert account.audit() == []


def test_fleets_are_told_apart(account: Account) -> None:
    """Of several fleets one is named; functions of others are passed over."""
    account.function("somebody-elses", {"TABLE": "x"})
    result = run("list")
    assert result.exit_code == 1
    assert "there is no fleet in eu-central-1" in result.stderr
    account.fleet("dev")
    account.fleet("prod")
    assert "there are several fleets in eu-central-1: dev, prod" in run("list").stderr
    assert list(circuits("open", OFFERING, "--fleet", "prod")) == [OFFERING]
    assert circuits("list", "--fleet", "dev") == {}


def test_no_region_and_no_profile_are_told(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a region nothing is asked; a profile that does not exist is named."""
    account.fleet()
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert "no region is known; give --region" in run("list").stderr
    assert circuits("list", "--region", REGION) == {}
    assert "nobody" in run("list", "--profile", "nobody").stderr


def test_missing_table_is_told(account: Account) -> None:
    """A table that is gone fails the command with its name, not with a traceback."""
    account.fleet()
    account.dynamodb.delete_table(TableName="dev-circuits")
    result = run("list")
    assert result.exit_code == 1
    assert "dev-circuits could not be read" in result.stderr


def test_without_a_local_cloud(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """--local means the local cloud that is up, and says how to start one."""
    account.fleet()
    monkeypatch.setenv("RUNSFLEET_LOCAL_STATE", "/nowhere")
    assert "runsfleet local up" in run("list", "--local").stderr
