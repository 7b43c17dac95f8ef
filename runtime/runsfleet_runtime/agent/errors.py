"""What ends a bootstrap early."""

from __future__ import annotations


class AgentError(Exception):
    """The instance cannot run its job; the message names the value and the cure."""


class ConfigurationError(AgentError):
    """No configuration came in time, or the one that came is not for this instance."""


class RegistrationError(AgentError):
    """GitHub did not take the registration."""


class PackageError(AgentError):
    """No verified runner package could be had."""


class WrongDigestError(AgentError):
    """A package is not what the configuration names: damaged at its source, or tampered with."""


class StopRequestedError(Exception):
    """The agent was told to stop while it waited or fetched something."""


class LogsRefusedError(Exception):
    """The log service will never take these lines."""
