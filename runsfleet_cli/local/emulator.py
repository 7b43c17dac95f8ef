"""The AWS emulator (MiniStack) as a child process: environment, start, readiness, end.

Lifecycle: `find_emulator_python` or `ensure_emulator_environment` gives the interpreter of the
emulator's own environment (never runsfleet's: what it runs is what was deployed) ->
`Emulator.start` picks a free port, starts it in a process group of its own and waits until it
answers -> `Emulator.stop` ends the group, so that no Lambda worker outlives it. The emulator also
ends when this process ends without saying so (see `emulator_boot.py`).

Gotchas:
    * `endpoint_for_functions` becomes `AWS_ENDPOINT_URL` in the emulator's environment. MiniStack
      hands its own environment on to each Lambda worker and calls itself in-process (1.5.33: no
      service of ours reads the variable), so this routes the functions, and only them, through
      the interceptor.
    * The URLs that it hands out (queues, HTTP APIs) name the interceptor's port as well.
    * Because functions inherit its environment, that is minimal: what this shell happens to hold
      (tokens, profiles) must not reach them.
    * It serves 127.0.0.1; an HTTP API answers under `/_aws/execute-api/<id>/<stage>/...` there,
      because `*.localhost` does not resolve on every machine.

Example:
    >>> async with Emulator(
    ...     EmulatorSettings(
    ...         python=await ensure_emulator_environment(),
    ...         account="123456789012",
    ...         region="eu-central-1",
    ...         directory=Path("/tmp/run/emulator"),
    ...         endpoint_for_functions="http://127.0.0.1:4599",
    ...     )
    ... ) as emulator:
    ...     print(emulator.url)
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import aiohttp
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Callable

    from runsfleet_cli.local.tls import TlsFiles

PYTHON_VARIABLE = "RUNSFLEET_EMULATOR_PYTHON"
ENDPOINT_VARIABLE = "RUNSFLEET_AWS_ENDPOINT"
LOCK_FILE = Path(__file__).with_name("emulator.lock")
ROOT_ACCESS_KEY = "test"
ROOT_SECRET_KEY = "test"  # noqa: S105  (the emulator's well-known root, not a secret)

_BOOT_FILE = Path(__file__).with_name("emulator_boot.py")
_HEALTH_PATH = "/_ministack/health"
_LOG_TAIL_CHARACTERS = 2_000
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")


class EmulatorError(Exception):
    """The emulator could not be found, installed, started or reached."""


class AwsBackend(Protocol):
    """Anything that speaks the AWS APIs at one address."""

    @property
    def url(self) -> str:
        """Address, without a trailing slash."""

    async def start(self, endpoint_for_functions: str | None = None) -> None:
        """Be ready to answer when this returns."""

    async def stop(self) -> None:
        """Leave no process behind."""


@dataclass(frozen=True, slots=True)
class EmulatorSettings:
    """How to run the emulator.

    Args:
        python: Interpreter of the environment that has ministack and boto3.
        account: Twelve digits: the account that the app deploys to.
        region: Its default region.
        directory: For its temporary files, state and log; made if missing.
        endpoint_for_functions: What functions use as the AWS endpoint; default: the emulator.
        tls: Certificates; given means that it serves https.
        enforce_iam: Verify signatures and evaluate policies.
        start_timeout: Seconds until it must answer. It needs under one on an idle machine.
        extra_environment: More variables, which functions see as well.
    """

    python: Path
    account: str
    region: str
    directory: Path
    endpoint_for_functions: str | None = None
    tls: TlsFiles | None = None
    enforce_iam: bool = False
    start_timeout: float = 60.0
    extra_environment: Mapping[str, str] = field(default_factory=dict)


class Emulator:
    """One MiniStack process. Satisfies `AwsBackend`; an async context manager too.

    Example:
        >>> emulator = Emulator(settings)
        >>> await emulator.start(endpoint_for_functions=interceptor.url)
        >>> await emulator.stop()
    """

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it answers, e.g. `http://127.0.0.1:40113`."""
        scheme = "https" if self._settings.tls else "http"
        return f"{scheme}://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Process id, which is also its process group; None before start and after stop."""
        return self._process.pid if self._process else None

    @property
    def log_file(self) -> Path:
        """What it and its functions wrote."""
        return self._settings.directory / "emulator.log"

    def log_tail(self) -> str:
        """The end of its log, for an error message."""
        if not self.log_file.is_file():
            return ""
        return self.log_file.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:]

    async def start(self, endpoint_for_functions: str | None = None) -> None:
        """Start it and wait until it answers.

        Args:
            endpoint_for_functions: Overrides that of the settings.

        Raises:
            EmulatorError: It ended or did not answer in time; the message ends with its log.
        """
        if self._process is not None:
            msg = f"the emulator is running already (pid {self._process.pid}); stop it first"
            raise EmulatorError(msg)
        self._settings.directory.mkdir(parents=True, exist_ok=True)
        (self._settings.directory / "tmp").mkdir(exist_ok=True)
        self._port = free_port()
        endpoint = endpoint_for_functions or self._settings.endpoint_for_functions
        with self.log_file.open("ab") as log:
            try:
                # -P: this folder must not shadow modules of the emulator's environment
                self._process = await asyncio.create_subprocess_exec(
                    self._settings.python,
                    "-P",
                    _BOOT_FILE,
                    str(self._port),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=self._settings.directory,
                    env=self._environment(endpoint),
                    start_new_session=True,
                )
            except OSError as error:
                msg = (
                    f"cannot run the emulator's interpreter {self._settings.python}: {error}; "
                    f"set {PYTHON_VARIABLE} to a python that has ministack and boto3"
                )
                raise EmulatorError(msg) from error
        try:
            await self._wait_until_ready()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the emulator and every process that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), timeout=2.0)
        # the group outlives its leader while a worker lives
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                break
            await asyncio.sleep(0.02)
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _environment(self, endpoint: str | None) -> dict[str, str]:
        settings = self._settings
        directory = str(settings.directory)
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= {
            # no profile, credentials file or cache of the developer's reaches a function
            "HOME": directory,
            "TMPDIR": str(settings.directory / "tmp"),
            "STATE_DIR": str(settings.directory / "state"),
            "S3_DATA_DIR": str(settings.directory / "s3"),
            "BIND_HOST": "127.0.0.1",
            # the port in the URLs that it hands out, see emulator_boot.py
            "GATEWAY_PORT": str(URL(endpoint).port if endpoint else self._port),
            "MINISTACK_ACCOUNT_ID": settings.account,
            "MINISTACK_REGION": settings.region,
            "AWS_ACCESS_KEY_ID": ROOT_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": ROOT_SECRET_KEY,
            # the Lambda runtime sets it as well; it shows in the functions' user agent
            "AWS_EXECUTION_ENV": "AWS_Lambda_python",
            # nothing answers the metadata address here, and SDKs wait for it
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONUNBUFFERED": "1",
            # listeners on fixed ports that no part of runsfleet uses
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
        }
        if endpoint:
            environment["AWS_ENDPOINT_URL"] = endpoint
        if settings.enforce_iam:
            environment["AUTH"] = "true"
        if settings.tls:
            environment |= settings.tls.client_environment()
            environment |= {
                "USE_SSL": "1",
                "MINISTACK_SSL_CERT": str(settings.tls.certificate),
                "MINISTACK_SSL_KEY": str(settings.tls.key),
            }
        return environment | dict(settings.extra_environment)

    async def _wait_until_ready(self) -> None:
        process = self._process
        if process is None:
            msg = "the emulator was stopped while it was starting"
            raise EmulatorError(msg)
        context = self._settings.tls.client_context() if self._settings.tls else True
        deadline = time.monotonic() + self._settings.start_timeout
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                if process.returncode is not None:
                    msg = f"the emulator ended with status {process.returncode}: {self.log_tail()}"
                    raise EmulatorError(msg)
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(
                        self.url + _HEALTH_PATH,
                        ssl=context,
                        timeout=aiohttp.ClientTimeout(total=5),
                    ) as answer:
                        if answer.status == 200:  # noqa: PLR2004
                            return
                await asyncio.sleep(0.03)
        msg = (
            f"the emulator did not answer within {self._settings.start_timeout:g} s at {self.url}: "
            f"{self.log_tail()}"
        )
        raise EmulatorError(msg)


