"""Webhook function: GitHub's deliveries, behind ``POST /webhook`` of the HTTP API.

It also answers ``GET /health``, by a module of its own.

Lifecycle: one request an invocation; the use case is built on the first and kept while warm.
Gotcha: GitHub waits 10 s for the answer and never tries again by itself.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from runsfleet_runtime import composition
from runsfleet_runtime.contract.paths import HEALTH_ROUTE


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Answer one request (payload format 2.0 of API Gateway HTTP APIs)."""
    if event.get("routeKey") == HEALTH_ROUTE:
        from runsfleet_runtime.handlers import health

        return health.handler(event, context)
    function = composition.webhook()
    try:
        body = _raw_body(event)
    except (binascii.Error, ValueError):
        return _answer(400, {"outcome": "refused", "reason": "the body is not valid base64"})
    headers = {k.lower(): str(v) for k, v in (event.get("headers") or {}).items()}
    try:
        answer = function.intake.receive(headers, body)
    finally:
        function.metrics.flush()
        function.tracer.flush()
    return _answer(answer.status, {"outcome": answer.outcome, "reason": answer.reason})


def _raw_body(event: Mapping[str, Any]) -> bytes:
    """Return the bytes that GitHub signed."""
    text = event.get("body") or ""
    return base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode()


def _answer(status: int, body: Mapping[str, str]) -> dict[str, Any]:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps(body),
    }
