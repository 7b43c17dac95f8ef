"""The first script of an instance, made from the files in ``boot``.

It is bash with a piece of Python, below EC2's 16 KB, holds no secret, and is the same for every
instance of a platform.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from runsfleet_runtime.contract.environment import AgentEnvironment, WatchdogEnvironment

MAX_BYTES = 16 * 1024
"""EC2's limit for user data before its base64 encoding."""


@dataclass(frozen=True, kw_only=True)
class AgentDownload:
    """Where an instance gets the agent; the values may be CDK tokens.

    Attributes:
        bucket: The bucket of the CDK's assets.
        key: The package in it.
        sha256: Its hash, as 64 hexadecimal digits.
        region: Region of the bucket.
        url_suffix: ``amazonaws.com``, or the suffix of another partition.
    """

    bucket: str
    key: str
    sha256: str
    region: str
    url_suffix: str

    def to_environ(self) -> dict[str, str]:
        """Return the variables that ``boot/fetch_agent.py`` reads."""
        return {
            "RUNSFLEET_AGENT_BUCKET": self.bucket,
            "RUNSFLEET_AGENT_KEY": self.key,
            "RUNSFLEET_AGENT_SHA256": self.sha256,
            "RUNSFLEET_AGENT_URL_SUFFIX": self.url_suffix,
        }


def render_user_data(
    *,
    environment: AgentEnvironment,
    agent: AgentDownload,
    watchdog: WatchdogEnvironment,
    setup_commands: Sequence[str] = (),
) -> str:
    """Return the script.

    Args:
        environment: The agent's variables.
        agent: Where the agent comes from.
        watchdog: Limits of the watchdog, which starts before anything else.
        setup_commands: Shell commands that run before the agent, each on its own line.

    Raises:
        ValueError: If the script is too long for EC2.

    Example:
        >>> script = render_user_data(  # doctest: +SKIP
        ...     environment=environment, agent=agent, watchdog=watchdog
        ... )
    """
    variables = {
        "AWS_REGION": agent.region,
        "AWS_DEFAULT_REGION": agent.region,
        **agent.to_environ(),
        **watchdog.to_environ(),
        **environment.to_environ(),
    }
    exports = "\n".join(f"export {name}={_quoted(value)}" for name, value in variables.items())
    script = (
        boot_part("user_data.sh")
        .replace("#VARIABLES#", exports)
        .replace("#SETUP#", "\n".join(setup_commands))
        .replace("#FETCH_AGENT#", boot_part("fetch_agent.py").rstrip())
    )
    return checked_size(script)


def checked_size(script: str) -> str:
    """Return a script if EC2 takes it as user data.

    Raises:
        ValueError: If it is too long.
    """
    size = len(script.encode())
    if size > MAX_BYTES:
        raise ValueError(
            f"user data must be at most {MAX_BYTES} bytes, got {size}; "
            "move setup_commands into an image or a script that they download"
        )
    return script


def _quoted(value: str) -> str:
    # a token is replaced at deployment by a name or URL that needs no quoting inside the quotes
    return f"'{value}'" if value.startswith("${Token[") else shlex.quote(value)


@lru_cache(maxsize=4)
def boot_part(name: str) -> str:
    """Return the text of a file in ``boot``."""
    return resources.files("runsfleet_constructs.boot").joinpath(name).read_text(encoding="utf-8")
