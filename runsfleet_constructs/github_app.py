"""The GitHub App that a fleet acts as: where its secrets are kept and where its runners register.

Two secrets, so that the function that faces the internet can read the webhook's secret and not the
App's private key. Neither is ever text in an app, a template or an environment variable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, Unpack
from urllib.parse import urlsplit

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from runsfleet_constructs._grants import allow
from runsfleet_runtime.contract.environment import RunnerLevel

GITHUB = "https://github.com"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_PEM = re.compile(r"-----BEGIN|\"private_key\"|\s")


class SecretSource(Protocol):
    """Where a secret is kept and who may read it."""

    @property
    def name(self) -> str:
        """Name or ARN, for people."""

    @property
    def reference(self) -> str:
        """What the runtime reads it by: ``secretsmanager:…`` or ``ssm:…``."""

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to read it."""


@dataclass(frozen=True)
class _ManagedSecret:
    """A secret in Secrets Manager."""

    name: str
    secret: secretsmanager.ISecret

    @property
    def reference(self) -> str:
        return f"secretsmanager:{self.name}"

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        full = self.secret.secret_full_arn
        # a name alone does not tell the six characters that Secrets Manager appends to the ARN
        arn = full or f"{self.secret.secret_arn}-??????"
        key = self.secret.encryption_key
        if key is not None:
            key.grant_decrypt(grantee)
        return allow(grantee, ["secretsmanager:GetSecretValue"], [arn])


@dataclass(frozen=True)
class _SecureParameter:
    """A SecureString of Parameter Store."""

    name: str
    arn: str
    encryption_key: kms.IKey | None

    @property
    def reference(self) -> str:
        return f"ssm:{self.name}"

    def grant_read(self, grantee: iam.IGrantable) -> iam.Grant:
        # with the key that AWS manages (alias/aws/ssm) no statement for KMS is needed
        if self.encryption_key is not None:
            self.encryption_key.grant_decrypt(grantee)
        return allow(grantee, ["ssm:GetParameter"], [self.arn])


def named_secret(scope: Construct, construct_id: str, name: str) -> SecretSource:
    """Return a secret of Secrets Manager by its name.

    Raises:
        ValueError: If the name holds a secret instead of naming one.
    """
    secret = secretsmanager.Secret.from_secret_name_v2(scope, construct_id, _check_name(name))
    return _ManagedSecret(name, secret)


def managed_secret(secret: secretsmanager.ISecret) -> SecretSource:
    """Return a secret of Secrets Manager that the app has as a construct."""
    return _ManagedSecret(secret.secret_arn, secret)


def secure_parameter(
    scope: Construct, name: str, encryption_key: kms.IKey | None = None
) -> SecretSource:
    """Return a SecureString of Parameter Store by its name.

    Raises:
        ValueError: If the name holds a secret instead of naming one.
    """
    resource = _check_name(name).removeprefix("/")
    arn = cdk.Stack.of(scope).format_arn(
        service="ssm", resource="parameter", resource_name=resource
    )
    return _SecureParameter(name, arn, encryption_key)


class GitHubAppOptions(TypedDict, total=False):
    """What every factory of :class:`GitHubApp` takes beside the secrets."""

    url: str
    runner_level: RunnerLevel | str
    runner_group_id: int
    registration_token_fallback: bool


