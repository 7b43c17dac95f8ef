"""The job hooks on Windows: PowerShell scripts that do what those of ``linux.py`` do.

The runner starts a hook by ``pwsh``, or by ``powershell`` where there is no other, so the scripts
are written for Windows PowerShell 5.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runsfleet_runtime.agent.hooks import (
    COMPLETED,
    HOOK_VARIABLES,
    RECORDED_VARIABLES,
    STARTED,
    TIME,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# PowerShell takes typographic quotes for plain ones
_SINGLE_QUOTES = "'\u2018\u2019\u201a\u201b"

_HOOK = """\
# Written by the runsfleet agent: tells it that a job {event}, and calls the user's own hook.
$ErrorActionPreference = 'Stop'
function Write-Moment {{
  $now = [DateTimeOffset]::UtcNow.ToUnixTimeMilliseconds() / 1000
  $lines = @('{time}=' + $now.ToString([Globalization.CultureInfo]::InvariantCulture))
  foreach ($name in @({variables})) {{
    $lines += $name + '=' + [Environment]::GetEnvironmentVariable($name)
  }}
  $part = {file} + '.' + $PID
  [IO.File]::WriteAllLines($part, [string[]] $lines)
  Move-Item -LiteralPath $part -Destination {file} -Force
}}
$status = 0
{body}
exit $status
"""
# the start is recorded before anything of the user's may fail; the end when all of it is over
_BODIES = {
    STARTED: "Write-Moment\n{user_hook}",
    COMPLETED: "try {{\n{user_hook}\n}} finally {{\n  Write-Moment\n}}",
}
_NO_HOOK = "  # the user has no hook"
_POWERSHELL = """\
  $shells = @('pwsh.exe', 'powershell.exe')
  $shell = @(Get-Command $shells -CommandType Application -ErrorAction SilentlyContinue)[0]
  & $shell.Source -NoLogo -NoProfile -NonInteractive -ExecutionPolicy Bypass -File {script}
  $status = $LASTEXITCODE"""
_BASH = """\
  & bash -e {script}
  $status = $LASTEXITCODE"""
_OTHER = """\
  & {script}
  $status = $LASTEXITCODE"""


def quoted(text: str) -> str:
    """Return a text as a literal of PowerShell.

    Example:
        >>> quoted("it's")
        "'it''s'"
    """
    return "'" + "".join(c * 2 if c in _SINGLE_QUOTES else c for c in text) + "'"


def write_hooks(directory: Path, state: Path, user_hooks: Mapping[str, str]) -> dict[str, Path]:
    """Write both hook scripts.

    Args:
        directory: Where to.
        state: Where the scripts write what they saw.
        user_hooks: The runner's variable -> path of the user's script.

    Returns:
        The runner's variable -> script.
    """
    scripts: dict[str, Path] = {}
    for event, variable in HOOK_VARIABLES.items():
        script = directory / f"job-{event}.ps1"
        text = _HOOK.format(
            event=event,
            time=TIME,
            variables=", ".join(quoted(name) for name in RECORDED_VARIABLES),
            file=quoted(str(state / event)),
            body=_BODIES[event].format(user_hook=_chain(user_hooks.get(variable))),
        )
        # with a mark of its encoding: 5.1 takes a file without one for the system's code page
        script.write_text(text, encoding="utf-8-sig")
        scripts[variable] = script
    return scripts


def _chain(hook: str | None) -> str:
    if not hook:
        return _NO_HOOK
    by_suffix = {".ps1": _POWERSHELL, ".sh": _BASH}
    suffix = hook[hook.rfind(".") :].lower()
    return by_suffix.get(suffix, _OTHER).format(script=quoted(hook))
