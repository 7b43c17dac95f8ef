"""How a request to GitHub can fail; what a caller does about it is said with each."""

from __future__ import annotations


class GitHubError(Exception):
    """Base of everything that this room raises."""


class RateLimitedError(GitHubError):
    """GitHub asked to wait: nothing is sent for this installation until then; try again later.

    Args:
        message: What was asked for and what GitHub said.
        retry_at: Epoch seconds from which a request may be made again.
    """

    def __init__(self, message: str, *, retry_at: float) -> None:
        super().__init__(message)
        self.retry_at = retry_at


class UnavailableError(GitHubError):
    """GitHub gave no useful answer before the deadline: the result is unknown; try again later."""


class CredentialsError(GitHubError):
    """The App's secret is unusable, or GitHub does not accept it.

    No fault of the job: it stays queued while the operator repairs the secret.
    """


class RefusedError(GitHubError):
    """GitHub refused for good: sending the same again would be refused again.

    Args:
        message: What was asked for, GitHub's words and the cure.
        status: The HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(GitHubError):
    """What was asked for does not exist, or the App may not see it (GitHub answers both alike)."""


class InstallationNotFoundError(NotFoundError):
    """The App is not installed where the repository is; this says nothing about the repository."""
