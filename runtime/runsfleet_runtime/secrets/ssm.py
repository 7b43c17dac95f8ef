"""Parameter Store as a store of secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.secrets.reader import SecretNotFoundError, SecretUnavailableError


class ParameterStore:
    """Fetches secrets with ``GetParameter``, decrypted.

    Args:
        clients: Makes the client of a service by its name; called at the first fetch only.
    """

    def __init__(self, clients: Callable[[str], Any]) -> None:
        self._clients = clients

    def fetch(self, name: str) -> str:
        """Answer the parameter's value; errors as in ``FetchesSecret``."""
        try:
            answer = self._clients("ssm").get_parameter(Name=name, WithDecryption=True)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown error")
            if code in {"ParameterNotFound", "ParameterVersionNotFound"}:
                raise SecretNotFoundError(
                    f"parameter store has no parameter {name!r}; create it as a SecureString"
                ) from None
            raise SecretUnavailableError(f"reading parameter {name!r} failed: {code}") from error
        except BotoCoreError as error:
            raise SecretUnavailableError(
                f"reading parameter {name!r} failed: {type(error).__name__}"
            ) from error
        return str(answer["Parameter"]["Value"])
