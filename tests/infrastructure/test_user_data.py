"""The first script of an instance, run for real against a metadata service and an S3 of our own."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import Request

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from runsfleet_constructs.boot import fetch_agent
from runsfleet_constructs.user_data import MAX_BYTES, AgentDownload, render_user_data
from runsfleet_runtime.contract.environment import AgentEnvironment, WatchdogEnvironment

KEYS = {"AccessKeyId": "AKIATEST", "SecretAccessKey": "secret/+", "Token": "session=="}
AGENT = """
import json, os, pathlib, signal, sys, time
home = pathlib.Path.cwd()
(home / "agent.json").write_text(json.dumps(dict(os.environ)))
if os.environ.get("HOLD"):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    (home / "ready").touch()
    time.sleep(30)
sys.exit(int(os.environ.get("AGENT_STATUS", "0")))
"""
LAST_WORDS = """
import pathlib, sys
pathlib.Path("last_words").write_text(sys.argv[1])
"""


def package() -> bytes:
    """Return an agent package."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("runsfleet_runtime/__init__.py", "")
        archive.writestr("runsfleet_runtime/agent/__init__.py", "")
        archive.writestr("runsfleet_runtime/agent/__main__.py", AGENT)
        archive.writestr("runsfleet_runtime/agent/last_words.py", LAST_WORDS)
    return body.getvalue()


class Cloud(http.server.BaseHTTPRequestHandler):
    """IMDSv2 and one bucket, which checks the signature with botocore's own signer."""

    body: ClassVar[bytes] = b""
    refusals: ClassVar[int] = 0
    requests: ClassVar[list[tuple[str, str]]] = []

    def do_PUT(self) -> None:
        """Hand out a metadata token."""
        self._answer(b"a-token" if "X-aws-ec2-metadata-token-ttl-seconds" in self.headers else b"")

    def do_GET(self) -> None:
        """Answer for the metadata service or the bucket."""
        Cloud.requests.append((self.path, self.headers.get("Authorization", "")))
        if self.path.startswith("/latest/meta-data/"):
            assert self.headers["X-aws-ec2-metadata-token"] == "a-token"
            if self.path.endswith("/security-credentials/"):
                return self._answer(b"the-role\n")
            return self._answer(json.dumps(KEYS).encode())
        if Cloud.refusals:
            Cloud.refusals -= 1
            return self._answer(b"slow down", 503)
        if not self._is_signed():
            return self._answer(b"SignatureDoesNotMatch", 403)
        return self._answer(Cloud.body)

    def _is_signed(self) -> bool:
        names = ("x-amz-content-sha256", "x-amz-date", "x-amz-security-token", "host")
        headers = {name: self.headers[name] for name in names}
        request = AWSRequest("GET", f"http://{headers['host']}{self.path}", headers=headers)
        credentials = Credentials(KEYS["AccessKeyId"], KEYS["SecretAccessKey"], KEYS["Token"])
        signer = S3SigV4Auth(credentials, "s3", "eu-west-1")
        request.context["timestamp"] = headers["x-amz-date"]
        canonical = signer.canonical_request(request)
        signature = signer.signature(signer.string_to_sign(request, canonical), request)
        return self.headers["Authorization"].endswith(f"Signature={signature}")

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Stay silent."""


@pytest.fixture
def cloud() -> Iterator[str]:
    """The address of a metadata service and an S3."""
    Cloud.body, Cloud.refusals, Cloud.requests = package(), 0, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


LIMITS = WatchdogEnvironment(watchdog_lifetime_seconds=600)


def script(
    *,
    sha256: str | None = None,
    setup: tuple[str, ...] = (),
    watchdog: WatchdogEnvironment = LIMITS,
) -> str:
    """Render the script for a bucket with the package."""
    return render_user_data(
        environment=AgentEnvironment(
            fleet="dev",
            platform="linux-x64",
            region="eu-west-1",
            termination_queue_url="https://sqs.eu-west-1.amazonaws.com/1/it's",
            instance_role_id="AROAEXAMPLE",
        ),
        agent=AgentDownload(
            bucket="assets",
            key="a key.zip",
            sha256=sha256 or hashlib.sha256(package()).hexdigest(),
            region="eu-west-1",
            url_suffix="amazonaws.com",
        ),
        watchdog=watchdog,
        setup_commands=setup,
    )


class Instance:
    """A folder that plays an instance: its home, and a shutdown that leaves a note."""

    def __init__(self, folder: Path, cloud: str) -> None:
        self.home = folder / "home"
        self._user_data = folder / "user-data"
        self._tools = tools = folder / "bin"
        tools.mkdir()
        for name in ("shutdown", "poweroff"):
            self._tool(name, f'echo "{name} $*" >> {folder}/ended')
        # the init of this machine is not the instance's; `with_systemd` plays one
        self._tool("systemd-run", "exit 1")
        self._folder, self._processes = folder, list[subprocess.Popen[str]]()
        self._ended = folder / "ended"
        self._environ = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "RUNSFLEET_HOME": str(self.home),
            "AWS_ENDPOINT_URL": cloud,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{cloud}/",
        }

    def start(self, text: str, **environ: str) -> subprocess.Popen[str]:
        """Run user data as cloud-init does: as an executable file."""
        self._user_data.write_text(text)
        self._user_data.chmod(0o700)
        process = subprocess.Popen(
            [str(self._user_data)],
            env={**self._environ, **environ},
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def with_systemd(self) -> None:
        """Have an init that notes what it is asked for and runs what is no timer."""
        self._tool(
            "systemd-run",
            "\n".join(
                (
                    f"{{ printf '%s ' \"$@\" | tr '\\n' ' '; echo; }} >> {self._folder}/units",
                    'for one; do case "$one" in --on-active=*) exit 0 ;; --*) shift ;; esac; done',
                    '"$@" </dev/null >/dev/null 2>&1 &',
                )
            ),
        )
        self._tool("systemctl", f'echo "$*" >> {self._folder}/units')

    @property
    def units(self) -> list[str]:
        """What init was asked for, a line each."""
        return (self._folder / "units").read_text().splitlines()

    def destroy(self) -> None:
        """End what still runs of it, as the machine's end would: the watchdog for one."""
        mark = f"RUNSFLEET_HOME={self.home}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
        for process in self._processes:
            process.communicate(timeout=30)

    def await_end(self, seconds: float = 30.0) -> None:
        """Wait until the instance was shut down."""
        deadline = time.monotonic() + seconds
        while not self.ended and time.monotonic() < deadline:
            time.sleep(0.05)

    def _tool(self, name: str, command: str) -> None:
        tool = self._tools / name
        tool.write_text(f"#!/bin/bash\n{command}\n")
        tool.chmod(0o755)

    @property
    def ended(self) -> list[str]:
        """The shutdowns so far."""
        return self._ended.read_text().splitlines() if self._ended.exists() else []

    @property
    def agent_environment(self) -> dict[str, str] | None:
        """The agent's environment, once it has started."""
        note = self.home / "agent.json"
        return dict(json.loads(note.read_text())) if note.exists() else None


