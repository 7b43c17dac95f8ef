"""A small client of the GitHub stand-in for tests: an App that signs, a token that calls."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from typing_extensions import override

from runsfleet_cli.local.github import BackgroundStandIn


class Headers(dict[str, str]):
    """Headers, whose names ignore case."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__({name.lower(): value for name, value in pairs})

    @override
    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())


@dataclass(frozen=True)
class Answer:
    """An answer of the API."""

    status: int
    headers: Headers
    content: bytes

    @property
    def json(self) -> Any:
        """Answer the parsed body."""
        return json.loads(self.content) if self.content else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Shows redirects instead of following them."""

    @override
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def fetch(
    method: str,
    url: str,
    *,
    token: str | None = None,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request and answer what came back, whatever its status."""
    request = urllib.request.Request(  # noqa: S310 - the stand-in's own address
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Accept": "application/vnd.github+json", **(headers or {})},
    )
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Redirects())
    try:
        with opener.open(request, timeout=30) as answer:
            return Answer(answer.status, Headers(answer.headers.items()), answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, Headers(error.headers.items()), error.read())


def app_jwt(github: BackgroundStandIn, **claims: object) -> str:
    """Sign a JWT for the default App; claims replace the good ones."""
    now = int(github.stand_in.world.clock())
    good: dict[str, object] = {
        "iat": now - 60,
        "exp": now + 540,
        "iss": github.stand_in.app.client_id,
    }
    merged = {key: value for key, value in (good | claims).items() if value is not None}
    return jwt.encode(merged, github.stand_in.private_key, algorithm="RS256")


def installation_token(
    github: BackgroundStandIn, repository: str = "octo-org/hello", **body: object
) -> str:
    """Get an installation token over the API."""
    signed = app_jwt(github)
    found = fetch("GET", f"{github.url}/repos/{repository}/installation", token=signed)
    url = f"{github.url}/app/installations/{found.json['id']}/access_tokens"
    return str(fetch("POST", url, token=signed, body=body).json["token"])


def control(github: BackgroundStandIn, method: str, path: str, body: object = None) -> Any:
    """Call the control API and answer the JSON; a refusal fails the test."""
    answer = fetch(method, f"{github.url}/_control{path}", body=body)
    assert answer.status < 400, answer.content
    return answer.json


@dataclass
class Received:
    """A webhook that arrived."""

    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:
        """Answer the parsed body."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """A webhook receiver; ``status`` and ``delay`` (seconds) say how it answers."""

    url: str = ""
    status: int = 202
    delay: float = 0.0
    received: list[Received] = field(default_factory=list)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Serve a webhook receiver on a free port."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(state.delay)
            state.received.append(Received(Headers(self.headers.items()), body))
            self.send_response(state.status)
            self.end_headers()
            self.wfile.write(b"noted")

        @override
        def log_message(self, *_args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/webhook"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def until(condition: Any, *, seconds: float = 10.0) -> bool:
    """Wait until a condition holds; answers whether it did in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