class ExternalBackend:
    """An AWS emulator that somebody else runs. Satisfies `AwsBackend`.

    Its functions go through the interceptor only if it was started with `AWS_ENDPOINT_URL` set to
    the interceptor's address.

    Args:
        url: For example `http://localhost:4566`.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    @property
    def url(self) -> str:
        """The given address."""
        return self._url

    async def start(self, endpoint_for_functions: str | None = None) -> None:  # noqa: ARG002
        """See that something answers.

        Raises:
            EmulatorError: Nothing listens at the address.
        """
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(self._url, timeout=aiohttp.ClientTimeout(total=10)),
            ):
                return
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            msg = (
                f"nothing answers at {self._url} ({error}); start it, or unset {ENDPOINT_VARIABLE}"
            )
            raise EmulatorError(msg) from error

    async def stop(self) -> None:
        """Leave it alone: it is not ours."""


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def find_emulator_python(project: Path, environ: Mapping[str, str] | None = None) -> Path | None:
    """The emulator's interpreter where it is known already.

    Args:
        project: Folder that may hold `.venv-emulator`.
        environ: Default: this process's.

    Returns:
        `$RUNSFLEET_EMULATOR_PYTHON`, else `<project>/.venv-emulator/bin/python`, else None.

    Raises:
        EmulatorError: The variable names a file that is not there.
    """
    named = (os.environ if environ is None else environ).get(PYTHON_VARIABLE)
    if named:
        if not Path(named).is_file():
            msg = f"{PYTHON_VARIABLE}={named} is not a file; unset it or correct it"
            raise EmulatorError(msg)
        return Path(named)
    local = project / ".venv-emulator" / "bin" / "python"
    return local if local.is_file() else None


def emulator_environment_directory(cache: Path, lock_file: Path = LOCK_FILE) -> Path:
    """Where the managed environment of this lock file and this Python lives."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]
    return cache / f"emulator-py{version}-{digest}"


