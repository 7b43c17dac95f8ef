"""`runsfleet local ...`: start a local cloud, run workflows on it, look at it, end it.

What is imported here is imported by every command; the rest is imported by the command itself.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from runsfleet_cli.local.fault_commands import app as fault
from runsfleet_cli.local.found import CommandError, connect, project_folder

if TYPE_CHECKING:
    from runsfleet_cli.local.client import CloudClient
    from runsfleet_cli.local.launcher import Progress
    from runsfleet_cli.local.show import Show

app = typer.Typer(
    name="local",
    help="A cloud on this machine: real templates, functions, webhooks and runners, no account.",
    no_args_is_help=True,
)
app.add_typer(fault, name="fault")

INTERRUPTED = 130

Strict = Annotated[bool, typer.Option("--strict", help="Enforce IAM and use TLS everywhere.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Environment = Annotated[
    str, typer.Option("--environment", "-e", help="Environment of the app to deploy.")
]
BootDelay = Annotated[
    float,
    typer.Option("--boot-delay", min=0, help="Seconds between an instance's launch and boot."),
]


@app.command()
def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once it is ready.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the endpoints to this file.")
    ] = None,
    strict: Strict = False,
    environment: Environment = "dev",
    boot_delay: BootDelay = 0.3,
) -> None:
    """Start a local cloud and deploy the fleet into it."""
    from runsfleet_cli.local.launcher import launch
    from runsfleet_cli.local.show import Show

    show = Show()
    with _errors():
        with show.starting() as progress:
            cloud = launch(
                project_folder(),
                environment=environment,
                strict=strict,
                boot_seconds=boot_delay,
                json_file=json_file,
                attached=not detach,
                progress=progress,
            )
        show.ready(cloud.endpoints)
        if detach:
            show.line("it runs until `runsfleet local down`")
            return
        show.line("Ctrl-C ends it")
        try:
            cloud.process.wait()
        except KeyboardInterrupt:
            show.line("ending")
        finally:
            cloud.end()


@app.command()
def down() -> None:
    """End the local cloud; leaves no process and no files."""
    from runsfleet_cli.local.launcher import bring_down

    with _errors():
        ended = bring_down(project_folder())
    typer.echo("no local cloud is up" if ended is None else "the local cloud has ended")


@app.command()
def run(
    *,
    workflow: Annotated[
        Path | None, typer.Argument(help="A workflow file.", show_default=False)
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", help="Label in place of each job's runs-on; repeatable."),
    ] = None,
    payload: Annotated[
        Path | None,
        typer.Option("--payload", help="Recorded workflow_job webhooks to play instead."),
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(help="Move recorded webhooks into this repository, such as octo-org/hello."),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=5_000, help="Repeat until so many are queued.")
    ] = 1,
    strict: Strict = False,
    as_json: Json = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds until a job counts as lost.")
    ] = 300,
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment", "-e", help="Environment of a cloud that is started. [default: dev]"
        ),
    ] = None,
    boot_delay: BootDelay = 0.3,
) -> None:
    """Run a workflow's jobs through the fleet, from webhook to terminated instance.

    Uses the local cloud that is up, or starts one and ends it afterwards. Exits with 1 when a job
    was lost, an instance still runs or a queue is not empty.
    """
    from runsfleet_cli.local.drive import Drive, drive
    from runsfleet_cli.local.show import Show

    show = Show(quiet=as_json)
    for file in (workflow, payload):
        if file is not None and not file.is_file():
            _fail(f"there is no file {file}")
    if not all(label or ("-",)):
        _fail("a label must not be empty; leave --label out to keep each job's own runs-on")
    what = Drive(
        workflow=workflow,
        payload=payload,
        labels=tuple(label or ()),
        repository=repository,
        jobs=jobs,
        timeout=timeout,
    )
    with _errors(), _cloud(show, environment, boot_delay, strict=strict) as client:
        outcome = drive(client, what, show.entry)
        if as_json:
            typer.echo(json.dumps(outcome.as_dict(), indent=2))
        show.outcome(outcome)
    if not outcome.ok:
        if as_json:
            for problem in outcome.problems:
                typer.echo(f"runsfleet: {problem}", err=True)
        raise typer.Exit(1)


@app.command()
def calls(
    as_json: Json = False,
    service: Annotated[str, typer.Option(help="Only this service; * and ? match.")] = "*",
    action: Annotated[str, typer.Option(help="Only this action; * and ? match.")] = "*",
    caller: Annotated[
        str, typer.Option(help="Only this caller, such as 'function:*' or 'instance:*'.")
    ] = "*",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the last so many.")] = None,
) -> None:
    """Every AWS and GitHub request so far, and how many a job took."""
    from runsfleet_cli.local.records import read_records
    from runsfleet_cli.local.show import Show

    with _errors():
        records = read_records(
            connect(), service=service, action=action, caller=caller, limit=limit
        )
        if as_json:
            typer.echo(json.dumps(records.as_dict(), indent=1, default=str))
        else:
            Show().records(records)


@app.command()
def page(
    browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in a browser.")
    ] = False,
) -> None:
    """Print the address of the page of the local cloud."""
    with _errors():
        url = connect().endpoints.page
    typer.echo(url)
    if browser:
        typer.launch(url)


@app.command()
def status(as_json: Json = False) -> None:
    """How to reach the local cloud that is up, and what is in it."""
    from runsfleet_cli.local.show import Show

    with _errors():
        client = connect()
        if as_json:
            state = client.state()
            document = {"endpoints": json.loads(client.endpoints.to_json()), "state": state}
            typer.echo(json.dumps(document, indent=1))
        else:
            Show().ready(client.endpoints)


@contextlib.contextmanager
def _cloud(
    show: Show, environment: str | None, boot_delay: float, *, strict: bool
) -> Iterator[CloudClient]:
    """The cloud that is up, or one for as long as it is needed."""
    from runsfleet_cli.local.client import CloudClient
    from runsfleet_cli.local.launcher import launch
    from runsfleet_cli.local.state import read_state, state_file

    project = project_folder()
    running = read_state(state_file(project))
    if running is not None and running.shared:
        if strict and not running.strict:
            raise CommandError(
                "the local cloud that is up is not strict; end it by `runsfleet local down`, or "
                "leave --strict out"
            )
        if environment not in {None, running.environment}:
            raise CommandError(
                f"the local cloud that is up runs the environment {running.environment!r}, not "
                f"{environment!r}; end it by `runsfleet local down`, or leave --environment out"
            )
        yield CloudClient(running)
        return
    progress: Progress
    with show.starting() as progress:
        cloud = launch(
            project,
            environment=environment or "dev",
            strict=strict,
            boot_seconds=boot_delay,
            shared=False,
            progress=progress,
        )
    try:
        show.ready(cloud.endpoints)
        yield CloudClient(cloud.endpoints)
    finally:
        cloud.end()
        show.line("the local cloud has ended, no process is left")


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """One sentence and exit code 1 for what is expected to fail; Ctrl-C is 130."""
    from runsfleet_cli.local.client import CloudRefusedError, CloudUnreachableError
    from runsfleet_cli.local.drive import DriveError
    from runsfleet_cli.local.launcher import LaunchError

    try:
        yield
    except (
        CommandError,
        CloudRefusedError,
        CloudUnreachableError,
        DriveError,
        LaunchError,
    ) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        typer.echo("", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # whoever read our output has seen enough
        sys.stderr.close()
        raise typer.Exit(0) from None


def _fail(message: str) -> NoReturn:
    typer.echo(f"runsfleet: {message}", err=True)
    raise typer.Exit(1)
