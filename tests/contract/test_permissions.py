"""Every action that runtime code calls is granted to the role that calls it, and none besides."""

from __future__ import annotations

import pytest

from tests.contract.permissions import code_of_builder, code_of_module
from tests.infrastructure.templates import Template

COMPOSITION = "runsfleet_runtime.composition"
SSM = (
    "runsfleet_runtime.housekeeping.ssm",
    "runsfleet_runtime.runners.ssm",
    "runsfleet_runtime.secrets.ssm",
)
NO_TOPIC = "runsfleet_runtime.cost.aws_topic"
TABLE = ("runsfleet_runtime.runners.dynamodb", "runsfleet_runtime.secrets.secretsmanager")

# what the Lambda service does with the role of a function
BY_LAMBDA = {
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
}
# what the SSM agent on the instance does
BY_SESSION_MANAGER = {
    "logs:DescribeLogGroups",
    "logs:DescribeLogStreams",
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
}


@pytest.mark.parametrize(
    ("builder", "role"),
    [
        ("webhook", "Fleet/Intake"),
        ("dispatch", "Fleet/Dispatch"),
        ("termination", "Fleet/Termination"),
        ("events", "Fleet/Events"),
        ("housekeeping", "Fleet/Housekeeping"),
    ],
)
def test_functions_have_what_they_call(
    dev: Template, parameters: Template, builder: str, role: str
) -> None:
    """With either store, the role of a function allows exactly the calls of its code."""
    for template, unused in ((dev, SSM), (parameters, TABLE)):
        needed = code_of_builder(COMPOSITION, builder, without=(*unused, NO_TOPIC)).actions
        assert needed, "the code was not found"
        if builder == "webhook":
            needed |= code_of_builder(COMPOSITION, "health", without=unused).actions
        assert template.actions(role) - BY_LAMBDA == needed - BY_LAMBDA


def test_instances_have_what_the_agent_calls(dev: Template, parameters: Template) -> None:
    """With either store, the role of the instances allows exactly the calls of the agent."""
    agent = "runsfleet_runtime.agent"
    for template, unused in ((dev, f"{agent}.ssm"), (parameters, f"{agent}.dynamodb")):
        needed = code_of_module(f"{agent}.__main__", without=(unused,)).actions
        assert needed, "the code was not found"
        assert template.actions("Fleet/Instances") - BY_SESSION_MANAGER == needed
