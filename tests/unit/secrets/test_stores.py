"""The two stores of secrets, against an AWS in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.session import get_session
from moto import mock_aws

from runsfleet_runtime.secrets import FetchesSecret, SecretNotFoundError, SecretUnavailableError
from runsfleet_runtime.secrets.secretsmanager import SecretsManagerStore
from runsfleet_runtime.secrets.ssm import ParameterStore

STORES: list[Callable[..., FetchesSecret]] = [SecretsManagerStore, ParameterStore]


@pytest.fixture
def clients() -> Iterator[Callable[[str], Any]]:
    """Start an AWS in memory."""
    with mock_aws():
        yield lambda service: get_session().create_client(service, region_name="eu-central-1")


def test_secrets_manager_answers_by_name_and_arn(clients: Any) -> None:
    """A secret of Secrets Manager is found by its name and by its ARN."""
    arn = clients("secretsmanager").create_secret(Name="app", SecretString="topsecret")["ARN"]
    store = SecretsManagerStore(clients)
    assert store.fetch("app") == store.fetch(arn) == "topsecret"


def test_binary_secret_is_refused_with_the_cure(clients: Any) -> None:
    """A secret without text says how to store it."""
    clients("secretsmanager").create_secret(Name="app", SecretBinary=b"x")
    with pytest.raises(SecretNotFoundError, match="SecretString"):
        SecretsManagerStore(clients).fetch("app")


def test_secret_scheduled_for_deletion_is_not_found(clients: Any) -> None:
    """A deleted secret that could be restored counts as gone."""
    clients("secretsmanager").create_secret(Name="app", SecretString="topsecret")
    clients("secretsmanager").delete_secret(SecretId="app")
    with pytest.raises(SecretNotFoundError, match="restore"):
        SecretsManagerStore(clients).fetch("app")


def test_parameter_is_decrypted(clients: Any) -> None:
    """A SecureString is answered in clear."""
    clients("ssm").put_parameter(Name="/x", Value="topsecret", Type="SecureString")
    assert ParameterStore(clients).fetch("/x") == "topsecret"


@pytest.mark.parametrize("store", STORES)
def test_missing_secret_is_not_found(clients: Any, store: Callable[..., FetchesSecret]) -> None:
    """A name that does not exist is named in the error."""
    with pytest.raises(SecretNotFoundError, match="'/absent'"):
        store(clients).fetch("/absent")


class Failing:
    """A client of which every call fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        def call(**_: Any) -> Any:
            raise self._error

        return call


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, "Get"),
            "AccessDenied",
        ),
        (
            ClientError({"Error": {"Code": "ThrottlingException", "Message": ""}}, "Get"),
            "Throttling",
        ),
        (EndpointConnectionError(endpoint_url="https://x"), "EndpointConnection"),
    ],
)
def test_store_that_cannot_be_asked_is_unavailable(
    store: Callable[..., FetchesSecret], error: Exception, words: str
) -> None:
    """Denials, throttling and lost connections say nothing of whether the secret exists."""
    with pytest.raises(SecretUnavailableError, match=words):
        store(lambda _: Failing(error)).fetch("name")


@pytest.mark.parametrize("store", STORES)
def test_client_is_made_at_the_first_fetch_only(store: Callable[..., FetchesSecret]) -> None:
    """A function that never needs a secret makes no client for it."""
    made: list[str] = []

    def clients(service: str) -> Any:
        made.append(service)
        return Failing(EndpointConnectionError(endpoint_url="https://x"))

    target = store(clients)
    assert not made
    with pytest.raises(SecretUnavailableError):
        target.fetch("name")
    assert len(made) == 1
