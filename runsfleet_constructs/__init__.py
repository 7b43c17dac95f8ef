"""Ephemeral, self-hosted GitHub Actions runners in your own AWS account, as CDK constructs.

:class:`RunnerFleet` is the whole; the others are the parts that it is made of, each usable on its
own. See ``docs/constructs.md``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from runsfleet_constructs.breaker import BreakerOptions
from runsfleet_constructs.caps import RunnerCaps
from runsfleet_constructs.cost_options import CostOptions
from runsfleet_constructs.dispatch_function import DispatchFunction
from runsfleet_constructs.ec2_events import Ec2Events
from runsfleet_constructs.events_function import EventsFunction
from runsfleet_constructs.fleet import RunnerFleet
from runsfleet_constructs.fleet_tables import FleetTables
from runsfleet_constructs.function_options import FunctionAssets, FunctionOptions
from runsfleet_constructs.github_app import GitHubApp, GitHubAppOptions, SecretSource
from runsfleet_constructs.housekeeping_function import HousekeepingFunction
from runsfleet_constructs.housekeeping_schedules import (
    DEFAULT_SCHEDULES,
    Housekeeping,
    HousekeepingSchedules,
)
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_constructs.labels import LabelAlias, LabelImage, LabelOptions
from runsfleet_constructs.limits import FleetLimits
from runsfleet_constructs.metrics import FleetMetrics
from runsfleet_constructs.runner_cache_bucket import RunnerCacheBucket
from runsfleet_constructs.runner_config_store import RunnerConfigStore
from runsfleet_constructs.runner_image import RunnerImage, RunnerPlatform, WindowsPython
from runsfleet_constructs.runner_instances import RunnerInstances
from runsfleet_constructs.runner_network import RunnerNetwork
from runsfleet_constructs.session_logs import SessionLogs
from runsfleet_constructs.slack_notifier import SlackNotifier, SlackWebhook
from runsfleet_constructs.ssh_access import SshAccess
from runsfleet_constructs.termination_function import TerminationFunction
from runsfleet_constructs.webhook_intake import WebhookIntake
from runsfleet_runtime.contract.environment import ConfigStore, RunnerLevel
from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.contract.metrics import Metric

if TYPE_CHECKING:
    from runsfleet_constructs.alarm_rules import FleetAlarm
    from runsfleet_constructs.fleet_alarms import AlarmChange, FleetAlarms
    from runsfleet_constructs.fleet_dashboard import DashboardSection, FleetDashboard
    from runsfleet_constructs.regions_dashboard import RegionsDashboard

__all__ = [
    "DEFAULT_SCHEDULES",
    "AlarmChange",
    "BreakerOptions",
    "ConfigStore",
    "CostOptions",
    "DashboardSection",
    "DispatchFunction",
    "Ec2Events",
    "EventsFunction",
    "FleetAlarm",
    "FleetAlarms",
    "FleetDashboard",
    "FleetLimits",
    "FleetMetrics",
    "FleetTables",
    "FunctionAssets",
    "FunctionOptions",
    "GitHubApp",
    "GitHubAppOptions",
    "Housekeeping",
    "HousekeepingFunction",
    "HousekeepingSchedules",
    "HousekeepingTask",
    "JobQueues",
    "LabelAlias",
    "LabelImage",
    "LabelOptions",
    "Metric",
    "RegionsDashboard",
    "RunnerCacheBucket",
    "RunnerCaps",
    "RunnerConfigStore",
    "RunnerFleet",
    "RunnerImage",
    "RunnerInstances",
    "RunnerLevel",
    "RunnerNetwork",
    "RunnerPlatform",
    "SecretSource",
    "SessionLogs",
    "SlackNotifier",
    "SlackWebhook",
    "SshAccess",
    "TerminationFunction",
    "WebhookIntake",
    "WindowsPython",
]

_LATE = {
    "AlarmChange": "fleet_alarms",
    "DashboardSection": "fleet_dashboard",
    "FleetAlarm": "alarm_rules",
    "FleetAlarms": "fleet_alarms",
    "FleetDashboard": "fleet_dashboard",
    "RegionsDashboard": "regions_dashboard",
}
"""What needs CloudWatch's constructs, which take a while to load: loaded when it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
