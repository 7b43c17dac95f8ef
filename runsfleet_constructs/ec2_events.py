"""What EC2 says of its instances, brought to the events queue by EventBridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jsii
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from runsfleet_constructs._grants import allow_key
from runsfleet_constructs.job_queues import JobQueues

if TYPE_CHECKING:
    from aws_cdk.interfaces.aws_events import IRuleRef

_SOURCE = ["aws.ec2"]
_ENDING = ["terminated", "stopped"]


class Ec2Events(Construct):
    """Rules on the account's default bus: spot warnings, rebalance advice, instances that end.

    EC2's events name an instance and hold no tags, so a rule cannot tell whose instance it is: the
    events of all instances of the account and region arrive, and the events function looks up
    whether one is the fleet's. What EventBridge cannot deliver within a day goes to the queue's
    dead-letter queue.

    Args:
        scope: Parent.
        construct_id: Id.
        queues: The fleet's queues.

    Attributes:
        spot_warnings: EC2 takes an instance back in two minutes.
        rebalance_advice: EC2 is likely to take an instance back.
        state_changes: An instance is terminated or stopped.
    """

    def __init__(self, scope: Construct, construct_id: str, *, queues: JobQueues) -> None:
        super().__init__(scope, construct_id)
        target = _QueueTarget(queues.events, queues.events_dead_letters)
        self.spot_warnings = events.Rule(
            self,
            "SpotWarnings",
            description="EC2 takes an instance back in two minutes",
            event_pattern=events.EventPattern(
                source=_SOURCE, detail_type=["EC2 Spot Instance Interruption Warning"]
            ),
            targets=[target],
        )
        self.rebalance_advice = events.Rule(
            self,
            "RebalanceAdvice",
            description="EC2 is likely to take an instance back",
            event_pattern=events.EventPattern(
                source=_SOURCE, detail_type=["EC2 Instance Rebalance Recommendation"]
            ),
            targets=[target],
        )
        self.state_changes = events.Rule(
            self,
            "StateChanges",
            description="an instance ends",
            event_pattern=events.EventPattern(
                source=_SOURCE,
                detail_type=["EC2 Instance State-change Notification"],
                detail={"state": _ENDING},
            ),
            targets=[target],
        )
        rules = [self.spot_warnings, self.rebalance_advice, self.state_changes]
        event_bridge = iam.ServicePrincipal("events.amazonaws.com")
        for queue in (queues.events, queues.events_dead_letters):
            queue.add_to_resource_policy(
                iam.PolicyStatement(
                    actions=["sqs:SendMessage"],
                    principals=[event_bridge],
                    resources=[queue.queue_arn],
                    conditions={"ArnEquals": {"aws:SourceArn": [r.rule_arn for r in rules]}},
                )
            )
        # not bound to the rules: they need the queue, which needs the key
        allow_key(event_bridge, queues.events.encryption_master_key)


@jsii.implements(events.IRuleTarget)
class _QueueTarget:
    """A queue that gets each event as it is; the CDK's own target loads its module of targets."""

    def __init__(self, queue: sqs.IQueue, dead_letters: sqs.IQueue) -> None:
        self._queue = queue
        self._dead_letters = dead_letters

    def bind(
        self,
        rule: IRuleRef,  # noqa: ARG002  # the port's
        id: str | None = None,  # noqa: A002, ARG002  # the port's
    ) -> events.RuleTargetConfig:
        return events.RuleTargetConfig(
            arn=self._queue.queue_arn,
            dead_letter_config=events.CfnRule.DeadLetterConfigProperty(
                arn=self._dead_letters.queue_arn
            ),
        )
