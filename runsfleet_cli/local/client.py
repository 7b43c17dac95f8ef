"""How commands talk to a local cloud in another process: JSON over HTTP, standard library only."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runsfleet_cli.local.state import Endpoints

_SECONDS = 40.0


class CloudUnreachableError(Exception):
    """The local cloud does not answer."""


class CloudRefusedError(Exception):
    """The local cloud refused a request; the message is its own."""


class CloudClient:
    """A local cloud's page, GitHub stand-in and interceptor.

    Args:
        endpoints: How to reach it.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        context = (
            ssl.create_default_context(cafile=endpoints.ca_bundle) if endpoints.strict else None
        )
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        # never by a proxy: everything is on this machine
        self._opener = urllib.request.build_opener(*handlers)

    def state(self) -> dict[str, Any]:
        """The present state; see `snapshot.py`."""
        return self._object("GET", f"{self.endpoints.page}/api/state")

    def timeline(self, since: int, wait: float = 0.0) -> list[dict[str, Any]]:
        """Entries after a sequence; waits for the first one up to so many seconds."""
        query = urllib.parse.urlencode({"since": since, "wait": wait})
        found = self._object("GET", f"{self.endpoints.page}/api/timeline?{query}")
        entries: list[dict[str, Any]] = found["entries"]
        return entries

    def act_on(self, instance: str, what: str, body: Mapping[str, Any] | None = None) -> str:
        """Do something to an instance (`any`: the last one); returns its id."""
        url = f"{self.endpoints.page}/api/instances/{urllib.parse.quote(instance)}/{what}"
        return str(self._object("POST", url, body or {})["instance_id"])

    def trouble_metadata(self, how: str, seconds: float) -> None:
        """Let all metadata services `refuse` or `hang` for so many seconds."""
        url = f"{self.endpoints.page}/api/metadata"
        self._object("POST", url, {"how": how, "seconds": seconds})

    def shut_down(self) -> None:
        """Ask it to end."""
        self._object("POST", f"{self.endpoints.page}/api/shutdown", {})

    def github(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the GitHub stand-in's control API."""
        return self._send(method, f"{self.endpoints.github_control}/{path}", body)

    def aws_calls(self, **query: Any) -> list[dict[str, Any]]:
        """The record of AWS calls; see `interceptor/control.py` for the query."""
        url = f"{self.endpoints.aws}/_runsfleet/calls?{urllib.parse.urlencode(query)}"
        calls: list[dict[str, Any]] = self._object("GET", url)["calls"]
        return calls

    def aws_faults(
        self, method: str, rule: Mapping[str, Any] | None = None, rule_id: str = ""
    ) -> list[dict[str, Any]]:
        """List, add or remove fault rules of AWS calls."""
        path = (
            f"/_runsfleet/faults/{urllib.parse.quote(rule_id)}"
            if rule_id
            else ("/_runsfleet/faults")
        )
        faults: list[dict[str, Any]] = self._object(method, self.endpoints.aws + path, rule)[
            "faults"
        ]
        return faults

    def _object(
        self, method: str, url: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        found = self._send(method, url, body)
        if not isinstance(found, dict):
            msg = f"{url} answered {type(found).__name__}; is another program on that port?"
            raise CloudRefusedError(msg)
        return found

    def _send(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310  (an address of this machine, from the state)
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "runsfleet"},
        )
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise CloudRefusedError(_message(error.read()) or str(error)) from error
        except (OSError, ValueError) as error:
            msg = f"the local cloud does not answer at {url.partition('?')[0]}: {error}"
            raise CloudUnreachableError(msg) from error
        return json.loads(text) if text else {}


def _message(text: bytes) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        return text.decode("utf-8", "replace")[:500]
    return str(found.get("message", "")) if isinstance(found, dict) else ""
