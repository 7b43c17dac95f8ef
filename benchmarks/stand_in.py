"""Just enough of AWS, GitHub and the instance metadata service for a first event.

Answers at once and says the same to everyone, so that what is measured is the client. It is no
emulator: what the answers have to be right about is proven by the tests.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs

INSTANCE_ID: Final = "i-0123456789abcdef0"

_FLEET: Final = f"""<?xml version="1.0" encoding="UTF-8"?>
<CreateFleetResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<requestId>1</requestId><fleetId>fleet-1</fleetId><errorSet/><fleetInstanceSet><item>
<launchTemplateAndOverrides><overrides><instanceType>c7g.xlarge</instanceType>
<availabilityZone>us-east-1a</availabilityZone></overrides></launchTemplateAndOverrides>
<lifecycle>spot</lifecycle><instanceIds><item>{INSTANCE_ID}</item></instanceIds>
<instanceType>c7g.xlarge</instanceType></item></fleetInstanceSet></CreateFleetResponse>"""
_KEYS: Final = {
    "Code": "Success",
    "Type": "AWS-HMAC",
    "AccessKeyId": "ASIAEXAMPLE",
    "SecretAccessKey": "secret",
    "Token": "token",
    "LastUpdated": "2026-01-01T00:00:00Z",
    "Expiration": "2099-01-01T00:00:00Z",
}
_METADATA: Final = {
    "/latest/meta-data/instance-id": INSTANCE_ID,
    "/latest/meta-data/iam/security-credentials/": "runner",
    "/latest/meta-data/iam/security-credentials/runner": json.dumps(_KEYS),
    "/latest/dynamic/instance-identity/document": json.dumps(
        {"instanceId": INSTANCE_ID, "pendingTime": "2026-01-01T00:00:00Z"}
    ),
}


class StandIn:
    """A server on a free port of this machine.

    Args:
        secrets: Values by the name of the secret.

    Attributes:
        url: Its address, for AWS, GitHub and the metadata service alike.
        requests: Names of the requests so far, each with the time of its arrival.
        items: The attributes of the one item that every table has.
    """

    def __init__(self, secrets: dict[str, str]) -> None:
        self.secrets = secrets
        self.items: dict[str, Any] = {}
        self.requests: list[tuple[str, float]] = []
        self.arrived = threading.Condition()
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @contextmanager
    def running(self) -> Iterator[StandIn]:
        """Serve inside the ``with`` block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def note(self, name: str) -> None:
        """Remember that a request arrived."""
        with self.arrived:
            self.requests.append((name, time.perf_counter()))
            self.arrived.notify_all()

    def wait_for(self, name: str, *, since: float, seconds: float) -> float:
        """Return when the first such request after ``since`` arrived.

        Raises:
            TimeoutError: If none arrives.
        """

        def found() -> float:
            return next((at for what, at in self.requests if what == name and at >= since), 0.0)

        with self.arrived:
            if not self.arrived.wait_for(lambda: found() > 0, seconds):
                raise TimeoutError(f"no {name} within {seconds:g} s")
            return found()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_args: object) -> None:
        """Stay quiet: processes that are measured leave without a word."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        target = self.headers.get("x-amz-target", "")
        if target:
            name = target.rpartition(".")[2]
            self.stand_in.note(name)
            kind = self.headers["content-type"]
            self._answer(json.dumps(self._aws(name, json.loads(body))), kind)
        elif self.path == "/":
            self.stand_in.note(parse_qs(body.decode())["Action"][0])
            self._answer(_FLEET, "text/xml")
        else:
            self._answer(json.dumps(self._github()), "application/json", 201)

    def do_PUT(self) -> None:
        self._answer("token", "text/plain", seconds="21600")

    def do_GET(self) -> None:
        if self.path in _METADATA:
            self._answer(_METADATA[self.path], "text/plain")
        else:
            self._answer(json.dumps(self._github()), "application/json")

    def _aws(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        if name == "GetSecretValue":
            return {"SecretString": self.stand_in.secrets[asked["SecretId"]]}
        if name == "SendMessage":
            return {"MessageId": "1", "MD5OfMessageBody": "", "SequenceNumber": "1"}
        if name == "GetItem" and self.stand_in.items:
            return {"Item": self.stand_in.items}
        return {}

    def _github(self) -> Any:
        if self.path.endswith("/access_tokens"):
            return {"token": "t", "expires_at": "2099-01-01T00:00:00Z"}
        if self.path.endswith("/generate-jitconfig"):
            runner = {"id": 1, "name": f"runsfleet-{INSTANCE_ID}"}
            return {"runner": runner, "encoded_jit_config": "A" * 4600}
        return [
            {
                "os": "linux",
                "architecture": "arm64",
                "download_url": f"{self.stand_in.url}/runner.tar.gz",
                "filename": "actions-runner-linux-arm64-2.400.0.tar.gz",
                "sha256_checksum": "0" * 64,
            }
        ]

    def _answer(self, text: str, kind: str, status: int = 200, seconds: str = "") -> None:
        body = text.encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        if seconds:
            head += f"x-aws-ec2-metadata-token-ttl-seconds: {seconds}\r\n"
        # in one piece: two would wait for each other's acknowledgement
        self.wfile.write(f"{head}\r\n".encode() + body)

    def log_message(self, *_args: object) -> None:
        """Stay quiet."""
