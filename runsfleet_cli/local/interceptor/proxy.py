"""The reverse proxy between every client and the emulator.

Lifecycle of a request: read (bodies up to 1 MiB whole, larger ones and those of unknown length
streamed), identified, its caller resolved, the fault rules asked, then answered by the first gap
that wants it (see `emulator_gaps`) or passed on; the answer goes back and a `Call` is recorded.

Gotchas:
    * Host, path, query, body and headers pass byte for byte, so the client's signature stays valid.
      Who changes a body signs it anew with the caller's own key (`Interceptor.rewritten`).
    * Paths under `/_runsfleet/` are the control API (`control.py`); no AWS path begins so.

Example:
    >>> interceptor = Interceptor(region="eu-central-1")
    >>> await interceptor.start()
    >>> await emulator.start(endpoint_for_functions=interceptor.url)
    >>> interceptor.connect(emulator.url, group=emulator.pid)
    >>> ...
    >>> await interceptor.stop()
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import aiohttp
from aiohttp import web

from runsfleet_cli.local.interceptor import control
from runsfleet_cli.local.interceptor.answers import error_answer, refusal_answer, throttle_answer
from runsfleet_cli.local.interceptor.aws_request import Answer, AwsRequest, error_code, identify
from runsfleet_cli.local.interceptor.backend import (
    MAX_LINE,
    Backend,
    InterceptorError,
    end_to_end,
    whole,
)
from runsfleet_cli.local.interceptor.callers import Caller, CallerBook, PeerProcesses
from runsfleet_cli.local.interceptor.calls import Call, CallLog, Outcome
from runsfleet_cli.local.interceptor.faults import CAPACITY_CODE, Decision, FaultBook
from runsfleet_cli.local.interceptor.redact import redact
from runsfleet_cli.local.interceptor.signing import sign

if TYPE_CHECKING:
    import ssl

# SQS messages and Lambda payloads worth reading are smaller; assets and large objects are not
MAX_BUFFERED = 1_048_576
_CHUNK = 65_536
# longer than any SDK keeps an idle connection, so that it is never we who close it
_KEEP_ALIVE_SECONDS = 900.0
_UNRECORDED_PREFIX = "/_ministack/"

Forward = Callable[[AwsRequest], Awaitable[Answer]]


class Gap(Protocol):
    """Something that AWS does and the emulator does not.

    Example: see `emulator_gaps.sqs.FifoDelayRefused`.
    """

    def wants(self, request: AwsRequest) -> bool:
        """Whether this gap concerns the request."""

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Answer it, with or without the emulator's help."""


@dataclass(slots=True)
class _Ending:
    """How a request ended: for the record, and for the client."""

    status: int = 0
    error: str | None = None
    response: web.StreamResponse | None = None