async def ensure_emulator_environment(
    project: Path | None = None,
    cache: Path | None = None,
    *,
    lock_file: Path = LOCK_FILE,
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """The emulator's interpreter, made on first use.

    Args:
        project: Folder looked into first; default: the working directory.
        cache: Where a managed environment is kept; default `$XDG_CACHE_HOME/runsfleet`.
        lock_file: Pinned requirements with hashes.
        progress: Told one line when an install begins.

    Returns:
        The interpreter to run the emulator with.

    Raises:
        EmulatorError: The install failed; the message holds pip's last words.
    """
    found = find_emulator_python(project or Path.cwd())
    if found:
        return found
    directory = emulator_environment_directory(cache or _default_cache(), lock_file)
    python = directory / "bin" / "python"
    # written last: an interrupted install is done again
    complete = directory / ".complete"
    if not complete.is_file():
        progress("installing the AWS emulator (once)")
        await asyncio.to_thread(_install, directory, python, lock_file)
        complete.touch()
    return python


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "runsfleet"


def _install(directory: Path, python: Path, lock_file: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    commands: tuple[list[str], ...] = (
        [sys.executable, "-m", "venv", "--clear", str(directory)],
        [
            *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--require-hashes", "--requirement", str(lock_file)),
        ],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            msg = (
                f"installing the emulator failed: {' '.join(command)}: "
                f"{(done.stderr or done.stdout).strip()[-_LOG_TAIL_CHARACTERS:]}"
            )
            raise EmulatorError(msg)
