"""What SNS brings, as a message for Slack.

Pure. What arrives is an alarm's change of state, as CloudWatch writes it, or a plain text such as
the summary of costs. All text is escaped for Slack, so that nobody is addressed or linked by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

_STATES: Final = {
    "ALARM": (":red_circle:", "fires"),
    "OK": (":large_green_circle:", "is over"),
    "INSUFFICIENT_DATA": (":white_circle:", "has no data"),
}
_CONSOLES: Final = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
_RUNBOOK = re.compile(r"\s*Runbook: (\S+)\s*$")

_LONGEST: Final = 2900
"""Characters of one section, with room for an end mark; Slack takes 3,000 (Block Kit, section)."""

_SECTIONS: Final = 10
"""Sections of one message; Slack takes 50 blocks, but nobody reads those."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What SNS brings.

    Attributes:
        subject: The subject; empty when there is none.
        message: The text, or an alarm's change of state as JSON.
    """

    subject: str
    message: str


def to_slack(notice: Notice) -> dict[str, Any]:
    """Return the body to post: blocks, and the text that notifications on a phone show.

    Example:
        >>> to_slack(Notice("Cost of yesterday", "12.30 USD"))["text"]
        'Cost of yesterday'
    """
    alarm = _alarm_in(notice.message)
    return _of_text(notice) if alarm is None else _of_alarm(alarm)


def _alarm_in(message: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(message)
    except ValueError:
        return None
    is_alarm = isinstance(found, dict) and "AlarmName" in found and "NewStateValue" in found
    return found if is_alarm else None


def _of_alarm(alarm: Mapping[str, Any]) -> dict[str, Any]:
    name, state = str(alarm["AlarmName"]), str(alarm["NewStateValue"])
    icon, verb = _STATES.get(state, (":white_circle:", f"is {state}"))
    description = str(alarm.get("AlarmDescription") or "")
    runbook = _RUNBOOK.search(description)
    link = _console_link(str(alarm.get("AlarmArn", "")), name)
    shown = f"<{link}|{_escaped(name)}>" if link else _escaped(name)
    blocks = [_section(f"{icon} *{shown}* {_escaped(verb)}")]
    meaning = _RUNBOOK.sub("", description)
    if meaning:
        blocks.append(_section(_cut(_escaped(meaning))))
    about = [_escaped(str(alarm.get("NewStateReason") or "no reason given"))]
    if runbook:
        about.append(_runbook(runbook[1]))
    about.append(_escaped(" ".join(_where_and_when(alarm))))
    elements = [{"type": "mrkdwn", "text": _cut(text)} for text in about if text]
    blocks.append({"type": "context", "elements": elements})
    return {"text": f"{name} {verb}", "blocks": blocks}


def _where_and_when(alarm: Mapping[str, Any]) -> list[str]:
    """Return the region as CloudWatch calls it, such as ``EU (Frankfurt)``, and the minute."""
    moment = str(alarm.get("StateChangeTime", ""))[:16].replace("T", " ")
    return [
        part for part in (str(alarm.get("Region", "")), f"{moment} UTC" if moment else "") if part
    ]


def _runbook(where: str) -> str:
    if where.startswith("https://"):
        return f"<{quote(where, safe=':/#?&=%~.-_')}|runbook>"
    return f"runbook: {_escaped(where)}"


def _console_link(arn: str, name: str) -> str:
    """Return the address of the alarm's page; empty when it cannot be told."""
    parts = arn.split(":")
    if len(parts) < 4 or parts[1] not in _CONSOLES:  # noqa: PLR2004  # up to the region
        return ""
    host, region = _CONSOLES[parts[1]], quote(parts[3], safe="")
    page = f"alarmsV2:alarm/{quote(name, safe='')}"
    return f"https://{region}.{host}/cloudwatch/home?region={region}#{page}"


def _of_text(notice: Notice) -> dict[str, Any]:
    blocks = [_section(f"*{_escaped(notice.subject)}*")] if notice.subject else []
    blocks += [_section(part) for part in _parts(_escaped(notice.message))]
    first_line = notice.message.strip().partition("\n")[0]
    return {"text": notice.subject or first_line[:150] or "(no text)", "blocks": blocks}


def _parts(text: str) -> list[str]:
    """Split a text at ends of lines into what sections hold; the rest of a long one is left out."""
    parts: list[str] = []
    for line in text.strip().splitlines():
        piece = _cut(line)
        if parts and len(parts[-1]) + 1 + len(piece) <= _LONGEST:
            parts[-1] += f"\n{piece}"
        else:
            parts.append(piece)
    shown = [part if part.strip() else "(empty)" for part in parts] or ["(no text)"]
    return shown if len(shown) <= _SECTIONS else [*shown[: _SECTIONS - 1], "…"]


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _escaped(text: str) -> str:
    """Escape the three characters that Slack gives a meaning (formatting text, escaping)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
