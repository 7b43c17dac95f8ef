"""The errors of AWS, as botocore raises them."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError


def client_error(
    operation: str, code: str, message: str = "", *, status: int = 400, **more: Any
) -> ClientError:
    """Return the error that botocore would raise for an answer.

    Args:
        operation: Name of the method, such as ``get_item``.
        code: AWS's code of the error.
        message: For people.
        status: HTTP status.
        more: What the answer holds beside ``Error``.
    """
    name = "".join(part.capitalize() for part in operation.split("_"))
    answer: dict[str, Any] = {
        "Error": {"Code": code, "Message": message or code},
        "ResponseMetadata": {"HTTPStatusCode": status, "RequestId": "simulated"},
        **more,
    }
    return ClientError(answer, name)  # type: ignore[arg-type]  # the stubs' type is a TypedDict