@pytest.fixture
def instance(tmp_path: Path, cloud: str) -> Iterator[Instance]:
    """An instance that has not started yet."""
    made = Instance(tmp_path, cloud)
    yield made
    made.destroy()


def test_agent_runs_with_its_environment_and_the_instance_ends(
    instance: Instance, cloud: str
) -> None:
    """The package is fetched by a signed request, the agent finds its variables, then it ends."""
    process = instance.start(script(setup=("export FROM_SETUP=yes",)))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    environ = instance.agent_environment
    assert environ is not None
    agent = AgentEnvironment.from_environ(environ)
    assert agent.termination_queue_url == "https://sqs.eu-west-1.amazonaws.com/1/it's"
    assert environ["AWS_REGION"] == "eu-west-1"
    assert environ["AWS_ENDPOINT_URL"] == cloud
    assert environ["FROM_SETUP"] == "yes"
    assert instance.ended == ["shutdown -h now"]
    assert ("/assets/a%20key.zip") in [path for path, _ in Cloud.requests]
    assert "secret" not in output
    assert not (instance.home / "last_words").exists()


def test_agent_that_fails_ends_the_instance(instance: Instance) -> None:
    """The status of the agent is told and passed on, and the instance is shut down once."""
    process = instance.start(script(), AGENT_STATUS="3")
    process.communicate(timeout=60)
    assert process.returncode == 3
    assert (instance.home / "last_words").read_text() == "3"
    assert instance.ended == ["shutdown -h now"]


def test_setup_that_fails_ends_the_instance_before_anything_runs(instance: Instance) -> None:
    """No agent runs on a machine that was not set up, and the machine does not stay."""
    process = instance.start(script(setup=("false",)))
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert instance.agent_environment is None
    assert instance.ended == ["shutdown -h now"]


