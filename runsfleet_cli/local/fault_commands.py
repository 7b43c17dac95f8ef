"""`runsfleet local fault ...`: put faults into a running local cloud, list them, take them out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from runsfleet_cli.local.found import CommandError, connect

if TYPE_CHECKING:
    from runsfleet_cli.local.client import CloudClient

app = typer.Typer(
    name="fault",
    help="Put faults into the local cloud that is up: capacity, throttles, notices, crashes.",
    no_args_is_help=True,
)

_GITHUB_PREFIX = "github-"

Service = Annotated[str, typer.Option(help="Only this AWS service; * and ? match.")]
Action = Annotated[str, typer.Option(help="Only this action; * and ? match.")]
Caller = Annotated[str, typer.Option(help="Only this caller, such as 'function:*dispatch*'.")]
Count = Annotated[int | None, typer.Option(min=1, help="Only so many times.")]
Nth = Annotated[int | None, typer.Option(min=1, help="Only the request of this number.")]
Chance = Annotated[float, typer.Option(min=0, max=1, help="Share of the requests that it meets.")]
Seconds = Annotated[float | None, typer.Option(min=0, help="Only for so many seconds from now.")]
Instance = Annotated[
    str, typer.Argument(help="Instance id, or any: the last one that runs.", show_default=True)
]


@app.command()
def capacity(
    *,
    instance_type: Annotated[
        list[str] | None, typer.Option("--type", help="Instance type; * and ? match; repeatable.")
    ] = None,
    zone: Annotated[
        list[str] | None, typer.Option("--zone", help="Availability zone; repeatable.")
    ] = None,
    capacity_type: Annotated[
        list[str] | None, typer.Option("--capacity-type", help="spot or on-demand; repeatable.")
    ] = None,
    deliver: Annotated[
        int, typer.Option(min=0, help="So many instances are still to be had at each request.")
    ] = 0,
    code: Annotated[str, typer.Option(help="Error code.")] = "InsufficientInstanceCapacity",
    count: Count = None,
    nth: Nth = None,
    probability: Chance = 1.0,
    seconds: Seconds = None,
) -> None:
    """CreateFleet finds no capacity: for types, zones and capacity types, in part or whole."""
    _add(
        "capacity",
        {
            "instance_types": instance_type or [],
            "zones": zone or [],
            "capacity_types": capacity_type or [],
            "deliver": deliver,
            "code": code,
            **_when(count, nth, probability, seconds),
        },
    )


@app.command()
def throttle(
    *,
    service: Service = "*",
    action: Action = "*",
    caller: Caller = "*",
    count: Count = None,
    nth: Nth = None,
    probability: Chance = 1.0,
    seconds: Seconds = None,
) -> None:
    """AWS says "slow down", each service in its own way."""
    where = _where(service, action, caller)
    _add("throttle", where | _when(count, nth, probability, seconds))


@app.command()
def refuse(
    *,
    service: Service = "*",
    action: Action = "*",
    caller: Caller = "*",
    count: Count = None,
    nth: Nth = None,
    probability: Chance = 1.0,
    seconds: Seconds = None,
) -> None:
    """AWS says "not authorized"."""
    where = _where(service, action, caller)
    _add("refuse", where | _when(count, nth, probability, seconds))


@app.command()
def error(
    *,
    code: Annotated[str, typer.Argument(help="Error code, such as InternalError.")],
    status: Annotated[int, typer.Option(min=400, max=599, help="HTTP status.")] = 500,
    service: Service = "*",
    action: Action = "*",
    caller: Caller = "*",
    count: Count = None,
    nth: Nth = None,
    probability: Chance = 1.0,
    seconds: Seconds = None,
) -> None:
    """AWS answers with an error."""
    where = _where(service, action, caller) | {"code": code, "status": status}
    _add("error", where | _when(count, nth, probability, seconds))


@app.command()
def delay(
    *,
    delay_seconds: Annotated[float, typer.Argument(min=0.001, help="Seconds that each waits.")],
    service: Service = "*",
    action: Action = "*",
    caller: Caller = "*",
    count: Count = None,
    nth: Nth = None,
    probability: Chance = 1.0,
    seconds: Seconds = None,
) -> None:
    """AWS answers late."""
    where = _where(service, action, caller) | {"delay_seconds": delay_seconds}
    _add("delay", where | _when(count, nth, probability, seconds))


@app.command()
def drop(
    *,
    after: Annotated[bool, typer.Option("--after", help="Once it was executed.")] = False,
    service: Service = "*",
    action: Action = "*",
    caller: Caller = "*",
    count: Count = None,
    nth: Nth = None,
    probability: Chance = 1.0,
    seconds: Seconds = None,
) -> None:
    """AWS closes the connection without an answer."""
    where = _where(service, action, caller) | {"when": "after" if after else "before"}
    _add("drop", where | _when(count, nth, probability, seconds))


@app.command()
def github(
    *,
    route: Annotated[str, typer.Argument(help="Route, such as '*/generate-jitconfig'.")] = "*",
    method: Annotated[str, typer.Option(help="HTTP method, or *.")] = "*",
    status: Annotated[int | None, typer.Option(min=400, max=599, help="Answer with it.")] = None,
    late: Annotated[float, typer.Option("--delay", min=0, help="Seconds to wait first.")] = 0.0,
    drop_it: Annotated[bool, typer.Option("--drop", help="Close the connection instead.")] = False,
    after: Annotated[bool, typer.Option("--after", help="Once the work was done.")] = False,
    count: Count = None,
    probability: Chance = 1.0,
) -> None:
    """GitHub answers with an error, late or not at all."""
    rule = {
        "route": route,
        "method": method,
        "status": status,
        "delay": late,
        "drop": drop_it,
        "after": after,
        "count": count,
        "probability": probability,
    }
    with _told() as client:
        made = client.github("POST", "faults", rule)
    typer.echo(f"{_GITHUB_PREFIX}{made['id']}")


@app.command("spot-notice")
def spot_notice(
    instance: Instance = "any",
    seconds: Annotated[
        float, typer.Option(min=0, max=3_600, help="Until the instance is taken away.")
    ] = 120.0,
) -> None:
    """EC2 takes a spot instance back, with notice."""
    with _told() as client:
        typer.echo(client.act_on(instance, "interrupt", {"seconds": seconds}))


@app.command()
def rebalance(instance: Instance = "any") -> None:
    """EC2 recommends to move away from an instance."""
    with _told() as client:
        typer.echo(client.act_on(instance, "rebalance"))


@app.command("crash-agent")
def crash_agent(instance: Instance = "any") -> None:
    """Kill the agent of an instance."""
    with _told() as client:
        typer.echo(client.act_on(instance, "crash-agent"))


@app.command("stop-agent")
def stop_agent(instance: Instance = "any") -> None:
    """Ask the agent of an instance to stop, as a shutdown of its system does."""
    with _told() as client:
        typer.echo(client.act_on(instance, "stop-agent"))


@app.command("freeze-agent")
def freeze_agent(instance: Instance = "any") -> None:
    """Let the agent of an instance hang, for its watchdog to notice."""
    with _told() as client:
        typer.echo(client.act_on(instance, "freeze-agent"))


@app.command("kill-runner")
def kill_runner(instance: Instance = "any") -> None:
    """Kill GitHub's runner on an instance."""
    with _told() as client:
        typer.echo(client.act_on(instance, "kill-runner"))


