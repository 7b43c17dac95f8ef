"""An OTLP endpoint on this machine, and what it received, read by OpenTelemetry's own messages."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def read(body: bytes) -> Any:
    """Read a body as a collector does: ids are hexadecimal there, base64 in protobuf's JSON."""
    content = json.loads(body)
    for group in content["resourceSpans"]:
        for scope in group["scopeSpans"]:
            for span in scope["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    if key in span:
                        span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return json_format.ParseDict(content, ExportTraceServiceRequest())


class OtlpEndpoint:
    """A collector that takes spans over HTTP.

    Attributes:
        url: Its base URL.
        bodies: What it received.
        status: What it answers with.
        hold: Cleared, it takes requests and does not answer.
    """

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        self.url = ""

    def spans(self) -> list[Any]:
        """Return the spans received so far."""
        return [span for _, span in self.told()]

    def told(self) -> list[tuple[str, Any]]:
        """Return the spans received so far, each with the service that told of it."""
        return [
            (_service(group.resource), span)
            for body in self.bodies
            for group in read(body).resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]


def _service(resource: Any) -> str:
    found: dict[str, str] = {a.key: a.value.string_value for a in resource.attributes}
    return found["service.name"]


@contextmanager
def serve() -> Iterator[OtlpEndpoint]:
    """Serve an endpoint while the block lasts."""
    endpoint = OtlpEndpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/json"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not endpoint.hold.is_set():
                endpoint.hold.wait(20)
                return
            if endpoint.status == 200:
                endpoint.bodies.append(body)
            self.send_response(endpoint.status)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