class Interceptor:
    """The proxy, its record and its fault rules.

    Args:
        region: Of unsigned requests.
        log: Where calls are recorded.
        faults: The rules in force.
        tls: Serve https with this context.
        port: 0 means any free one.
        clock: Unix time, seconds.
    """

    def __init__(
        self,
        *,
        region: str,
        log: CallLog | None = None,
        faults: FaultBook | None = None,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.log = log or CallLog()
        self.faults = faults if faults is not None else FaultBook()
        self.backend = Backend(region)
        self.callers = CallerBook(self.backend.list_functions)
        self._region = region
        self._gaps: list[Gap] = []
        self._tls = tls
        self._port = port
        self._clock = clock
        self._peers = PeerProcesses()
        self._peer_of: dict[int, tuple[object, Caller | None]] = {}
        self._group: int | None = None
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """Address for clients, e.g. `http://127.0.0.1:4599`."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def add_gaps(self, gaps: Sequence[Gap]) -> None:
        """Have more gaps asked, after the present ones.

        The first that wants a request answers it, and may forward it to the next that does.
        """
        self._gaps.extend(gaps)

    async def start(self) -> None:
        """Listen.

        Raises:
            InterceptorError: The port is taken.
        """
        self.backend.open()
        server = web.Server(
            self._serve,
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            access_log=None,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self._port, ssl_context=self._tls, backlog=1_024
        )
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            msg = f"port {self._port} is taken; end what listens there or choose another ({error})"
            raise InterceptorError(msg) from error
        self._port = self._runner.addresses[0][1]

    def connect(
        self, backend: str, *, tls: ssl.SSLContext | None = None, group: int | None = None
    ) -> None:
        """Say where requests go.

        Args:
            backend: The emulator's address.
            tls: How to trust it, if it serves https.
            group: Its process group, by which functions are told apart without IAM enforcement.
        """
        self.backend.connect(backend, tls)
        self._group = group

    async def stop(self) -> None:
        """Close everything."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self.backend.close()
        self.log.close()

    async def rewritten(self, request: AwsRequest, body: bytes) -> AwsRequest | None:
        """The request with another body, validly signed; None if the caller's key is unknown."""
        changed = request.with_body(body)
        access_key = request.operation.access_key
        if self.callers.is_root(access_key):
            return changed
        key = self.callers.key(access_key)
        if key is None:
            return None
        sign(changed, access_key, key, scheme="https" if self._tls else "http")
        return changed

    async def forward(self, request: AwsRequest) -> Answer:
        """Pass a request to the emulator, past all gaps."""
        return await self.backend.send(
            request.method, request.target, request.headers, request.body
        )

    # -- a request's way ---------------------------------------------------------------------

    async def _serve(self, incoming: web.BaseRequest) -> web.StreamResponse:
        arrived = self._clock()
        started = time.perf_counter()
        if incoming.raw_path.startswith(control.PREFIX):
            return await control.serve(incoming, self.log, self.faults)
        request = await self._read(incoming, arrived)
        sequence = self.log.next_sequence()
        decision = self.faults.decide(request, arrived) if self.faults else Decision()
        ending = _Ending()
        try:
            if decision.delay:
                await asyncio.sleep(decision.delay)
            if decision.rule is None and _is_streamed(request):
                ending = await self._stream(incoming, request)
            else:
                ending = _ended(incoming, await self._answer(request, decision))
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            message = f"the AWS emulator does not answer: {failure!r}"
            ending = _ended(incoming, error_answer(request, "ServiceUnavailable", 503, message))
        finally:
            if not request.target.startswith(_UNRECORDED_PREFIX):
                self._record(request, sequence, decision, ending, time.perf_counter() - started)
        return ending.response or web.Response(status=502)

    async def _read(self, incoming: web.BaseRequest, arrived: float) -> AwsRequest:
        if incoming.headers.get("Expect", "").lower() == "100-continue":
            # SDKs wait up to a second for this before they send an object's body
            await incoming.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            incoming.writer.output_size = 0
        body = None if _is_large(incoming) else await incoming.read()
        headers = incoming.headers.copy()
        operation = identify(incoming.method, incoming.raw_path, headers, body)
        if not operation.region:
            operation = replace(operation, region=self._region)
        caller = await self.callers.resolve(
            operation.access_key, operation.region, lambda: self._peer(incoming), arrived
        )
        return AwsRequest(
            incoming.method, incoming.raw_path, headers, body, operation, caller, arrived
        )

    async def _answer(self, request: AwsRequest, decision: Decision) -> Answer | None:
        """An answer, or None if the connection is to be closed instead."""
        rule = decision.rule
        if rule is None:
            return await self._through_gaps(request, 0)
        if rule.effect == "drop":
            if rule.when == "after":
                await self._through_gaps(request, 0)
            return None
        if rule.effect == "throttle":
            return throttle_answer(request)
        if rule.effect == "refuse":
            return refusal_answer(request, rule.message)
        message = rule.message or f"fault {rule.id}"
        if rule.effect == "capacity":
            return error_answer(request, rule.code or CAPACITY_CODE, 500, message)
        return error_answer(request, rule.code, rule.status, message)

    async def _through_gaps(self, request: AwsRequest, index: int) -> Answer:
        for position in range(index, len(self._gaps)):
            gap = self._gaps[position]
            if gap.wants(request):

                async def onward(changed: AwsRequest, after: int = position + 1) -> Answer:
                    return await self._through_gaps(changed, after)

                return await gap.answer(request, onward)
        answer = await self.forward(request)
        if request.service in {"sts", "iam"}:
            self.callers.learn(request, answer)
        return answer

    async def _stream(self, incoming: web.BaseRequest, request: AwsRequest) -> _Ending:
        data = incoming.content if request.body is None else (request.body or None)
        async with self.backend.request(
            request.method, request.target, request.headers, data
        ) as received:
            length = received.content_length
            if length is not None and length <= MAX_BUFFERED:
                return _ended(incoming, await whole(request.method, received))
            response = web.StreamResponse(
                status=received.status, headers=end_to_end(received.headers)
            )
            response.content_length = length
            await response.prepare(incoming)
            async for chunk in received.content.iter_chunked(_CHUNK):
                await response.write(chunk)
            await response.write_eof()
            return _Ending(received.status, None, response)

    # -- what is known about it --------------------------------------------------------------

    def _record(
        self,
        request: AwsRequest,
        sequence: int,
        decision: Decision,
        ending: _Ending,
        duration: float,
    ) -> None:
        deciding: tuple[str, ...] = tuple(request.context.get("faults", ()))
        outcome: Outcome = "ok" if ending.error is None and ending.status else "error"
        if decision.rule is not None or deciding:
            outcome = "fault"
        self.log.add(
            Call(
                sequence=sequence,
                time=request.now,
                duration=duration,
                caller=str(request.caller),
                service=request.service,
                action=request.action,
                region=request.operation.region,
                parameters=redact(request.service, request.action, request.parameters),
                status=ending.status,
                outcome=outcome,
                error=ending.error,
                fault=",".join((*decision.applied, *deciding)) or None,
                result=request.notes,
            )
        )

    def _peer(self, incoming: web.BaseRequest) -> Caller | None:
        """What the client's process says, asked once a connection."""
        transport = incoming.transport
        name = transport.get_extra_info("peername") if transport is not None else None
        if name is None or self._group is None:
            return None
        port: int = name[1]
        known = self._peer_of.get(port)
        if known is None or known[0] is not transport:
            known = (transport, self._peers.caller(self._group, port, self._port))
            self._peer_of[port] = known
        return known[1]


def _is_large(incoming: web.BaseRequest) -> bool:
    if incoming.content_length is None:
        return incoming.headers.get("Transfer-Encoding", "").lower() == "chunked"
    return incoming.content_length > MAX_BUFFERED


def _is_streamed(request: AwsRequest) -> bool:
    return request.body is None or (request.service == "s3" and request.method == "GET")


def _ended(incoming: web.BaseRequest, answer: Answer | None) -> _Ending:
    if answer is None:
        if incoming.transport is not None:
            incoming.transport.abort()
        return _Ending(0, "ConnectionClosed")
    response = web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    return _Ending(answer.status, error_code(answer), response)
