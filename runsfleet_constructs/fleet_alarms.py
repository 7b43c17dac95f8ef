"""The alarms of a fleet, and one that stands for all that are critical."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from runsfleet_constructs._checks import Findings
from runsfleet_constructs.alarm_rules import AlarmRule, FleetAlarm, fleet_rules
from runsfleet_constructs.fleet import RunnerFleet

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_RUNBOOKS = "docs/runbooks.md"
_COMPOSITE_WORTH = 5  # in alarms; 0.50 USD a month (Amazon CloudWatch pricing)


@dataclass(frozen=True, kw_only=True)
class AlarmChange:
    """How an alarm differs from its rule; what is ``None`` stays.

    Attributes:
        threshold: The border.
        period: Length of one period; CloudWatch takes 10 or 30 s, or whole minutes.
        periods: How many periods in a row must be beyond the border.
    """

    threshold: float | None = None
    period: Duration | None = None
    periods: int | None = None


class FleetAlarms(Construct):
    """Alarms for all that keeps jobs waiting, loses them, or costs money unseen.

    Each alarm's text says what it means and where its runbook is. Each can be changed or left out.
    The whole costs 0.10 USD a month for each alarm and 0.50 USD for the composite one.

    Args:
        scope: Parent.
        construct_id: Id.
        fleet: What is watched.
        topic: Where alarms go; by default a topic of its own.
        encryption_key: Key of that topic. Without one its messages, which hold names of metrics and
            nothing of jobs, are not encrypted at rest: CloudWatch cannot use the key that AWS
            manages for SNS, and one of your own costs 1 USD a month.
        emails: Addresses that the topic sends to; each must be confirmed by its owner.
        changes: For each alarm to change, how; ``None`` leaves it out. The names are those of
            ``FleetAlarm``.
        runbooks_url: Address of the runbooks; by default their place in this repository.

    Raises:
        ValueError: Naming everything that cannot work.

    Attributes:
        topic: Where alarms go.
        alarms: Each alarm.
        unhealthy: Stands for all that are critical; ``None`` when each of those is left out.

    Example:
        >>> alarms = FleetAlarms(  # doctest: +SKIP
        ...     self,
        ...     "Alarms",
        ...     fleet=fleet,
        ...     emails=["ci@example.com"],
        ...     changes={
        ...         FleetAlarm.JOBS_WAIT: AlarmChange(threshold=60),
        ...         FleetAlarm.INTERRUPTIONS: None,
        ...     },
        ... )
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        fleet: RunnerFleet,
        topic: sns.ITopic | None = None,
        encryption_key: kms.IKey | None = None,
        emails: Sequence[str] = (),
        changes: Mapping[FleetAlarm | str, AlarmChange | None] = MappingProxyType({}),
        runbooks_url: str = _RUNBOOKS,
    ) -> None:
        super().__init__(scope, construct_id)
        _check(emails, changes)
        self._fleet = fleet
        self._runbooks_url = runbooks_url
        self.topic: sns.ITopic = topic or self._own_topic(encryption_key)
        for address in emails:
            self.topic.add_subscription(subscriptions.EmailSubscription(address))
        action = actions.SnsAction(self.topic)
        by_name = {FleetAlarm(name): change for name, change in changes.items()}
        rules = [r for r in fleet_rules(fleet) if by_name.get(r.alarm, AlarmChange()) is not None]
        self.alarms: Mapping[FleetAlarm, cloudwatch.Alarm] = MappingProxyType(
            {rule.alarm: self._alarm(rule, by_name.get(rule.alarm)) for rule in rules}
        )
        for alarm in self.alarms.values():
            alarm.add_alarm_action(action)
            alarm.add_ok_action(action)
        self.unhealthy = self._composite([self.alarms[r.alarm] for r in rules if r.is_critical])
        fleet.housekeeping.add_alarms(
            len(self.alarms) + (0 if self.unhealthy is None else _COMPOSITE_WORTH)
        )

    def _own_topic(self, key: kms.IKey | None) -> sns.Topic:
        cloudwatch_itself = iam.ServicePrincipal("cloudwatch.amazonaws.com")
        topic = sns.Topic(
            self,
            "Topic",
            display_name=f"runsfleet {self._fleet.fleet_name}",
            master_key=key,
            enforce_ssl=True,
        )
        topic.grant_publish(cloudwatch_itself)
        if key is not None:
            key.grant_encrypt_decrypt(cloudwatch_itself)
        return topic

    def _alarm(self, rule: AlarmRule, change: AlarmChange | None) -> cloudwatch.Alarm:
        change = change or AlarmChange()
        period = change.period or rule.period
        runbook = f"{self._runbooks_url}#{rule.alarm.value.lower()}"
        return cloudwatch.Alarm(
            self,
            rule.alarm.value,
            metric=rule.metric(self._fleet, period),
            threshold=rule.threshold if change.threshold is None else change.threshold,
            evaluation_periods=change.periods or rule.periods,
            comparison_operator=rule.comparison,
            treat_missing_data=rule.missing,
            alarm_description=f"{rule.meaning} Runbook: {runbook}",
        )

    def _composite(self, critical: Sequence[cloudwatch.Alarm]) -> cloudwatch.CompositeAlarm | None:
        if not critical:
            return None
        fired = cloudwatch.AlarmState.ALARM
        return cloudwatch.CompositeAlarm(
            self,
            "Unhealthy",
            alarm_rule=cloudwatch.AlarmRule.any_of(
                *(cloudwatch.AlarmRule.from_alarm(alarm, fired) for alarm in critical)
            ),
            alarm_description=(
                "Jobs of this fleet wait or are lost; the alarms behind it say why. "
                f"Runbook: {self._runbooks_url}#unhealthy"
            ),
        )


def _check(emails: Sequence[str], changes: Mapping[FleetAlarm | str, AlarmChange | None]) -> None:
    findings = Findings()
    for address in emails:
        if not _ADDRESS.fullmatch(address):
            findings.add(f"emails must be addresses like ci@example.com, got {address!r}")
    for name, change in changes.items():
        if name not in set(FleetAlarm):
            findings.add(f"an alarm is one of {', '.join(FleetAlarm)}, got {name!r}")
        elif change is not None and change.periods is not None:
            cure = "leave it out for the rule's own"
            findings.at_least(f"periods of {FleetAlarm(name)}", change.periods, 1, cure)
    findings.raise_all()
