"""What the commands on a deployed fleet have in common: options, errors, tables."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from runsfleet_cli.deployed import AwsSession

Fleet = Annotated[
    str | None, typer.Option("--fleet", help="Name of the fleet, where there are several.")
]
Region = Annotated[str | None, typer.Option("--region", help="Region of the fleet.")]
Profile = Annotated[str | None, typer.Option("--profile", help="Profile of the AWS configuration.")]
Local = Annotated[bool, typer.Option("--local", help="The local cloud that is up.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Note = Annotated[str, typer.Option("--note", "-n", help="Why; kept in the audit table.")]


class OperatorError(Exception):
    """A command cannot do what it was asked; the message says what to do."""


def open_session(region: str | None, profile: str | None, *, local: bool) -> AwsSession:
    """Return the way to AWS that the options mean.

    Raises:
        CommandError: If the local cloud is meant and none is up.
        FleetNotFoundError: If no region is known.
    """
    from runsfleet_cli.deployed import AwsAccess

    return AwsAccess(region, profile, local=local).session()


def console() -> Console:
    """Return where tables go; a file has no edge to wrap at."""
    from rich.console import Console

    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=180)


@contextlib.contextmanager
def told_errors() -> Iterator[None]:
    """One sentence and exit code 1 for what is expected to fail."""
    from botocore.exceptions import BotoCoreError, ClientError

    from runsfleet_cli.deployed import FleetNotFoundError
    from runsfleet_cli.local.found import CommandError
    from runsfleet_runtime.circuit_breaker.model import MalformedOfferingError
    from runsfleet_runtime.circuit_breaker.ports import CircuitsUnknownError
    from runsfleet_runtime.contract.environment import MalformedEnvironmentError
    from runsfleet_runtime.jobs.ports import RecordUnknownError

    try:
        yield
    except (
        BotoCoreError,
        CircuitsUnknownError,
        ClientError,
        CommandError,
        FleetNotFoundError,
        MalformedEnvironmentError,
        MalformedOfferingError,
        OperatorError,
        RecordUnknownError,
    ) as error:
        _fail(_sentence(error))
    except BrokenPipeError:
        # whoever read our output has seen enough
        sys.stderr.close()
        raise typer.Exit(0) from None


def _sentence(error: Exception) -> str:
    """Return what went wrong, with what AWS said where an adapter keeps that as the cause."""
    if error.__cause__ is not None and str(error.__cause__) not in str(error):
        return f"{error}: {error.__cause__}"
    return str(error)


def _fail(message: str) -> NoReturn:
    typer.echo(f"runsfleet: {message}", err=True)
    raise typer.Exit(1)
