"""Which local cloud a command means: that of the project in whose folder it is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runsfleet_cli.local.client import CloudClient


class CommandError(Exception):
    """A command cannot do what it was asked; the message says what to do."""


def project_folder() -> Path:
    """The nearest folder upwards that holds a CDK app, else the working directory."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "cdk.json").is_file():
            return folder
    return here


def connect() -> CloudClient:
    """A client of the cloud that is up.

    Raises:
        CommandError: None is.
    """
    from runsfleet_cli.local.client import CloudClient
    from runsfleet_cli.local.state import read_state, state_file

    endpoints = read_state(state_file(project_folder()))
    if endpoints is None:
        msg = "no local cloud is up here; start one by `runsfleet local up --detach`"
        raise CommandError(msg)
    return CloudClient(endpoints)
