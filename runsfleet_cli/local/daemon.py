"""The process of a local cloud: starts it, says when it is ready, and ends with whoever holds it.

Run as `python -m runsfleet_cli.local.daemon OPTIONS`, OPTIONS being JSON (`DaemonOptions`). Its
standard output is a line of JSON for each step: `{"part", "line"}`, then `{"ready": endpoints}` or
`{"error": message}`. Attached, its standard input is a pipe that the starting process holds open:
when that ends, however it ends, the cloud ends too. Detached, it ends by SIGTERM, SIGINT or
`POST /api/shutdown`.

Its children end with it in any case: emulator and instances each hold a pipe from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runsfleet_cli.local.cloud import CloudError, CloudSettings, LocalCloud
from runsfleet_cli.local.deploy import DeployError
from runsfleet_cli.local.emulator import EmulatorError
from runsfleet_cli.local.fleet_secrets import FleetSecretsError
from runsfleet_cli.local.interceptor import InterceptorError
from runsfleet_cli.local.state import Endpoints, read_state, remove_state, write_state
from runsfleet_cli.local.synth import SynthError

EXPECTED = (
    CloudError,
    DeployError,
    EmulatorError,
    FleetSecretsError,
    InterceptorError,
    SynthError,
)
"""Errors whose message is enough for a person."""

_PREFIX = "runsfleet-local-"


@dataclass(frozen=True, kw_only=True)
class DaemonOptions:
    """What to start.

    Args:
        project: The folder whose app is deployed.
        cache: Where assemblies are kept.
        state_file: Written when ready, removed at the end.
        json_file: Written too, for programs.
        environment: Which environment.
        strict: IAM enforcement and TLS.
        boot_seconds: Between an instance's launch and its first script.
        attached: Whether to end with standard input.
        shared: Whether other commands may run jobs on it.
    """

    project: str
    cache: str
    state_file: str
    json_file: str | None = None
    environment: str = "dev"
    strict: bool = False
    boot_seconds: float = 0.3
    attached: bool = False
    shared: bool = True

    def to_json(self) -> str:
        """As the argument."""
        return json.dumps(asdict(self))


async def run(options: DaemonOptions, directory: Path) -> int:
    """Run a local cloud until it is told to end.

    Returns:
        The exit code.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    if options.attached:
        threading.Thread(target=_end_with_input, args=(loop, ended), daemon=True).start()
    cloud = LocalCloud(
        CloudSettings(
            directory=directory,
            project=Path(options.project),
            cache=Path(options.cache),
            environment=options.environment,
            strict=options.strict,
            boot_seconds=options.boot_seconds,
        )
    )
    starting = asyncio.ensure_future(cloud.start(_progress))
    ending = asyncio.ensure_future(ended.wait())
    await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 130
    try:
        endpoints = replace(starting.result(), shared=options.shared)
    except EXPECTED as error:
        _say({"error": str(error)})
        return 1
    if cloud.page is not None:
        cloud.page.on_shutdown = ended.set
    written = _announce(options, endpoints)
    try:
        await ended.wait()
    finally:
        for file in written:
            remove_state(file, os.getpid())
        await cloud.stop()
    return 0


def main(argument: str) -> int:
    """Read the options, run, and leave nothing behind."""
    options = DaemonOptions(**json.loads(argument))
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    logging.basicConfig(
        filename=directory / "daemon.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        return asyncio.run(run(options, directory))
    except Exception as error:
        logging.getLogger("runsfleet.local").exception("the local cloud failed")
        _say({"error": f"the local cloud failed: {type(error).__name__}: {error}"})
        return 1
    finally:
        if not os.environ.get("RUNSFLEET_KEEP_FILES"):
            shutil.rmtree(directory, ignore_errors=True)


def _announce(options: DaemonOptions, endpoints: Endpoints) -> list[Path]:
    other = read_state(Path(options.state_file))
    # the commands keep finding the cloud that was there before one that is for itself alone
    files = [Path(options.state_file)] if options.shared or other is None else []
    if options.json_file is not None:
        files.append(Path(options.json_file))
    for file in files:
        write_state(file, endpoints)
    _say({"ready": json.loads(endpoints.to_json())})
    # nobody reads them any more, and a pipe that fills up would stop this process
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    return files


def _progress(part: str, line: str) -> None:
    _say({"part": part, "line": line})


def _say(message: dict[str, object]) -> None:
    # whoever listened may be gone
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def _end_with_input(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    with contextlib.suppress(OSError, ValueError):
        while sys.stdin.buffer.read(1):
            pass
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(ended.set)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
