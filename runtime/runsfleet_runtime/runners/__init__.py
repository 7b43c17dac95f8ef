"""The store of runner configurations: written by dispatch, read by one instance, then deleted.

``ports`` names what use cases ask; ``dynamodb`` (the default) and ``ssm`` are its adapters, chosen
by ``ConfigStore`` in the environment. ``parts`` splits a configuration for Parameter Store.
"""

from runsfleet_runtime.runners.ports import ForgetsRunners, RunnerStoreError, StoresRunnerConfig

__all__ = ["ForgetsRunners", "RunnerStoreError", "StoresRunnerConfig"]
