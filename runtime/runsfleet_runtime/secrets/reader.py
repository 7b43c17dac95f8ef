"""Reading secrets by reference, cached in the memory of a warm function.

Life of a value: the first ``read`` fetches it, later ones answer from memory until it is older than
the time to live. A caller that was shown to hold an outdated value (a signature that does not
verify, a key that GitHub refuses) asks to ``refresh``; the floor between two fetches keeps forged
requests from turning into a flood of API calls.

Gotchas: when the store cannot be reached, an outdated value is better than none and is served; when
the store says that the secret does not exist, that is an error even if a value is still in memory.
Values appear in no ``repr``, log line or exception.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, Self

TTL_SECONDS = 300.0
"""A rotated secret is in use everywhere after at most five minutes."""
REFRESH_FLOOR_SECONDS = 30.0
"""Fetches of one secret are at least this far apart, however many wrong signatures arrive."""


class SecretError(Exception):
    """A secret could not be read."""


class MalformedReferenceError(SecretError):
    """A reference does not have the form ``secretsmanager:<name or ARN>`` or ``ssm:<name>``."""


class SecretNotFoundError(SecretError):
    """The store has no such secret, or it has no text value."""


class SecretUnavailableError(SecretError):
    """The store could not be asked: throttled, denied, or not reachable."""


class SecretStore(StrEnum):
    """Where a secret is kept; also the scheme of its reference."""

    SECRETS_MANAGER = "secretsmanager"
    SSM = "ssm"


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret is kept.

    Attributes:
        store: The service.
        name: Name or ARN there.
    """

    store: SecretStore
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a reference.

        Args:
            text: ``secretsmanager:<name or ARN>`` or ``ssm:<parameter name>``.

        Raises:
            MalformedReferenceError: If it has another form. The message does not repeat the text
                when it has no scheme: somebody may have put the secret itself there.

        Example:
            >>> SecretReference.parse("ssm:/runsfleet/webhook").name
            '/runsfleet/webhook'
        """
        scheme, separator, name = text.partition(":")
        if not separator or scheme not in set(SecretStore):
            raise MalformedReferenceError(
                "a secret reference must start with 'secretsmanager:' or 'ssm:'; give the name of "
                "the secret, never its value"
            )
        if not name.strip():
            raise MalformedReferenceError(
                f"the secret reference {text!r} names no secret; write '{scheme}:<name>'"
            )
        return cls(SecretStore(scheme), name.strip())


class FetchesSecret(Protocol):
    """Asks one store for the present value of a secret."""

    def fetch(self, name: str) -> str:
        """Answer the value.

        Args:
            name: Name or ARN.

        Raises:
            SecretNotFoundError: If there is no such secret or it has no text value.
            SecretUnavailableError: If the store could not be asked.
        """


class ReadsSecrets(Protocol):
    """What those who need a secret's value ask for."""

    def read(self, reference: str) -> str:
        """Answer the value, from memory when that is fresh enough."""

    def refresh(self, reference: str) -> str:
        """Answer the value, fetched anew unless that was done a moment ago."""


@dataclass(slots=True)
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: str | None = field(default=None, repr=False)
    fetched_at: float = 0.0
    tried_at: float | None = None


class SecretReader:
    """Reads and caches secrets; safe for threads.

    Args:
        stores: The adapter of each store in use.
        clock: Seconds since the epoch. Wall time: a monotonic clock may stand still while a
            function is frozen between two events.
        ttl_seconds: Age after which a value is fetched again (300).
        floor_seconds: Least time between two fetches of one secret (30).

    Example:
        >>> class Store:
        ...     def fetch(self, name: str) -> str:
        ...         return f"value of {name}"
        >>> reader = SecretReader({SecretStore.SSM: Store()})
        >>> reader.read("ssm:/runsfleet/webhook")
        'value of /runsfleet/webhook'
    """

    def __init__(
        self,
        stores: Mapping[SecretStore, FetchesSecret],
        *,
        clock: Callable[[], float] = time.time,
        ttl_seconds: float = TTL_SECONDS,
        floor_seconds: float = REFRESH_FLOOR_SECONDS,
    ) -> None:
        self._stores = dict(stores)
        self._clock = clock
        self._ttl = ttl_seconds
        self._floor = floor_seconds
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"SecretReader({', '.join(sorted(self._stores))})"

    def read(self, reference: str) -> str:
        """Answer the value of a secret, from memory when it is younger than the time to live.

        Args:
            reference: ``secretsmanager:<name or ARN>`` or ``ssm:<parameter name>``.

        Returns:
            The value without trailing line breaks (they come from files, never from GitHub).

        Raises:
            MalformedReferenceError: If the reference has another form.
            SecretNotFoundError: If there is no such secret.
            SecretUnavailableError: If the store cannot be asked and nothing is in memory.
        """
        return self._get(reference, older_than=self._ttl)

    def refresh(self, reference: str) -> str:
        """Answer the value of a secret, fetched anew unless that happened within the floor.

        For a caller whose value was refused. Arguments and errors are those of :meth:`read`.
        """
        return self._get(reference, older_than=0.0)

    def _get(self, reference: str, *, older_than: float) -> str:
        with self._lock:
            entry = self._entries.setdefault(reference, _Entry())
        with entry.lock:
            now = self._clock()
            if entry.value is not None and not self._is_due(entry, now, older_than):
                return entry.value
            target = SecretReference.parse(reference)
            store = self._stores.get(target.store)
            if store is None:
                raise MalformedReferenceError(
                    f"secrets of {target.store!r} cannot be read by this function; "
                    f"use one of: {', '.join(sorted(self._stores))}"
                )
            entry.tried_at = now
            try:
                value = store.fetch(target.name).rstrip("\r\n")
            except SecretUnavailableError:
                if entry.value is None:
                    raise
                return entry.value
            except SecretNotFoundError:
                entry.value = None
                raise
            if not value:
                entry.value = None
                raise SecretNotFoundError(f"the secret {reference!r} is empty; give it a value")
            entry.value, entry.fetched_at = value, now
            return value

    def _is_due(self, entry: _Entry, now: float, older_than: float) -> bool:
        tried = entry.tried_at
        if tried is not None and 0 <= now - tried < self._floor:
            return False
        age = now - entry.fetched_at
        return age >= older_than or age < 0
