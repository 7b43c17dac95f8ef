"""`runsfleet breaker ...`: which offerings a deployed fleet leaves out, and to change that by hand.

What is imported here is imported by every command; the rest is imported by the command itself.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runsfleet_cli.options import (
    Fleet,
    Json,
    Local,
    Note,
    OperatorError,
    Profile,
    Region,
    console,
    open_session,
    told_errors,
)

if TYPE_CHECKING:
    from runsfleet_cli.deployed import AwsSession, FleetEnvironment
    from runsfleet_runtime.circuit_breaker.breaker import BreakerControl
    from runsfleet_runtime.circuit_breaker.model import Circuit, Offering

app = typer.Typer(
    name="breaker",
    help="The circuit breaker of a deployed fleet: which offerings of EC2 are left out just now.",
    no_args_is_help=True,
)

LONGEST_DAYS = 30
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+[smhd])+")

Offerings = Annotated[
    list[str],
    typer.Argument(
        metavar="OFFERING", help="CAPACITY:TYPE:ZONE, such as spot:c7g.xlarge:eu-central-1a."
    ),
]


@app.command("list")
def list_circuits(
    *,
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Also those that have nothing against them.")
    ] = False,
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """Offerings that failed lately, the ones that are left out first."""
    with told_errors():
        session, found = _find(fleet, region, profile, local=local)
        circuits = _control(session, found, actor="").circuits()
        _show(found, circuits if every else _notable(circuits, found), as_json=as_json)


@app.command("open")
def open_circuits(
    offerings: Offerings,
    *,
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="How long, such as 90s, 30m, 2h or 1d.")
    ] = "30m",
    note: Note = "",
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """Leave offerings out for a time, whatever they deliver; one launch tries each afterwards."""
    with told_errors():
        named, seconds = _named(offerings), _seconds(duration)
        session, found = _find(fleet, region, profile, local=local)
        _check_served(named, found)
        control = _control(session, found, actor=session.caller())
        _show(found, control.open(named, seconds=seconds, note=note), as_json=as_json)


@app.command("close")
def close_circuits(
    offerings: Offerings,
    *,
    note: Note = "",
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """Use offerings again at once; should they fail again, the cool-down grows as it would have."""
    with told_errors():
        named = _named(offerings)
        session, found = _find(fleet, region, profile, local=local)
        control = _control(session, found, actor=session.caller())
        _check_known(named, control.circuits())
        _show(found, control.close(named, note=note), as_json=as_json)


@app.command("reset")
def reset_circuits(
    offerings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OFFERING]", help="Only these; all if none is named."),
    ] = None,
    *,
    note: Note = "",
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """Close circuits and forget all that was counted: failures, relapses, openings by hand."""
    with told_errors():
        named = _named(offerings or [])
        session, found = _find(fleet, region, profile, local=local)
        control = _control(session, found, actor=session.caller())
        if named:
            _check_known(named, control.circuits())
        _show(found, control.reset(named, note=note), as_json=as_json)


def _find(
    fleet: str | None, region: str | None, profile: str | None, *, local: bool
) -> tuple[AwsSession, FleetEnvironment]:
    session = open_session(region, profile, local=local)
    return session, session.fleet(fleet)


def _control(session: AwsSession, found: FleetEnvironment, *, actor: str) -> BreakerControl:
    import uuid

    from runsfleet_runtime.circuit_breaker.breaker import BreakerControl
    from runsfleet_runtime.circuit_breaker.dynamodb import DynamoDBCircuits
    from runsfleet_runtime.circuit_breaker.model import BreakerPolicy

    store = DynamoDBCircuits(
        session.client("dynamodb"),
        table=found.circuit_table,
        audit_table=found.audit_table,
        policy=BreakerPolicy(),
        new_id=lambda: uuid.uuid4().hex,
    )
    return BreakerControl(store, actor=actor, clock=time.time)


def _named(offerings: Sequence[str]) -> list[Offering]:
    from runsfleet_runtime.circuit_breaker.model import Offering

    return [Offering.from_key(text) for text in offerings]


def _seconds(text: str) -> int:
    """Return the seconds of a duration.

    Example:
        >>> _seconds("1h30m")
        5400
    """
    parts = re.findall(r"(\d+)([smhd])", text) if _DURATION.fullmatch(text) else []
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= LONGEST_DAYS * _UNITS["d"]:
        raise OperatorError(
            f"--for must be a duration such as 90s, 30m, 2h or 1d, up to {LONGEST_DAYS}d, "
            f"got {text!r}"
        )
    return seconds


def _check_served(offerings: Sequence[Offering], found: FleetEnvironment) -> None:
    """Refuse what the fleet never asks for: most likely it is misspelled."""
    import difflib

    from runsfleet_runtime.fleet.catalogue import CATALOGUE

    for offering in offerings:
        kind, zone = offering.instance_type, offering.availability_zone
        if kind not in CATALOGUE:
            close = difflib.get_close_matches(kind, CATALOGUE, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise OperatorError(f"no fleet launches the instance type {kind!r}{hint}")
        if found.zones and zone not in found.zones:
            raise OperatorError(
                f"the fleet {found.fleet} has no subnet in {zone!r}; its zones are "
                f"{', '.join(found.zones)}"
            )


def _check_known(offerings: Sequence[Offering], circuits: Sequence[Circuit]) -> None:
    known = {circuit.offering for circuit in circuits}
    for offering in offerings:
        if offering not in known:
            raise OperatorError(
                f"nothing is known against {offering.key}; see `runsfleet breaker list --all`"
            )


def _notable(circuits: Sequence[Circuit], found: FleetEnvironment) -> list[Circuit]:
    """Leave out closed circuits whose failures are past their window."""
    from runsfleet_runtime.circuit_breaker.model import CircuitState

    oldest = time.time() - found.breaker_window_seconds
    return [
        circuit
        for circuit in circuits
        if circuit.state is not CircuitState.CLOSED
        or any(at > oldest for at, _ in circuit.failures)
    ]


def _show(found: FleetEnvironment, circuits: Sequence[Circuit], *, as_json: bool) -> None:
    now = time.time()
    ordered = sorted(circuits, key=lambda c: (not c.is_refusing(now), c.offering))
    if as_json:
        document = {"fleet": found.fleet, "circuits": [_document(c, now) for c in ordered]}
        typer.echo(json.dumps(document, indent=1))
        return
    if not ordered:
        typer.echo(f"no offering of the fleet {found.fleet} is left out or failed lately")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("offering", "state", "until", "failures", "opened", "reason"):
        is_number = title in {"failures", "opened"}
        table.add_column(title, justify="right" if is_number else "left", no_wrap=title != "reason")
    styles = {"open": "red", "half-open": "yellow", "closed": "green"}
    for circuit in ordered:
        state = circuit.state.value
        table.add_row(
            escape(circuit.offering.key),
            f"[{styles[state]}]{state}[/]",
            _until(circuit, now),
            str(len(circuit.failures)) if circuit.failures else "",
            f"{circuit.trips}x" if circuit.trips else "",
            escape(circuit.reason),
        )
    console().print(table)


def _until(circuit: Circuit, now: float) -> str:
    from runsfleet_runtime.circuit_breaker.model import CircuitState

    if circuit.state is CircuitState.CLOSED:
        return ""
    end = circuit.open_until if circuit.state is CircuitState.OPEN else circuit.probe_until
    if end <= now:
        return "the next launch tries it"
    left = int(end - now)
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(end))
    return f"{clock} (in {left // 3600}:{left // 60 % 60:02}:{left % 60:02})"


def _document(circuit: Circuit, now: float) -> dict[str, Any]:
    return {
        "offering": circuit.offering.key,
        "capacity_type": circuit.offering.capacity_type,
        "instance_type": circuit.offering.instance_type,
        "availability_zone": circuit.offering.availability_zone,
        "state": circuit.state.value,
        "left_out": circuit.is_refusing(now),
        "failures": [{"at": at, "id": identity} for at, identity in circuit.failures],
        "opened_in_a_row": circuit.trips,
        "opened_at": circuit.opened_at or None,
        "open_until": circuit.open_until or None,
        "probe_until": circuit.probe_until or None,
        "reason": circuit.reason,
        "updated_at": circuit.updated_at,
    }
