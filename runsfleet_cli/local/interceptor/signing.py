"""Signing anew a request whose body had to change on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from runsfleet_cli.local.interceptor.aws_request import AwsRequest
    from runsfleet_cli.local.interceptor.callers import Key

# the rest (user agent, host, length) stays as the client sent it, unsigned
_SIGNED = ("content-type", "host", "x-amz-target")
_REPLACED = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-SHA256")
_SIGNING_NAMES = {"cloudwatch": "monitoring"}


def sign(request: AwsRequest, access_key: str, key: Key, *, scheme: str) -> None:
    """Replace the signature by one that covers the request as it is now.

    Args:
        request: Its headers are changed in place.
        access_key: The caller's own.
        key: The caller's secret and session token.
        scheme: `http` or `https`.
    """
    service = _SIGNING_NAMES.get(request.service, request.service)
    signed = AWSRequest(
        method=request.method,
        url=f"{scheme}://{request.headers.get('Host', '')}{request.target}",
        data=request.body or b"",
        headers={name: value for name, value in request.headers.items() if name.lower() in _SIGNED},
    )
    credentials = Credentials(access_key, key.secret, key.token or None)
    SigV4Auth(credentials, service, request.operation.region).add_auth(signed)
    for name in _REPLACED:
        if name in signed.headers:
            request.headers[name] = signed.headers[name]
        else:
            request.headers.popall(name, None)
