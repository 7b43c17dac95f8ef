"""Answers that AWS would give, shaped as the client's protocol wants them."""

from __future__ import annotations

import json
import uuid
from typing import Any
from xml.sax.saxutils import escape

from multidict import CIMultiDict

from runsfleet_cli.local.interceptor.aws_request import Answer, AwsRequest

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
_JSON = "application/x-amz-json-1.0"
# what each service calls "slow down"; elsewhere ThrottlingException, 400
_THROTTLES = {
    "ec2": ("RequestLimitExceeded", 503, "Request limit exceeded."),
    "s3": ("SlowDown", 503, "Please reduce your request rate."),
    "lambda": ("TooManyRequestsException", 429, "Rate exceeded"),
    "execute-api": ("TooManyRequests", 429, "Too Many Requests"),
    "dynamodb": (
        "ThrottlingException",
        400,
        "Throughput exceeds the current capacity of your table or index.",
    ),
    "cloudwatch": ("Throttling", 400, "Rate exceeded"),
    "sts": ("Throttling", 400, "Rate exceeded"),
    "iam": ("Throttling", 400, "Rate exceeded"),
}
_CBOR_SHORT = 24
_CBOR_BYTE = 256


def error_answer(request: AwsRequest, code: str, status: int, message: str) -> Answer:
    """An error as the request's protocol carries it.

    Example:
        >>> error_answer(request, "InternalError", 500, "An internal error has occurred")
    """
    request_id = str(uuid.uuid4())
    protocol = request.operation.protocol
    headers: CIMultiDict[str] = CIMultiDict({"x-amzn-RequestId": request_id})
    if protocol == "ec2":
        return _xml(
            status,
            headers,
            f"<Response><Errors><Error><Code>{escape(code)}</Code>"
            f"<Message>{escape(message)}</Message></Error></Errors>"
            f"<RequestID>{request_id}</RequestID></Response>",
        )
    if protocol == "query":
        side = "Sender" if status < 500 else "Receiver"  # noqa: PLR2004
        return _xml(
            status,
            headers,
            f"<ErrorResponse><Error><Type>{side}</Type><Code>{escape(code)}</Code>"
            f"<Message>{escape(message)}</Message></Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>",
        )
    if protocol == "rest-xml":
        return _xml(
            status,
            headers,
            f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
            f"<RequestId>{request_id}</RequestId></Error>",
        )
    headers["x-amzn-ErrorType"] = code
    if protocol == "cbor":
        headers["Content-Type"] = "application/cbor"
        headers["smithy-protocol"] = "rpc-v2-cbor"
        return Answer(status, headers, _cbor_texts({"__type": code, "message": message}))
    if request.service == "sqs":
        headers["x-amzn-query-error"] = f"{code};Sender"
    headers["Content-Type"] = request.headers.get("Content-Type", _JSON)
    if protocol in {"rest-json", "http"}:
        headers["Content-Type"] = "application/json"
    return Answer(status, headers, json.dumps({"__type": code, "message": message}).encode())


def throttle_answer(request: AwsRequest) -> Answer:
    """The service's own way to say "slow down"."""
    code, status, message = _THROTTLES.get(
        request.service, ("ThrottlingException", 400, "Rate exceeded")
    )
    return error_answer(request, code, status, message)


def refusal_answer(request: AwsRequest, message: str = "") -> Answer:
    """The service's own way to say "not authorized"."""
    text = message or (
        f"User: {request.caller} is not authorized to perform: {request.service}:{request.action}"
    )
    protocol = request.operation.protocol
    if protocol == "ec2":
        return error_answer(request, "UnauthorizedOperation", 403, text)
    if protocol in {"json", "cbor"}:
        return error_answer(request, "AccessDeniedException", 400, text)
    if protocol == "rest-json":
        return error_answer(request, "AccessDeniedException", 403, text)
    return error_answer(request, "AccessDenied", 403, text)


def json_answer(value: dict[str, Any], status: int = 200) -> Answer:
    """A JSON protocol's success."""
    headers = CIMultiDict({"Content-Type": _JSON, "x-amzn-RequestId": str(uuid.uuid4())})
    return Answer(status, headers, json.dumps(value).encode())


def ec2_answer(action: str, inner: str) -> Answer:
    """An EC2 success: `inner` is XML."""
    request_id = str(uuid.uuid4())
    return _xml(
        200,
        CIMultiDict({"x-amzn-RequestId": request_id}),
        f'<{action}Response xmlns="{EC2_NAMESPACE}"><requestId>{request_id}</requestId>'
        f"{inner}</{action}Response>",
    )


def _xml(status: int, headers: CIMultiDict[str], text: str) -> Answer:
    headers["Content-Type"] = "text/xml;charset=UTF-8"
    return Answer(status, headers, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode())


def _cbor_texts(values: dict[str, str]) -> bytes:
    """A CBOR map of short texts (RFC 8949, major types 5 and 3)."""

    def head(major: int, length: int) -> bytes:
        if length < _CBOR_SHORT:
            return bytes([major << 5 | length])
        if length < _CBOR_BYTE:
            return bytes([major << 5 | 24, length])
        return bytes([major << 5 | 25]) + length.to_bytes(2, "big")

    out = head(5, len(values))
    for pair in values.items():
        for text in pair:
            raw = text.encode()
            out += head(3, len(raw)) + raw
    return out
