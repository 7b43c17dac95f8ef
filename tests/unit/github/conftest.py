"""A GitHub in memory: verifies App JWTs for real, keeps runners, records every request."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from runsfleet_runtime.contract.environment import GitHubEnvironment, RunnerLevel
from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github.gateway import GitHubGateway
from runsfleet_runtime.github.transport import Answer, TransportError

API = "https://github.example/api/v3"
APP_ID = 4711
INSTALLATION = 99
REFERENCE = "secretsmanager:app"


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


class Secrets:
    """Secrets in memory; ``refresh`` shows the rotated value."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.rotated: str | None = None

    def read(self, reference: str) -> str:
        assert reference == REFERENCE
        return self.value

    def refresh(self, reference: str) -> str:
        self.value = self.rotated or self.value
        return self.read(reference)


@dataclass(frozen=True)
class Request:
    """One recorded request; the path is that below the API's base."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: Any

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    """Make an answer with a JSON body; underscores of header names become dashes."""
    content = b"" if body is None else json.dumps(body).encode()
    return Answer(status, {k.replace("_", "-"): v for k, v in headers.items()}, content)


def iso(moment: float) -> str:
    """Write epoch seconds like GitHub."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class FakeGitHub:
    """Answers like the REST API; ``script`` holds answers that come first, by ``METHOD path``."""

    clock: Clock
    public_key: Any
    installations: dict[str, int] = field(default_factory=lambda: {"octo": INSTALLATION})
    runners: dict[int, dict[str, Any]] = field(default_factory=dict)
    jobs: dict[int, str] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    script: dict[str, list[Answer | Exception]] = field(default_factory=dict)
    jwts: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,
    ) -> Answer:
        assert timeout > 0
        assert url.startswith(API)
        parts = urlsplit(url[len(API) :])
        request = Request(
            method,
            parts.path,
            parse_qs(parts.query),
            headers,
            json.loads(body) if body else None,
        )
        with self.lock:
            self.requests.append(request)
            scripted = self.script.get(request.line)
            if scripted:
                first = scripted.pop(0)
                if isinstance(first, Exception):
                    raise first
                return first
            return self._route(request)

    def _route(self, request: Request) -> Answer:
        bearer = request.headers["authorization"].removeprefix("Bearer ")
        if request.path.endswith("/installation") or request.path.startswith("/app/"):
            return self._as_app(request, bearer)
        if bearer not in self.tokens:
            return answer(401, {"message": "Bad credentials"})
        routes: list[tuple[str, Callable[[Request, re.Match[str]], Answer]]] = [
            (r"POST .*/actions/runners/generate-jitconfig", self._jit),
            (r"GET .*/actions/runners/downloads", self._downloads),
            (r"POST .*/actions/runners/registration-token", self._registration_token),
            (r"GET .*/actions/runners", self._list),
            (r"DELETE .*/actions/runners/(\d+)", self._delete),
            (r"GET .*/actions/jobs/(\d+)", self._job),
        ]
        for pattern, route in routes:
            match = re.fullmatch(pattern, request.line)
            if match:
                return route(request, match)
        return answer(404, {"message": "Not Found"})

    def _as_app(self, request: Request, token: str) -> Answer:
        try:
            claims = jwt.decode(
                token,
                self.public_key,
                algorithms=["RS256"],
                options={"verify_exp": False, "verify_iat": False},
            )
        except jwt.PyJWTError:
            return answer(401, {"message": "A JSON web token could not be decoded"})
        self.jwts.append(claims)
        if request.path.endswith("/installation"):
            found = self.installations.get(request.path.split("/")[2])
            return answer(200, {"id": found}) if found else answer(404, {"message": "Not Found"})
        installation = int(request.path.split("/")[3])
        if installation not in self.installations.values():
            return answer(404, {"message": "Not Found"})
        value = f"ghs_{APP_ID}_{len(self.tokens)}_{'x' * 400}"
        self.tokens[value] = installation
        return answer(201, {"token": value, "expires_at": iso(self.clock() + 3600)})

    def _jit(self, request: Request, _: re.Match[str]) -> Answer:
        name = request.body["name"]
        if any(runner["name"] == name for runner in self.runners.values()):
            return answer(409, {"message": "Already exists"})
        runner = {"id": 500 + len(self.requests), "name": name, "busy": False}
        self.runners[runner["id"]] = runner
        return answer(201, {"runner": runner, "encoded_jit_config": f"jit-of-{name}"})

    def _registration_token(self, _request: Request, _: re.Match[str]) -> Answer:
        count = sum("registration-token" in request.path for request in self.requests)
        body = {"token": f"registration-{count}", "expires_at": iso(self.clock() + 3600)}
        return answer(201, body)

    def _downloads(self, _request: Request, _: re.Match[str]) -> Answer:
        return answer(
            200,
            [
                {
                    "os": system,
                    "architecture": architecture,
                    "download_url": f"https://github.example/{system}-{architecture}.tar.gz",
                    "filename": f"actions-runner-{system}-{architecture}-2.337.0.tar.gz",
                    "sha256_checksum": "AB" * 32,
                }
                for system, architecture in (("linux", "x64"), ("linux", "arm64"), ("win", "x64"))
            ],
        )

    def _list(self, _request: Request, _: re.Match[str]) -> Answer:
        # without the filter of the real one: the client must compare names itself
        runners = list(self.runners.values())
        return answer(200, {"total_count": len(runners), "runners": runners})

    def _delete(self, _request: Request, match: re.Match[str]) -> Answer:
        runner = self.runners.get(int(match[1]))
        if runner is None:
            return answer(404, {"message": "Not Found"})
        if runner["busy"]:
            return answer(422, {"message": "Runner is currently running a job"})
        del self.runners[int(match[1])]
        return answer(204)

    def _job(self, _request: Request, match: re.Match[str]) -> Answer:
        status = self.jobs.get(int(match[1]))
        return answer(200, {"status": status}) if status else answer(404, {"message": "Not Found"})

    def lines(self) -> list[str]:
        return [request.line for request in self.requests]


