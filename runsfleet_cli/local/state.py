"""Where a running local cloud is found again by the commands of other processes.

A state file per project folder: `.runsfleet/local.json`, or in `$RUNSFLEET_LOCAL_STATE` (a folder),
written when the cloud is ready and removed when it ends. A file whose process is gone counts as no
cloud.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

STATE_VARIABLE = "RUNSFLEET_LOCAL_STATE"
_FILE = "local.json"


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """How to reach a local cloud, and what is deployed in it.

    Args:
        pid: Of the cloud's process.
        aws: AWS endpoint (`AWS_ENDPOINT_URL`); its control API is below `/_runsfleet/`.
        access_key: To use with it.
        secret_key: To use with it.
        account: Twelve digits.
        region: Where the fleet is.
        webhook: The fleet's webhook URL.
        webhook_secret: Signs webhooks.
        github: The GitHub stand-in, REST API at its root.
        github_control: Its control API.
        page: The page; its JSON is below `/api/`.
        environment: Name of the environment.
        fleet: Name of the fleet.
        strict: IAM enforcement and TLS.
        ca_bundle: In strict mode: to trust (`AWS_CA_BUNDLE`).
        tables: Physical name by role (`jobs`, `runners`).
        queues: URL by role (`jobs`, `jobs_dead_letters`, `termination`, ...).
        outputs: All outputs of all stacks.
        directory: Files of this run: logs, record of calls.
        started_at: Unix time, seconds.
        shared: Whether other commands may run jobs on it; one that `run` started for itself ends
            with that command.
        notes: What the emulator cannot take and was left out or kept elsewhere.
        seconds: How long each part of the start took.
    """

    pid: int
    aws: str
    access_key: str
    secret_key: str
    account: str
    region: str
    webhook: str
    webhook_secret: str
    github: str
    github_control: str
    page: str
    environment: str
    fleet: str
    strict: bool
    ca_bundle: str | None
    tables: Mapping[str, str]
    queues: Mapping[str, str]
    outputs: Mapping[str, str]
    directory: str
    started_at: float
    shared: bool = True
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """As a document for people and programs."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Endpoints:
        """Read a document; keys of a newer version are ignored.

        Raises:
            ValueError: It is no JSON.
            TypeError: It is none of ours.
        """
        data: Any = json.loads(text)
        if not isinstance(data, dict):
            msg = "the state of a local cloud must be a JSON object"
            raise TypeError(msg)
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        return cls(**values | {"notes": tuple(values.get("notes", ()))})


def state_file(project: Path, environ: Mapping[str, str] | None = None) -> Path:
    """Where the state of a project's local cloud is kept."""
    named = (os.environ if environ is None else environ).get(STATE_VARIABLE)
    return (Path(named) if named else project / ".runsfleet") / _FILE


def write_state(file: Path, endpoints: Endpoints) -> None:
    """Write the state, whole or not at all, readable by its owner only (it holds a secret)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".local-")
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(endpoints.to_json())
    Path(name).replace(file)


def remove_state(file: Path, pid: int) -> None:
    """Remove the state of the cloud of a process, unless another one's stands there by now."""
    found = read_state(file)
    if found is None or found.pid == pid:
        file.unlink(missing_ok=True)


def read_state(file: Path) -> Endpoints | None:
    """The state of the cloud that runs; None if none does."""
    try:
        endpoints = Endpoints.from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return None
    return endpoints if is_alive(endpoints.pid) else None


def is_alive(pid: int) -> bool:
    """Whether a process of this id runs and is more than a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return not state.rpartition(")")[2].split()[0].startswith("Z")
