"""Structured logs: one JSON object a line, with the fields that are bound to the current work.

Fields given as ``extra`` stand at the root of the line. Fields bound with :func:`bound` are added
to every line written inside it, by this thread of work only.

Example:
    >>> configure(service="dispatch", fleet="dev")
    >>> log = get_logger("dispatch")
    >>> with bound(job_id=1):
    ...     log.info("claimed", extra={"claim_id": "c"})  # doctest: +SKIP
    {"level":"INFO","time":"…","message":"claimed","service":"dispatch","fleet":"dev","job_id":1,…}
"""

from __future__ import annotations

import contextvars
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

_bound: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
    "bound", default=MappingProxyType({})
)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Format a record as one line of JSON.

    Args:
        fields: Fields of every line, such as the service and the fleet.
    """

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a value that JSON does not know is written as text."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "level": record.levelname,
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "message": record.getMessage(),
            "logger": record.name,
            **self._fields,
            **_bound.get(),
        }
        line.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        if record.exc_info and record.exc_info[0] is not None:
            line["error_type"] = record.exc_info[0].__name__
            line["error"] = str(record.exc_info[1])
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, separators=(",", ":"), default=str, ensure_ascii=False)


def configure(**fields: Any) -> None:
    """Send this process's ``runsfleet`` logs to stdout as JSON.

    The level is ``RUNSFLEET_LOG_LEVEL``, ``INFO`` by default. Calling it again replaces the fields.

    Args:
        **fields: Fields of every line.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(**fields))
    root = logging.getLogger("runsfleet")
    root.handlers[:] = [handler]
    root.setLevel(os.environ.get("RUNSFLEET_LOG_LEVEL", "INFO"))
    root.propagate = False  # Lambda's own root handler would write each line a second time


def get_logger(name: str) -> logging.Logger:
    """Return the logger ``runsfleet.<name>``."""
    return logging.getLogger(f"runsfleet.{name}")


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add fields to every line that is logged inside the ``with`` block."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)
