"""The `runsfleet` command. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from runsfleet_cli.breaker_commands import app as breaker
from runsfleet_cli.local.commands import app as local
from runsfleet_cli.operate.commands import register
from runsfleet_runtime.version import __version__

app = typer.Typer(
    name="runsfleet",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(local, name="local")
app.add_typer(breaker, name="breaker")
register(app)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Ephemeral, self-hosted GitHub Actions runners in your own AWS account."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


if __name__ == "__main__":
    app()
