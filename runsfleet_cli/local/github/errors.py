"""GitHub's way of saying no: status, JSON body and headers of an error answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DOCUMENTATION_URL = "https://docs.github.com/rest"


class ApiError(Exception):
    """An answer of the REST API that is not a success.

    Args:
        status: HTTP status.
        message: The text GitHub puts into ``message``.
        errors: Entries of ``errors``, as a 422 has them.
        headers: Further headers, for example ``retry-after``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        errors: Sequence[Any] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Answer the JSON body, shaped like GitHub's."""
        body: dict[str, Any] = {"message": self.message}
        if self.errors:
            body["errors"] = list(self.errors)
        return body | {"documentation_url": DOCUMENTATION_URL, "status": str(self.status)}


def not_found() -> ApiError:
    """Answer the 404 that also hides what the caller may not see."""
    return ApiError(404, "Not Found")


def forbidden() -> ApiError:
    """Answer the 403 for a token that lacks a permission."""
    return ApiError(403, "Resource not accessible by integration")


def invalid(message: str, *, errors: Sequence[Any] = ()) -> ApiError:
    """Answer a 422."""
    return ApiError(422, message, errors=errors)