def test_a_stop_reaches_the_agent(instance: Instance) -> None:
    """A SIGTERM to the script is handed on, and the agent may finish before the end."""
    process = instance.start(script(), HOLD="1")
    deadline = time.monotonic() + 30
    while not (instance.home / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 7
    assert instance.ended == ["shutdown -h now"]


def ready(instance: Instance) -> None:
    """Wait until the agent runs."""
    deadline = time.monotonic() + 30
    while not (instance.home / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_agent_that_falls_silent_ends_the_instance(instance: Instance) -> None:
    """Signs of life keep an instance, however few; without them the watchdog shuts it down."""
    limits = WatchdogEnvironment(watchdog_lifetime_seconds=600, watchdog_silence_seconds=3)
    instance.start(script(watchdog=limits), HOLD="1")
    ready(instance)
    for _ in range(5):
        (instance.home / "heartbeat").touch()
        time.sleep(1)
    assert instance.ended == []
    instance.await_end()
    assert len(instance.ended) == 1
    assert instance.ended[0].startswith("shutdown -h now runsfleet watchdog: no sign of life")


def test_agent_that_never_starts_ends_the_instance(instance: Instance) -> None:
    """Setup commands that hang are no way to keep an instance."""
    limits = WatchdogEnvironment(watchdog_lifetime_seconds=600, watchdog_start_seconds=2)
    instance.start(script(setup=("sleep 300",), watchdog=limits))
    instance.await_end()
    assert instance.agent_environment is None
    assert instance.ended[0].endswith("no sign of life from the agent for 10 s")


def test_no_instance_lives_beyond_its_limit(instance: Instance) -> None:
    """However alive the agent seems: the shutdown comes when the whole time is over."""
    limits = WatchdogEnvironment(watchdog_lifetime_seconds=2, watchdog_silence_seconds=30)
    instance.start(script(watchdog=limits), HOLD="1")
    instance.await_end()
    assert "alive for 2 s, longer than any job may be" in instance.ended[0]


def test_script_that_is_killed_ends_the_instance(instance: Instance) -> None:
    """The watchdog needs neither the script nor the agent."""
    limits = WatchdogEnvironment(watchdog_lifetime_seconds=600, watchdog_silence_seconds=2)
    process = instance.start(script(watchdog=limits), HOLD="1")
    ready(instance)
    process.kill()
    (instance.home / "heartbeat").touch()
    instance.await_end()
    assert "no sign of life" in instance.ended[0]


def test_init_keeps_the_watchdog_where_there_is_one(instance: Instance) -> None:
    """Under systemd the watchdog is a unit, beside a timer and a unit for the next boot."""
    instance.with_systemd()
    limits = WatchdogEnvironment(watchdog_lifetime_seconds=600, watchdog_silence_seconds=2)
    process = instance.start(script(setup=("sleep 300",), watchdog=limits))
    deadline = time.monotonic() + 30
    while (not instance.home.exists() or len(instance.units) < 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    watchdog, lifetime, reboot = instance.units
    assert "--unit=runsfleet-watchdog bash -c watchdog ()" in watchdog
    assert "--unit=runsfleet-lifetime --on-active=660 shutdown -h now" in lifetime
    unit = instance.home / "runsfleet-rebooted.service"
    assert reboot == f"--quiet enable {unit}"
    assert "shutdown -h now" in unit.read_text()
    process.kill()
    (instance.home / "heartbeat").touch()
    instance.await_end()
    assert "no sign of life" in instance.ended[0]


def test_busy_bucket_is_asked_again(
    cloud: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two answers of 503 delay the agent and no more."""
    Cloud.refusals = 2
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", cloud)
    fetch_agent.fetch(str(tmp_path), download_environment(cloud))
    assert (tmp_path / "runsfleet_runtime" / "agent" / "__main__.py").is_file()
    assert pauses == [2, 4]


def test_agent_that_is_there_already_is_not_downloaded(
    cloud: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image or an earlier boot saves the download, but only for the very same package."""
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", cloud)
    environ = download_environment(cloud)
    fetch_agent.fetch(str(tmp_path), environ)
    Cloud.requests.clear()
    fetch_agent.fetch(str(tmp_path), environ)
    assert Cloud.requests == []
    (tmp_path / fetch_agent.MARKER).write_text("0" * 64)
    fetch_agent.fetch(str(tmp_path), environ)
    assert Cloud.requests != []


def test_package_that_is_not_ours_is_not_unpacked(
    cloud: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another package under the same key ends the script, and the log tells both digests."""
    Cloud.body = package() + b"more"
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", cloud)
    with pytest.raises(SystemExit, match="no agent"):
        fetch_agent.fetch(str(tmp_path), download_environment(cloud))
    assert not list(tmp_path.iterdir())
    printed = capsys.readouterr().out
    assert printed.count("its sha-256 is") == fetch_agent.ATTEMPTS
    assert "secret" not in printed


def download_environment(cloud: str) -> dict[str, str]:
    """Return the variables that the script sets for the download."""
    return {
        "AWS_ENDPOINT_URL": cloud,
        "AWS_REGION": "eu-west-1",
        "RUNSFLEET_AGENT_BUCKET": "assets",
        "RUNSFLEET_AGENT_KEY": "a key.zip",
        "RUNSFLEET_AGENT_SHA256": hashlib.sha256(package()).hexdigest(),
        "RUNSFLEET_AGENT_URL_SUFFIX": "amazonaws.com",
    }


def test_bucket_of_the_real_cloud_is_addressed_by_its_host() -> None:
    """Without another endpoint the bucket is part of the host name, in any partition."""
    environ = {**download_environment(""), "RUNSFLEET_AGENT_URL_SUFFIX": "amazonaws.com.cn"}
    url = fetch_agent.address(environ)
    assert url == "https://assets.s3.eu-west-1.amazonaws.com.cn/a%20key.zip"
    request: Request = fetch_agent.signed(url, "eu-west-1", KEYS, 0.0)
    assert request.get_header("X-amz-date") == "19700101T000000Z"


def test_script_fits_into_user_data() -> None:
    """A third of EC2's limit is left for setup commands; a script that needs more is refused."""
    assert len(script().encode()) < MAX_BYTES * 2 / 3
    with pytest.raises(ValueError, match="move setup_commands into an image"):
        script(setup=("#" * MAX_BYTES,))
