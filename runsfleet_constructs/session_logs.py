"""How shells on instances are opened, and where what is typed in them is kept."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from runsfleet_constructs._checks import check_fleet_name
from runsfleet_constructs._grants import allow
from runsfleet_runtime.contract.paths import session_document
from runsfleet_runtime.contract.tags import MANAGED_VALUE, Tag

IDLE_MINUTES = 20
"""A shell in which nothing is typed for so long ends; Session Manager's own default."""

_DOCUMENT_IS_CHECKED: dict[str, dict[str, Any]] = {
    "BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}
}
"""No other document opens a shell, the account's default one included. To be in each statement that
allows ``ssm:StartSession`` (Systems Manager user guide, session documents in IAM policies)."""


class SessionLogs(Construct):
    """The fleet's session document, which ``runsfleet session`` uses, and its log group.

    Only sessions that are opened by this document are logged there. ``grant_open_sessions`` allows
    no other document; whoever may use any may open a shell that leaves no log here.

    What is logged comes from the instance: a job that became root could write to this group, too.

    Args:
        scope: Parent.
        construct_id: Id.
        fleet_name: Name of the fleet.
        log_retention: How long sessions are kept; default one month.
        encryption_key: Key of the log group; by default one that AWS owns.

    Attributes:
        document_name: Name of the document.
        log_group: Group of the sessions, a stream for each.

    Example:
        >>> SessionLogs(self, "Sessions", fleet_name="dev")  # doctest: +SKIP
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        fleet_name: str,
        log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH,
        encryption_key: kms.IKey | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self._fleet_name = check_fleet_name(fleet_name)
        self.document_name = session_document(fleet_name)
        self.log_group = logs.LogGroup(
            self,
            "Logs",
            retention=log_retention,
            removal_policy=cdk.RemovalPolicy.DESTROY,
            encryption_key=encryption_key,
        )
        inputs: dict[str, Any] = {
            "cloudWatchLogGroupName": self.log_group.log_group_name,
            # refuses the session when the group is not encrypted by a key of one's own
            "cloudWatchEncryptionEnabled": encryption_key is not None,
            # line by line: a session that ends with its instance is kept up to that moment
            "cloudWatchStreamingEnabled": True,
            "idleSessionTimeout": str(IDLE_MINUTES),
        }
        ssm.CfnDocument(
            self,
            "Document",
            name=self.document_name,
            document_type="Session",
            document_format="JSON",
            # its name is fixed, so it cannot be replaced
            update_method="NewVersion",
            content={
                "schemaVersion": "1.0",
                "description": f"shell on an instance of the fleet {fleet_name}, logged",
                "sessionType": "Standard_Stream",
                "inputs": inputs,
            },
        )

    def grant_write(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow an instance's agent of Session Manager to log sessions.

        Args:
            grantee: The role of the instances.
        """
        allow(
            grantee,
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            [self.log_group.log_group_arn],
        )
        return allow(
            grantee,
            ["logs:DescribeLogGroups"],
            [
                cdk.Stack.of(self).format_arn(
                    service="logs",
                    resource="log-group",
                    resource_name="*",
                    arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
                )
            ],
            wildcard="Session Manager's agent looks for its log group in the list of all",
        )

    def grant_open(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to open logged shells on instances of this fleet, and to end its own.

        Args:
            grantee: Who may, such as the role of the operators.
        """
        stack = cdk.Stack.of(self)
        instances = stack.format_arn(service="ec2", resource="instance", resource_name="*")
        document = stack.format_arn(
            service="ssm", resource="document", resource_name=self.document_name
        )
        ours = {Tag.MANAGED.value: MANAGED_VALUE, Tag.FLEET.value: self._fleet_name}
        allow(
            grantee,
            ["ssm:StartSession"],
            [instances],
            conditions={
                "StringEquals": {f"ssm:resourceTag/{tag}": value for tag, value in ours.items()},
                **_DOCUMENT_IS_CHECKED,
            },
            wildcard="a condition admits instances with this fleet's tags only",
        )
        allow(grantee, ["ssm:StartSession"], [document], conditions=_DOCUMENT_IS_CHECKED)
        allow(grantee, ["ssm:DescribeDocument"], [document])
        return allow(
            grantee,
            ["ssm:ResumeSession", "ssm:TerminateSession"],
            [stack.format_arn(service="ssm", resource="session", resource_name="*")],
            conditions={
                "StringLike": {"ssm:resourceTag/aws:ssmmessages:session-id": ["${aws:userid}"]}
            },
            wildcard="a condition admits the principal's own sessions only",
        )
