"""What the commands show on a terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from runsfleet_cli.local.drive import Outcome
    from runsfleet_cli.local.launcher import Progress
    from runsfleet_cli.local.records import Records
    from runsfleet_cli.local.state import Endpoints
    from runsfleet_cli.local.usage import CallUsage

_PARTS = {
    "emulator": "starting AWS and GitHub",
    "synth": "synthesizing the app",
    "deploy": "deploying with the CDK CLI",
    "cdk": "deploying with the CDK CLI",
    "connect": "connecting GitHub to the webhook",
}
_STYLES = {
    "queued": "cyan",
    "webhook": "cyan",
    "enqueued": "cyan",
    "claimed": "blue",
    "launched": "blue",
    "booting": "magenta",
    "registered": "magenta",
    "running": "yellow",
    "step": "dim",
    "completed": "green",
    "closed": "dim",
    "ending": "dim",
    "terminated": "dim",
    "retried": "yellow",
    "capacity": "bold yellow",
    "fault": "bold red",
    "error": "red",
}
_NAME_WIDTH = 28
_LOG_WIDTH = 180


class Show:
    """A terminal, or a file.

    Args:
        quiet: Show progress and results on standard error only, and briefly: standard output is
            for JSON.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=quiet, highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            # a log file has no edge to wrap at
            self._console = Console(stderr=quiet, highlight=False, soft_wrap=True, width=_LOG_WIDTH)
        self._first: float | None = None

    def line(self, text: str) -> None:
        """Show a line."""
        self._console.print(escape(text), style="dim")

    @contextlib.contextmanager
    def starting(self) -> Iterator[Progress]:
        """Show what a start is at; gives the function to be told of it."""
        if not self._console.is_terminal:
            seen: set[str] = set()

            def told(part: str, _line: str) -> None:
                text = _PARTS.get(part, part)
                if text not in seen:
                    seen.add(text)
                    self._console.print(f"· {text}", style="dim")

            yield told
            return
        with self._console.status("starting a local cloud") as status:

            def spun(part: str, line: str) -> None:
                text = _PARTS.get(part, part)
                status.update(f"{text} [dim]{escape(line.strip()[:100])}[/dim]")

            yield spun

    def ready(self, endpoints: Endpoints) -> None:
        """Show how to reach a cloud."""
        took = sum(endpoints.seconds.values())
        kind = "strict, IAM and TLS on" if endpoints.strict else "plain"
        self._console.print(
            f"[bold green]a local cloud is up[/] ({kind}, fleet {escape(endpoints.fleet)}, "
            f"started in {took:.1f} s)"
        )
        if self._quiet:
            return
        rows = {
            "page": endpoints.page,
            "aws": endpoints.aws,
            "github": endpoints.github,
            "webhook": endpoints.webhook,
        }
        for name, value in rows.items():
            self._console.print(f"  [dim]{name:8}[/] {escape(value)}")
        left_out = [note for note in endpoints.notes if note.startswith("left out")]
        others = len(endpoints.notes) - len(left_out)
        if others:
            left_out.append(f"{others} more adaptations, listed on the page")
        for note in left_out:
            self._console.print(f"  [dim]{'emulator':8} {escape(note)}[/]")

    def entry(self, entry: Mapping[str, Any]) -> None:
        """Show a line of the timeline."""
        if self._quiet:
            return
        moment = float(entry["time"])
        if self._first is None:
            self._first = moment
        stage = str(entry["stage"])
        name = _fitting(str(entry["job"] or entry["instance_id"] or ""), _NAME_WIDTH)
        style = _STYLES.get(stage, "")
        self._console.print(
            f"[dim]{moment - self._first:7.2f} s[/]  {escape(name):{_NAME_WIDTH}}  "
            f"[{style}]{stage:10}[/]  {escape(str(entry['text']))}"
        )

    def outcome(self, outcome: Outcome) -> None:
        """Show how a run went."""
        if not self._quiet:
            self._console.print()
            self._console.print(_jobs_table(outcome))
            self._usage(outcome.usage)
            if outcome.played:
                self._payloads(outcome)
        for problem in outcome.problems:
            self._console.print(f"[bold red]✗[/] {escape(problem)}")
        if outcome.ok:
            jobs = len(outcome.jobs)
            red = sum(job["conclusion"] == "failure" for job in outcome.jobs)
            self._console.print(
                f"[bold green]✓[/] {jobs} job{'' if jobs == 1 else 's'} done"
                f"{f' ([red]{red} with a failed step[/])' if red else ''} in "
                f"{outcome.seconds:.1f} s, {len(outcome.instances)} instance"
                f"{'' if len(outcome.instances) == 1 else 's'} terminated, all queues empty"
            )

    def records(self, records: Records) -> None:
        """Show requests."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("time", "caller", "service", "action", "ms", "outcome"):
            table.add_column(title, justify="right" if title == "ms" else "left", no_wrap=True)
        for call in records.calls:
            table.add_row(
                time.strftime("%H:%M:%S", time.localtime(float(call["time"]))),
                escape(_fitting(str(call["caller"]), 44)),
                str(call["service"]),
                escape(_fitting(str(call["action"]), 60)),
                f"{float(call['duration']) * 1000:.0f}",
                _outcome_text(call),
            )
        self._console.print(table)
        self._usage(records.usage)

    def _usage(self, usage: CallUsage) -> None:
        if not usage.jobs:
            return
        table = Table(
            title=(
                f"{usage.aws_per_job} AWS calls and {usage.github_per_job} GitHub requests a job, "
                f"{usage.jobs} job{'' if usage.jobs == 1 else 's'} launched"
            ),
            title_justify="left",
            title_style="",
            box=None,
            pad_edge=False,
            header_style="dim",
        )
        for title in ("caller", "service", "action"):
            table.add_column(title)
        for title in ("calls", "a job", "failed"):
            table.add_column(title, justify="right")
        for line in usage.lines:
            share = "once" if line.once else f"{line.count / usage.jobs:.2f}"
            table.add_row(
                escape(line.caller),
                line.service,
                escape(line.action),
                str(line.count),
                share,
                str(line.failed) if line.failed else "",
                style="dim" if line.once else "",
            )
        self._console.print(table)
        self._console.print()

    def _payloads(self, outcome: Outcome) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("webhook", "answer", "job"):
            table.add_column(title)
        for entry in outcome.played:
            job = entry.get("job_id")
            table.add_row(
                str(entry["action"]), str(entry.get("status_code", "")), str(job) if job else ""
            )
        self._console.print(table)


def _jobs_table(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("job")
    table.add_column("result")
    table.add_column("instance")
    table.add_column("type")
    table.add_column("zone")
    table.add_column("capacity")
    for title in ("to launch", "to runner", "ran", "in all"):
        table.add_column(title, justify="right")
    for job in outcome.jobs:
        story = job.get("story") or {}
        seconds = story.get("seconds", {})
        result = str(job["conclusion"] or job["status"])
        style = {"success": "green", "failure": "red", "skipped": "dim"}.get(result, "yellow")
        table.add_row(
            escape(_fitting(str(job["name"]), 40)),
            f"[{style}]{escape(result)}[/]",
            str(story.get("instance_id") or ""),
            str(story.get("instance_type") or ""),
            str(story.get("zone") or ""),
            str(story.get("capacity_type") or ""),
            _seconds(seconds.get("to_launch")),
            _seconds(seconds.get("waited")),
            _seconds(seconds.get("ran")),
            _seconds(seconds.get("total")),
        )
    return table


def _outcome_text(call: Mapping[str, Any]) -> str:
    if call["outcome"] == "ok":
        return "[green]ok[/]"
    reason = " ".join(str(part) for part in (call.get("fault"), call.get("error")) if part)
    return f"[red]{escape(str(call['outcome']))}[/] {escape(reason)}"


def _seconds(value: object) -> str:
    return f"{value:.2f} s" if isinstance(value, int | float) else ""


def _fitting(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
