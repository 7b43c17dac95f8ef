#!/usr/bin/env python3
"""Composition root: each file in ``environments`` becomes a stage, each of its regions a stack.

``-c environments=dev,prod`` limits what is built. A wrong file ends in a list of findings on
standard error and exit code 1.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ENVIRONMENTS = Path(__file__).parent / "environments"

# The CDK's template validation keeps as many threads of node busy with collecting garbage and
# optimizing code as node may have, for nothing: with one, a synthesis takes a quarter less CPU and
# a seventh less time (docs/benchmarks.md). What the user sets comes later and wins.
NODE_OPTIONS = "--v8-pool-size=1"


def main() -> int:
    """Build the app and return the exit code."""
    # jsii's banner about node 20, which still works; newer versions are not silenced by it
    os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")
    os.environ["NODE_OPTIONS"] = f"{NODE_OPTIONS} {os.environ.get('NODE_OPTIONS', '')}".rstrip()
    # only now: importing the CDK starts node
    import aws_cdk as cdk

    from runsfleet_constructs.bundling import BundlingError
    from stacks.environment_file import EnvironmentFilesError, load_environments
    from stacks.fleet_stack import FleetStage

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