class GitHubApp:
    """A GitHub App, its secrets by reference.

    The App's secret is JSON ``{"app_id": "12345", "private_key": "-----BEGIN RSA…"}``, the
    webhook's secret is the plain text that was entered at GitHub.

    Args:
        app: Where the App's id and private key are kept.
        webhook: Where the webhook's secret is kept.
        url: ``https://github.com`` (default), ``https://SUBDOMAIN.ghe.com``, or the address of a
            GitHub Enterprise Server.
        runner_level: Register runners with the organisation (default) or with each repository.
        runner_group_id: Runner group to register in; 1 is GitHub's default group.
        registration_token_fallback: Register by a token for the whole scope when GitHub's limit of
            180 JIT configurations a minute is reached, instead of waiting. Off by default: such a
            token lets whoever reads it register any runner for an hour.

    Raises:
        ValueError: If the address is not an https one or the group is not positive.

    Example:
        >>> GitHubApp.from_secret_name(self, "App", "runsfleet/github-app")  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        app: SecretSource,
        webhook: SecretSource,
        url: str = GITHUB,
        runner_level: RunnerLevel | str = RunnerLevel.ORGANIZATION,
        runner_group_id: int = 1,
        registration_token_fallback: bool = False,
    ) -> None:
        self.app = app
        self.webhook = webhook
        self.server_url, self.api_url = _addresses(url)
        try:
            self.runner_level = RunnerLevel(runner_level)
        except ValueError:
            raise ValueError(
                f"runner_level must be {' or '.join(RunnerLevel)}, got {runner_level!r}"
            ) from None
        if runner_group_id < 1:
            raise ValueError(
                f"runner_group_id must be at least 1, got {runner_group_id}; 1 is the default group"
            )
        self.runner_group_id = runner_group_id
        self.registration_token_fallback = registration_token_fallback

    @property
    def managed_secrets(self) -> int:
        """How many of its secrets are in Secrets Manager, which bills each of them."""
        sources = (self.app, self.webhook)
        return sum(source.reference.startswith("secretsmanager:") for source in sources)

    def environment(self) -> dict[str, Any]:
        """Return the fields that tell the runtime how to talk to GitHub."""
        return {
            "runner_level": self.runner_level,
            "github_app_secret": self.app.reference,
            "github_api_url": self.api_url,
            "github_server_url": self.server_url,
            "runner_group_id": self.runner_group_id,
        }

    @classmethod
    def from_secret_name(
        cls,
        scope: Construct,
        construct_id: str,
        name: str,
        *,
        webhook_secret_name: str | None = None,
        **options: Unpack[GitHubAppOptions],
    ) -> GitHubApp:
        """Use two secrets of Secrets Manager by their names; they may be created later.

        Args:
            scope: Where to put the references.
            construct_id: Their common id.
            name: Secret with the App's JSON.
            webhook_secret_name: Secret with the webhook's secret; default ``{name}-webhook``.
            options: The other arguments of the class.

        Raises:
            ValueError: If a name holds a secret instead of naming one.
        """
        home = Construct(scope, construct_id)
        names = {"App": name, "Webhook": webhook_secret_name or f"{name}-webhook"}
        app, webhook = (named_secret(home, part, value) for part, value in names.items())
        return cls(
            app=app,
            webhook=webhook,
            **options,
        )

    @classmethod
    def from_secrets(
        cls,
        *,
        app: secretsmanager.ISecret,
        webhook: secretsmanager.ISecret,
        **options: Unpack[GitHubAppOptions],
    ) -> GitHubApp:
        """Use two secrets of Secrets Manager that the app already has as constructs.

        Args:
            app: Secret with the App's JSON.
            webhook: Another secret, with the webhook's secret.
            options: The other arguments of the class.

        Raises:
            ValueError: If both are the same secret.
        """
        if app.node.path == webhook.node.path:
            raise ValueError(
                f"app and webhook must be two secrets, got {app.node.path!r} twice; the function "
                "that faces the internet must not be able to read the private key"
            )
        return cls(
            app=managed_secret(app),
            webhook=managed_secret(webhook),
            **options,
        )

    @classmethod
    def from_parameter_names(
        cls,
        scope: Construct,
        name: str,
        *,
        webhook_parameter_name: str | None = None,
        encryption_key: kms.IKey | None = None,
        **options: Unpack[GitHubAppOptions],
    ) -> GitHubApp:
        """Use two SecureString parameters of Parameter Store by their names.

        Args:
            scope: Any construct of the stack that uses them.
            name: Parameter with the App's JSON.
            webhook_parameter_name: Parameter with the webhook's secret; default ``{name}-webhook``.
            encryption_key: The key of the parameters, unless it is ``alias/aws/ssm``.
            options: The other arguments of the class.

        Raises:
            ValueError: If a name holds a secret instead of naming one.
        """
        webhook = webhook_parameter_name or f"{name}-webhook"
        return cls(
            app=secure_parameter(scope, name, encryption_key),
            webhook=secure_parameter(scope, webhook, encryption_key),
            **options,
        )


def _check_name(name: str) -> str:
    if not name or _PEM.search(name):
        raise ValueError(
            "a secret is given by its name, got something with spaces or key material in it; "
            "create the secret first and pass a name like 'runsfleet/github-app'"
        )
    return name


def _addresses(url: str) -> tuple[str, str]:
    """Return the server's and the API's address of GitHub, a ghe.com tenant or a server."""
    parts = urlsplit(url)
    # a stand-in on this very machine needs no certificate; everything else does
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not safe or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(
            f"url must be the https address of a GitHub without a path, got {url!r}; "
            f"use {GITHUB}, https://SUBDOMAIN.ghe.com or https://HOST of an Enterprise Server"
        )
    server = f"{parts.scheme}://{parts.netloc}"
    if parts.hostname == "github.com" or parts.hostname.endswith(".ghe.com"):
        return server, f"{parts.scheme}://api.{parts.netloc}"
    return server, f"{server}/api/v3"
