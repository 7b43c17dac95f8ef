"""Alarms and summaries in a Slack channel."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda_destinations as destinations
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from runsfleet_constructs._acknowledge import acknowledge
from runsfleet_constructs._function import FleetFunction
from runsfleet_constructs.function_options import FunctionAssets, FunctionOptions
from runsfleet_constructs.github_app import (
    SecretSource,
    managed_secret,
    named_secret,
    secure_parameter,
)
from runsfleet_runtime.contract.environment import NotifyEnvironment

TIMEOUT = 45
"""Seconds; above three requests of 5 s each, the waits between them, and the same once more with an
address that was read anew."""

RETRIES = 2
"""By Lambda, after one minute and after two more."""

RETENTION_DAYS = 14


class SlackNotifier(FleetFunction):
    """Posts what arrives at an SNS topic to a Slack channel, by an incoming webhook.

    Alarms are shown with what they mean, why they fired and their runbook; any other text as it is.
    A message that Slack does not take is tried for about three minutes and then kept in a
    dead-letter queue; nothing is lost unseen.

    Args:
        scope: Parent.
        construct_id: Id.
        topic: Whose messages are posted, such as ``FleetAlarms.topic``.
        webhook: Where the webhook's address is kept, which is a secret: whoever has it may post.
        options: How the function is built and logged.

    Attributes:
        dead_letters: What was not posted.

    Example:
        >>> SlackNotifier(  # doctest: +SKIP
        ...     self,
        ...     "Slack",
        ...     topic=alarms.topic,
        ...     webhook=SlackWebhook.from_secret_name(self, "SlackWebhook", "runsfleet/slack"),
        ... )
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        topic: sns.ITopic,
        webhook: SecretSource,
        options: FunctionOptions | None = None,
    ) -> None:
        options = options or FunctionOptions()
        self.environment = NotifyEnvironment(slack_webhook=webhook.reference)
        super().__init__(
            scope,
            construct_id,
            handler="notify",
            description="runsfleet: posts alarms and summaries to a Slack channel",
            environment=self.environment.to_environ(),
            timeout=cdk.Duration.seconds(TIMEOUT),
            memory_mib=256,
            assets=FunctionAssets.without_layer(scope, options),
            options=options,
        )
        webhook.grant_read(self.role)
        # SNS writes to it, too, which a key of one's own would have to allow
        self.dead_letters = sqs.Queue(
            self,
            "DeadLetters",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=cdk.Duration.days(RETENTION_DAYS),
        )
        acknowledge(
            self.dead_letters,
            "AwsSolutions-SQS3",
            "it is the dead-letter queue, of the function's invocations and of the subscription",
        )
        self.function.configure_async_invoke(
            retry_attempts=RETRIES, on_failure=destinations.SqsDestination(self.dead_letters)
        )
        topic.add_subscription(
            subscriptions.LambdaSubscription(self.function, dead_letter_queue=self.dead_letters)
        )


class SlackWebhook:
    """The address of an incoming webhook, as a secret by reference: plain text, nothing else.

    In Slack it is made under *Your apps*, *Incoming Webhooks*; it is bound to one channel.
    """

    @staticmethod
    def from_secret_name(scope: Construct, construct_id: str, name: str) -> SecretSource:
        """Use a secret of Secrets Manager by its name; it may be created later.

        Args:
            scope: Where to put the reference.
            construct_id: Its id.
            name: Name of the secret.

        Raises:
            ValueError: If the name holds a secret instead of naming one.
        """
        return named_secret(scope, construct_id, _check(name))

    @staticmethod
    def from_secret(secret: secretsmanager.ISecret) -> SecretSource:
        """Use a secret of Secrets Manager that the app has as a construct.

        Args:
            secret: The secret.
        """
        return managed_secret(secret)

    @staticmethod
    def from_parameter_name(
        scope: Construct, name: str, *, encryption_key: kms.IKey | None = None
    ) -> SecretSource:
        """Use a SecureString of Parameter Store by its name.

        Args:
            scope: Any construct of the stack that uses it.
            name: Name of the parameter.
            encryption_key: The key of the parameter, unless it is ``alias/aws/ssm``.

        Raises:
            ValueError: If the name holds a secret instead of naming one.
        """
        return secure_parameter(scope, _check(name), encryption_key)


def _check(name: str) -> str:
    if "://" in name:
        # the text is not repeated: it is most likely the secret itself
        raise ValueError(
            "the Slack webhook is given by the name of a secret, got an address; put the address "
            "into a secret and pass a name like 'runsfleet/slack'"
        )
    return name
