"""The listener: configures a runner, waits for its job, runs it, reports, and leaves.

Exit codes are the real ones: 0 done, 1 terminated, 2 try again, 5 session conflict, 7 version
deprecated (1 unless ``ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1``). None of them says
how the job ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .execute import JobExecution, LogSender  # noqa: TID252 - packed under another name
from .protocol import (  # noqa: TID252 - packed under another name
    ConnectionLostError,
    Service,
    ServiceError,
    post_json,
)
from .settings import (  # noqa: TID252 - packed under another name
    FILES,
    Settings,
    SettingsError,
    arguments,
    load_environment,
    read_settings,
    write_files,
    write_jit,
)

OK, TERMINATED, RETRYABLE, SESSION_CONFLICT, VERSION_DEPRECATED = 0, 1, 2, 5, 7
POLL_SECONDS = 50.0
CONFLICT_SECONDS = 30.0
LOG_SECONDS = 0.5
CONNECT_ATTEMPTS = 5
SHUTDOWN_NOTE = (
    "The runner has received a shutdown signal. This can happen when the runner service is "
    "stopped, or a manually started runner is canceled."
)
DEPRECATED_VARIABLE = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE"


def say(text: str) -> None:
    """Print a line at once; a supervisor may be reading."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def stamp() -> str:
    """Answer the time as the listener prints it."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())


class Listener:
    """A configured runner.

    Args:
        root: Its root folder.
        settings: Its configuration.
        version: Its version.
    """

    def __init__(self, root: Path, settings: Settings, version: str) -> None:
        self._root = root
        self._settings = settings
        self._version = version
        self._service = Service(settings)
        self._shutdown = threading.Event()
        self._execution: JobExecution | None = None
        self._taking = False
        self._session = ""

    def on_signal(self, _number: int, _frame: object) -> None:
        """Stop: cancel the job if there is one, and leave."""
        say("Exiting...")
        self._shutdown.set()
        if self._execution is not None:
            self._execution.stop("cancelled")
        elif not self._taking:
            # ends a long poll that is under way
            raise KeyboardInterrupt

    def run(self) -> int:
        """Listen until the runner has had its job, is gone or is told to stop."""
        try:
            code = self._connect()
            if code is not None:
                return code
            return self._listen()
        except KeyboardInterrupt:
            return OK
        finally:
            if self._session:
                with contextlib.suppress(ServiceError, ConnectionLostError, KeyboardInterrupt):
                    self._service.call("DELETE", f"/sessions/{self._session}", seconds=5.0)

    def _connect(self) -> int | None:
        """Sign in and open a session; answers an exit code when that is not possible."""
        deadline = time.monotonic() + CONFLICT_SECONDS
        lost = 0
        while True:
            try:
                self._service.sign_in()
                body = {"os": platform.system().lower(), "version": self._version}
                _, answer = self._service.call("POST", "/sessions", body)
                self._session = str(answer["sessionId"])
            except ConnectionLostError as error:
                lost += 1
                if lost >= CONNECT_ATTEMPTS:
                    say(f"An error occurred: cannot connect to the service: {error}")
                    return RETRYABLE
                time.sleep(0.5 * lost)
            except ServiceError as error:
                code = self._refused(error, time.monotonic() < deadline)
                if code is not None:
                    return code
                time.sleep(1.0)
            else:
                say("\n√ Connected to GitHub\n")
                say(f"Current runner version: '{self._version}'")
                say(f"{stamp()}: Listening for Jobs")
                return None

    @staticmethod
    def _refused(error: ServiceError, may_wait: bool) -> int | None:
        """Decide on a refusal: an exit code, or None to try again."""
        if error.status == 409:  # noqa: PLR2004 - conflict
            if may_wait:
                return None
            say("A session for this runner already exists.")
            return SESSION_CONFLICT
        if error.status == 403 and "deprecated" in error.message:  # noqa: PLR2004 - forbidden
            say(f"An error occurred: {error.message}")
            exposed = os.environ.get(DEPRECATED_VARIABLE) in {"1", "true"}
            return VERSION_DEPRECATED if exposed else TERMINATED
        if error.status >= 500:  # noqa: PLR2004 - the service's own fault
            return None if may_wait else RETRYABLE
        say(f"Failed to create a session. The runner registration has been deleted: {error}")
        return TERMINATED

    def _listen(self) -> int:
        pause = 1.0
        while True:
            try:
                status, message = self._service.call(
                    "GET",
                    f"/sessions/{self._session}/message?wait={POLL_SECONDS:g}",
                    seconds=POLL_SECONDS + 15.0,
                )
                pause = 1.0
            except ServiceError as error:
                if error.status in {401, 404}:
                    # an unused JIT runner was dropped by the service: the real one ends with 0
                    say(f"{stamp()}: Runner registration has been deleted from the server.")
                    return OK
                status, message = 0, None
            except ConnectionLostError as error:
                say(f"{stamp()}: Runner connect error: {error}. Retrying until reconnected.")
                status, message = 0, None
            if message is not None and self._take(int(message["jobId"])):
                return OK
            if status == 0:
                time.sleep(pause)
                pause = min(30.0, pause * 2)

    def _take(self, job_id: int) -> bool:
        """Pick a job up and run it; answers whether the runner is done."""
        # from here on a signal must not interrupt: the job would be lost instead of cancelled
        self._taking = True
        try:
            _, job = self._service.call("POST", f"/jobs/{job_id}/acquire", {})
        except (ServiceError, ConnectionLostError) as error:
            say(f"{stamp()}: Job {job_id} could not be picked up: {error}")
            self._taking = False
            return self._shutdown.is_set()
        say(f"{stamp()}: Running job: {job['name']}")
        result = self._run(job)
        say(f"{stamp()}: Job {job['name']} completed with result: {result}")
        self._execution, self._taking = None, False
        return self._settings.ephemeral or self._shutdown.is_set()

    def _run(self, job: dict[str, Any]) -> str:
        path = f"/jobs/{job['jobId']}"
        sender = LogSender(lambda lines: self._tell(f"{path}/log", {"lines": lines}))
        execution = JobExecution(
            job,
            root=self._root,
            work_folder=self._settings.work_folder,
            runner_name=self._settings.name,
            log=sender.add,
        )
        self._execution = execution
        if self._shutdown.is_set():
            execution.stop("cancelled")
        over = threading.Event()
        lost = threading.Event()
        helpers = [
            threading.Thread(
                target=self._renew, args=(path, job["renewSeconds"], execution, over, lost)
            ),
            threading.Thread(target=self._stream, args=(path, sender, execution, over)),
        ]
        for helper in helpers:
            helper.start()
        try:
            conclusion = execution.run()
        except (OSError, ValueError) as error:
            sender.add(f"The runner failed: {error}")
            conclusion = "failure"
        over.set()
        for helper in helpers:
            helper.join()
        if lost.is_set():
            return "Abandoned"
        self._retry(lambda: self._report(path, sender, execution, conclusion))
        return {"success": "Succeeded", "failure": "Failed"}.get(conclusion, "Canceled")

    def _report(
        self, path: str, sender: LogSender, execution: JobExecution, conclusion: str
    ) -> None:
        sender.flush()
        self._service.call("POST", f"{path}/steps", execution.book.as_list())
        body = {"conclusion": conclusion, "outputs": execution.outputs}
        if conclusion == "cancelled" and self._shutdown.is_set():
            body["annotation"] = SHUTDOWN_NOTE
        self._service.call("POST", f"{path}/complete", body)

    @staticmethod
    def _retry(action: Callable[[], None]) -> None:
        for attempt in range(CONNECT_ATTEMPTS):
            try:
                action()
            except ConnectionLostError:
                time.sleep(0.2 * 2**attempt)
            except ServiceError as error:
                if error.status < 500:  # noqa: PLR2004 - it will not change its mind
                    say(f"{stamp()}: The service did not take the result: {error}")
                    return
                time.sleep(0.2 * 2**attempt)
            else:
                return
        say(f"{stamp()}: The result could not be reported.")

    def _tell(self, path: str, body: object) -> None:
        """Report something that is not worth failing for."""
        with contextlib.suppress(ServiceError, ConnectionLostError):
            self._service.call("POST", path, body)

    def _renew(
        self,
        path: str,
        seconds: float,
        execution: JobExecution,
        over: threading.Event,
        lost: threading.Event,
    ) -> None:
        while not over.wait(seconds):
            try:
                _, answer = self._service.call("POST", f"{path}/renew", {})
            except ServiceError as error:
                if error.status in {401, 404, 409}:
                    lost.set()
                    execution.stop("lost")
                    return
            except ConnectionLostError:
                continue
            else:
                if answer["cancelled"]:
                    execution.stop("cancelled")

    def _stream(
        self, path: str, sender: LogSender, execution: JobExecution, over: threading.Event
    ) -> None:
        while not over.wait(LOG_SECONDS):
            sender.flush()
            if execution.book.changed:
                self._tell(f"{path}/steps", execution.book.as_list())


def configure(root: Path, given: dict[str, str]) -> int:
    """Register with a token: what ``config.sh --unattended --url U --token T`` does."""
    url, token = given.get("url"), given.get("token")
    if not url or not token:
        say(
            "Invalid configuration provided for url or token. Terminating unattended configuration."
        )
        return TERMINATED
    if (root / FILES[0]).exists():
        say("Cannot configure the runner because it is already configured.")
        return TERMINATED
    labels = [label for label in given.get("labels", "").split(",") if label]
    if "no-default-labels" not in given:
        machine = {"aarch64": "ARM64", "x86_64": "X64"}.get(platform.machine(), platform.machine())
        labels = ["self-hosted", platform.system(), machine, *labels]
    body = {
        "url": url,
        "token": token,
        "name": given.get("name") or platform.node(),
        "labels": labels,
        "runnergroup": given.get("runnergroup"),
        "work": given.get("work"),
        "ephemeral": "ephemeral" in given,
        "replace": "replace" in given,
    }
    parts = urllib.parse.urlsplit(url)
    try:
        answer = post_json(f"{parts.scheme}://{parts.netloc}/_runner/register", body)
    except (ServiceError, ConnectionLostError) as error:
        say(f"Http response code from 'POST {url}' : {error}")
        return TERMINATED
    write_files(answer["files"], root)
    say("√ Runner successfully added\n√ Settings Saved.")
    return OK


def remove(root: Path, given: dict[str, str]) -> int:
    """Deregister with a remove token; a JIT runner has none and only loses its files."""
    runner = root / FILES[0]
    if not runner.exists():
        say("Does not exist. Skipping Removing runner from the server")
        return OK
    settings = json.loads(runner.read_text(encoding="utf-8"))
    parts = urllib.parse.urlsplit(settings["GitHubUrl"])
    body = {
        "url": settings["GitHubUrl"],
        "token": given.get("token", ""),
        "name": settings["AgentName"],
    }
    try:
        post_json(f"{parts.scheme}://{parts.netloc}/_runner/unregister", body)
    except (ServiceError, ConnectionLostError) as error:
        say(f"Failed: Removing runner from the server: {error}")
        return TERMINATED
    for name in FILES:
        (root / name).unlink(missing_ok=True)
    say("√ Runner removed successfully")
    return OK


def main(argv: Sequence[str]) -> int:
    """Run the listener.

    Args:
        argv: ``run``, ``configure`` or ``remove`` with their arguments, or ``--version``.
    """
    root = Path(__file__).resolve().parent.parent.parent
    version = (root / "bin" / "version").read_text(encoding="utf-8").strip()
    if "--version" in argv:
        say(version)
        return OK
    load_environment(root, os.environ)
    command = argv[0] if argv and not argv[0].startswith("--") else "run"
    given = arguments(argv, os.environ)
    if command == "configure":
        return configure(root, given)
    if command == "remove":
        return remove(root, given)
    try:
        if given.get("jitconfig"):
            write_jit(given["jitconfig"], root)
        settings = read_settings(root)
    except SettingsError as error:
        say(f"An error occurred: {error}")
        return TERMINATED
    listener = Listener(root, settings, version)
    signal.signal(signal.SIGINT, listener.on_signal)
    signal.signal(signal.SIGTERM, listener.on_signal)
    return listener.run()
