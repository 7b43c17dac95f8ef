"""The first script of a Windows instance, made from the PowerShell files in ``boot``.

Like that of Linux it is below EC2's 16 KB, holds no secret, and is the same for every instance.
"""

from __future__ import annotations

from collections.abc import Sequence

from runsfleet_constructs.runner_image import WindowsPython
from runsfleet_constructs.user_data import AgentDownload, boot_part, checked_size
from runsfleet_runtime.contract.environment import AgentEnvironment, WatchdogEnvironment
from runsfleet_runtime.contract.paths import HEARTBEAT_FILE, WINDOWS_AGENT_HOME

# PowerShell takes typographic quotes for plain ones
_SINGLE_QUOTES = "'\u2018\u2019\u201a\u201b"

# a native command that fails is no error to Windows PowerShell, unlike one of its own
_SETUP = """\
  $global:LASTEXITCODE = 0
{command}
  if ($LASTEXITCODE -ne 0) {{ throw "a setup command ended with $LASTEXITCODE" }}"""


def render_windows_user_data(
    *,
    environment: AgentEnvironment,
    agent: AgentDownload,
    watchdog: WatchdogEnvironment,
    python: WindowsPython | None,
    setup_commands: Sequence[str] = (),
) -> str:
    """Return the script.

    Args:
        environment: The agent's variables.
        agent: Where the agent comes from.
        watchdog: Limits of the watchdog, a task that is registered before anything else.
        python: What is installed when the image has no Python from 3.11 on.
        setup_commands: PowerShell commands that run before the agent, each by itself.

    Raises:
        ValueError: If the script is too long for EC2.
    """
    variables = {
        "AWS_REGION": agent.region,
        "AWS_DEFAULT_REGION": agent.region,
        **agent.to_environ(),
        **watchdog.to_environ(),
        **environment.to_environ(),
    }
    home = environment.home or WINDOWS_AGENT_HOME
    if python is not None:
        variables["RUNSFLEET_PYTHON_URL"] = python.url
        variables["RUNSFLEET_PYTHON_SHA256"] = python.sha256
    parts = {
        # first what holds marks itself
        "#WATCHDOG#": boot_part("watchdog.ps1").rstrip(),
        "#HEARTBEAT#": _quoted(f"{home}\\{HEARTBEAT_FILE}"),
        "#LIFETIME#": str(watchdog.watchdog_lifetime_seconds),
        "#START#": str(watchdog.watchdog_start_seconds),
        "#SILENCE#": str(watchdog.watchdog_silence_seconds),
        "#HOME#": _quoted(home),
        "#VARIABLES#": "\n".join(f"  $env:{n} = {_quoted(v)}" for n, v in variables.items()),
        "#SETUP#": "\n".join(_SETUP.format(command=command) for command in setup_commands),
    }
    script = boot_part("user_data.ps1")
    for mark, text in parts.items():
        script = script.replace(mark, text)
    return checked_size(script)


def _quoted(value: str) -> str:
    # a token is replaced at deployment by a name or URL that needs no quoting inside the quotes
    return "'" + "".join(c * 2 if c in _SINGLE_QUOTES else c for c in value) + "'"
