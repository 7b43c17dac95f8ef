#!/usr/bin/env python3
"""Composition root: each file in ``environments`` becomes a stage, each of its regions a stack.

``-c environments=dev,prod`` limits what is built. A wrong file ends in a list of findings on
standard error and exit code 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import aws_cdk as cdk

from runsfleet_constructs.bundling import BundlingError
from stacks.environment_file import EnvironmentFilesError, load_environments
from stacks.fleet_stack import FleetStage

ENVIRONMENTS = Path(__file__).parent / "environments"


def main() -> int:
    """Build the app and return the exit code."""
    app = cdk.App()
    wanted = app.node.try_get_context("environments")
    only = None if wanted is None else [name.strip() for name in str(wanted).split(",")]
    try:
        for environment in load_environments(ENVIRONMENTS, only):
            FleetStage(app, environment)
        app.synth()
    except (EnvironmentFilesError, BundlingError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