def pem(key: rsa.RSAPrivateKey) -> str:
    """Write a key in the form of the file that GitHub offers."""
    return key.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    ).decode()


@pytest.fixture(scope="session")
def private_key() -> rsa.RSAPrivateKey:
    """Make the App's key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def app_secret(private_key: rsa.RSAPrivateKey) -> str:
    """Write the App's secret."""
    return json.dumps({"app_id": APP_ID, "private_key": pem(private_key)})


@pytest.fixture
def clock() -> Clock:
    """Stop the time."""
    return Clock()


@pytest.fixture
def secrets(app_secret: str) -> Secrets:
    """Hold the App's secret."""
    return Secrets(app_secret)


@pytest.fixture
def github(clock: Clock, private_key: rsa.RSAPrivateKey) -> FakeGitHub:
    """Make a GitHub on which the App is installed at ``octo``."""
    return FakeGitHub(clock, private_key.public_key())


@pytest.fixture
def connect(github: FakeGitHub, clock: Clock, secrets: Secrets) -> Callable[..., GitHubGateway]:
    """Make a gateway to the GitHub in memory."""

    def make(level: RunnerLevel = RunnerLevel.ORGANIZATION, **options: Any) -> GitHubGateway:
        environment = GitHubEnvironment(
            github_app_secret=REFERENCE,
            github_api_url=API,
            github_server_url="https://github.example",
            runner_group_id=options.pop("runner_group_id", 1),
        )
        return GitHubGateway.connect(
            environment,
            level=level,
            secrets=secrets,
            transport=github,
            clock=clock,
            sleep=clock.sleep,
            uniform=lambda: 0.5,
            **options,
        )

    return make


@pytest.fixture
def job() -> JobMessage:
    """Make a job with labels that tempt to be normalised."""
    return JobMessage(
        job_id=55_812_345_678,
        run_id=19_512_345_678,
        run_attempt=1,
        repository="octo/spoon",
        labels=("runs-fleet=1/runner=4cpu-linux-arm64", " Spaced  Label ", "ÜNICODE"),
        queued_at=1_800_000_000.0,
        installation_id=INSTALLATION,
    )


@pytest.fixture
def say() -> Callable[..., Answer]:
    """Make an answer for a script."""
    return answer


@pytest.fixture
def silence() -> Callable[[], TransportError]:
    """Make a request that gets no answer."""
    return lambda: TransportError("read timed out")
