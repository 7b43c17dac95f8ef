"""Secrets Manager as a store of secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.secrets.reader import SecretNotFoundError, SecretUnavailableError


class SecretsManagerStore:
    """Fetches secrets with ``GetSecretValue``.

    Args:
        clients: Makes the client of a service by its name; called at the first fetch only.
    """

    def __init__(self, clients: Callable[[str], Any]) -> None:
        self._clients = clients

    def fetch(self, name: str) -> str:
        """Answer the current version's text; errors as in ``FetchesSecret``."""
        try:
            answer = self._clients("secretsmanager").get_secret_value(SecretId=name)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown error")
            if code in {"ResourceNotFoundException", "InvalidRequestException"}:
                # the latter: scheduled for deletion
                raise SecretNotFoundError(
                    f"secrets manager has no usable secret {name!r} ({code}); create it, or "
                    "restore it if it was deleted"
                ) from None
            raise SecretUnavailableError(f"reading secret {name!r} failed: {code}") from error
        except BotoCoreError as error:
            raise SecretUnavailableError(
                f"reading secret {name!r} failed: {type(error).__name__}"
            ) from error
        value = answer.get("SecretString")
        if not isinstance(value, str):
            raise SecretNotFoundError(
                f"the secret {name!r} holds binary data; store it as text (SecretString)"
            )
        return value
