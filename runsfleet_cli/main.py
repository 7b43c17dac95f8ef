"""The `runsfleet` command. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import typer

from runsfleet_cli.local.commands import app as local
from runsfleet_runtime.version import __version__

app = typer.Typer(
    name="runsfleet",
    help="Ephemeral, self-hosted GitHub Actions runners in your own AWS account.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(local, name="local")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


if __name__ == "__main__":
    app()