@app.command()
def metadata(
    *,
    hang: Annotated[bool, typer.Option("--hang", help="No answer, instead of 503.")] = False,
    seconds: Annotated[float, typer.Option(min=0, max=3_600, help="From now.")] = 10.0,
) -> None:
    """The metadata services of all instances, present and future, fail for a time."""
    with _told() as client:
        client.trouble_metadata("hang" if hang else "refuse", seconds)


@app.command("fail-instance")
def fail_instance(instance: Instance = "any") -> None:
    """Lose an instance without any notice, as when its host fails."""
    with _told() as client:
        typer.echo(client.act_on(instance, "fail"))


@app.command("add")
def add_rule(
    rule: Annotated[str, typer.Argument(help='JSON, as {"id": "x", "effect": "throttle"}.')],
) -> None:
    """Put a rule of AWS calls in force as it is; every key is in docs/local-cloud.md."""
    try:
        given = json.loads(rule)
    except ValueError as problem:
        _fail(f"the rule is no JSON: {problem}")
    with _told() as client:
        client.aws_faults("POST", given)
    typer.echo(str(given.get("id", "")))


@app.command("list")
def list_rules(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The faults in force, and how often each has struck."""
    with _told() as client:
        rules = _all(client)
    if as_json:
        typer.echo(json.dumps(rules, indent=1))
        return
    if not rules:
        typer.echo("no fault is in force")
    for one in rules:
        hits = one.get("applied", one.get("hits", 0))
        about = {
            key: value
            for key, value in one.items()
            if key not in {"id", "matched", "applied", "hits"} and value not in (None, "", {}, [])
        }
        typer.echo(f"{one['id']}  {hits}x  {json.dumps(about)}")


@app.command()
def clear(
    rule_id: Annotated[
        str | None, typer.Argument(help="Only this one.", show_default=False)
    ] = None,
) -> None:
    """Take faults out of force."""
    with _told() as client:
        if rule_id is None:
            client.aws_faults("DELETE")
            client.github("DELETE", "faults")
        elif rule_id.startswith(_GITHUB_PREFIX):
            client.github("DELETE", f"faults/{rule_id.removeprefix(_GITHUB_PREFIX)}")
        else:
            client.aws_faults("DELETE", rule_id=rule_id)


def _where(service: str, action: str, caller: str) -> dict[str, Any]:
    return {"service": service, "action": action, "caller": caller}


def _when(
    count: int | None, nth: int | None, probability: float, seconds: float | None
) -> dict[str, Any]:
    given = {"count": count, "nth": nth, "seconds": seconds}
    return {"probability": probability} | {
        name: value for name, value in given.items() if value is not None
    }


def _add(effect: str, rule: Mapping[str, Any]) -> None:
    with _told() as client:
        taken = {one["id"] for one in client.aws_faults("GET")}
        number = next(n for n in range(1, len(taken) + 2) if f"{effect}-{n}" not in taken)
        client.aws_faults("POST", {"id": f"{effect}-{number}", "effect": effect, **rule})
    typer.echo(f"{effect}-{number}")


def _all(client: CloudClient) -> list[dict[str, Any]]:
    of_github = client.github("GET", "faults")["faults"]
    return [
        *client.aws_faults("GET"),
        *(one | {"id": f"{_GITHUB_PREFIX}{one['id']}"} for one in of_github),
    ]


@contextlib.contextmanager
def _told() -> Iterator[CloudClient]:
    """A client, with what is expected to fail told in a sentence."""
    from runsfleet_cli.local.client import CloudRefusedError, CloudUnreachableError

    try:
        yield connect()
    except (CommandError, CloudRefusedError, CloudUnreachableError) as problem:
        _fail(str(problem))


def _fail(message: str) -> NoReturn:
    typer.echo(f"runsfleet: {message}", err=True)
    raise typer.Exit(1)
