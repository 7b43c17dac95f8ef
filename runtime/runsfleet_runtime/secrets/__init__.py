"""Secret values by reference: Secrets Manager or Parameter Store, read once, cached, never shown.

``reader`` is the part that callers see; ``secretsmanager`` and ``ssm`` are its adapters. The
webhook function imports this room, so ``reader`` needs nothing but the standard library.
"""

from runsfleet_runtime.secrets.reader import (
    FetchesSecret,
    MalformedReferenceError,
    ReadsSecrets,
    SecretError,
    SecretNotFoundError,
    SecretReader,
    SecretReference,
    SecretStore,
    SecretUnavailableError,
)

__all__ = [
    "FetchesSecret",
    "MalformedReferenceError",
    "ReadsSecrets",
    "SecretError",
    "SecretNotFoundError",
    "SecretReader",
    "SecretReference",
    "SecretStore",
    "SecretUnavailableError",
]
