"""Little real servers for the agent's tests."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator


class ImdsState:
    """What the metadata service answers, and what it was asked.

    Attributes:
        instance_id: The instance.
        pending_time: Of the identity document; ``None`` leaves the document out.
        failures: How many requests are answered with 503 first.
        expired_tokens: How many times a valid token is refused first.
        spot: The spot notice; ``None`` for none.
        rebalance: The rebalance notice; ``None`` for none.
        requests: Method and path of every request.
    """

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.pending_time: str | None = "2026-11-20T10:00:00Z"
        self.failures = 0
        self.expired_tokens = 0
        self.spot: str | None = None
        self.rebalance: str | None = None
        self.requests: list[str] = []
        self.url = ""

    def get(self, path: str, token: str | None) -> tuple[int, str]:
        if token != "the-token":
            return 401, ""
        if self.expired_tokens:
            self.expired_tokens -= 1
            return 401, ""
        body = self.answer(path)
        return (404, "") if body is None else (200, body)

    def answer(self, path: str) -> str | None:
        if path == "/latest/meta-data/instance-id":
            return self.instance_id
        if path == "/latest/dynamic/instance-identity/document" and self.pending_time:
            return json.dumps({"instanceId": self.instance_id, "pendingTime": self.pending_time})
        if path == "/latest/meta-data/spot/instance-action":
            return self.spot
        if path == "/latest/meta-data/events/recommendations/rebalance":
            return self.rebalance
        if path == "/latest/meta-data/iam/security-credentials/":
            return "runner-role"
        if path == "/latest/meta-data/iam/security-credentials/runner-role":
            return json.dumps(
                {
                    "Code": "Success",
                    "Type": "AWS-HMAC",
                    "AccessKeyId": "test",
                    "SecretAccessKey": "test",
                    "Token": "token",
                    "Expiration": "2099-01-01T00:00:00Z",
                }
            )
        return None


@contextmanager
def imds_server(instance_id: str) -> Iterator[ImdsState]:
    """Serve instance metadata, version 2 only."""
    state = ImdsState(instance_id)

    class Handler(BaseHTTPRequestHandler):
        def respond(self, status: int, body: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def fails(self) -> bool:
            state.requests.append(f"{self.command} {self.path}")
            if state.failures:
                state.failures -= 1
                self.respond(503)
                return True
            return False

        def do_PUT(self) -> None:
            if self.fails():
                return
            ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
            if self.path != "/latest/api/token" or not ttl.isdigit() or int(ttl) > 21600:
                self.respond(400)
            else:
                self.respond(200, "the-token")

        def do_GET(self) -> None:
            if self.fails():
                return
            self.respond(*state.get(self.path, self.headers.get("X-aws-ec2-metadata-token")))

        @override
        def log_message(self, format: str, *args: object) -> None:
            return

    with serving(Handler) as url:
        state.url = url
        yield state


class FileState:
    """What the file server serves, and what it was asked.

    Attributes:
        files: Path -> content, or another address to redirect to.
        cut: Whether answers end in the middle.
        requests: Every path.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes | str] = {}
        self.cut = False
        self.requests: list[str] = []
        self.url = ""


@contextmanager
def file_server() -> Iterator[FileState]:
    """Serve files as GitHub's release downloads do."""
    state = FileState()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            found = state.files.get(self.path)
            if isinstance(found, str):
                self.send_response(302)
                self.send_header("Location", found)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(404 if found is None else 200)
            body = found or b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if state.cut else body)

        @override
        def log_message(self, format: str, *args: object) -> None:
            return

    with serving(Handler) as url:
        state.url = url
        yield state


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of this machine; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
