"""The first script of an instance, run for real against a metadata service and an S3 of our own."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
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
from runsfleet_runtime.contract.environment import AgentEnvironment

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


def package() -> bytes:
    """Return an agent package."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("runsfleet_runtime/__init__.py", "")
        archive.writestr("runsfleet_runtime/agent/__init__.py", "")
        archive.writestr("runsfleet_runtime/agent/__main__.py", AGENT)
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


def script(*, sha256: str | None = None, setup: tuple[str, ...] = ()) -> str:
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
        setup_commands=setup,
    )


class Instance:
    """A folder that plays an instance: its home, and a shutdown that leaves a note."""

    def __init__(self, folder: Path, cloud: str) -> None:
        self.home = folder / "home"
        self._user_data = folder / "user-data"
        tools = folder / "bin"
        tools.mkdir()
        for name in ("shutdown", "poweroff"):
            tool = tools / name
            tool.write_text(f'#!/bin/bash\necho "{name} $*" >> {folder}/ended\n')
            tool.chmod(0o755)
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
        return subprocess.Popen(
            [str(self._user_data)],
            env={**self._environ, **environ},
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
        )

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
def instance(tmp_path: Path, cloud: str) -> Instance:
    """An instance that has not started yet."""
    return Instance(tmp_path, cloud)


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


def test_agent_that_fails_ends_the_instance(instance: Instance) -> None:
    """The status of the agent is passed on and the instance is shut down once."""
    process = instance.start(script(), AGENT_STATUS="3")
    process.communicate(timeout=60)
    assert process.returncode == 3
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
    """The script is well below EC2's limit, and one that is not is refused with the cure."""
    assert len(script().encode()) < MAX_BYTES / 2
    with pytest.raises(ValueError, match="move setup_commands into an image"):
        script(setup=("#" * MAX_BYTES,))
