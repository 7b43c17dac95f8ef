"""Which operation a REST request is: matched against botocore's own service models.

Query and JSON protocols name their operation; REST ones (lambda, s3, apigateway, scheduler) are
known by method and path alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader

# signing name -> folder of botocore's data where the two differ
_MODEL_OF = {"execute-api": "apigatewaymanagementapi", "monitoring": "cloudwatch"}


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    pattern: re.Pattern[str]
    required_query: frozenset[str]
    required_headers: frozenset[str]
    literal_length: int
    name: str
    members: Mapping[str, str]


def match_operation(
    service: str, method: str, path: str, query: str, headers: Mapping[str, str]
) -> tuple[str, dict[str, Any]] | None:
    """The operation and the parameters that its path holds, or None if no model has it.

    Args:
        service: Signing name.
        method: HTTP method.
        path: Raw path.
        query: Raw query string.
        headers: Tell PutObject from CopyObject; looked up whatever their case.
    """
    if service == "apigateway" and path.startswith("/v2/"):
        service = "apigatewayv2"
    given = dict(parse_qsl(query, keep_blank_values=True))
    best: tuple[tuple[int, int, int], _Route, re.Match[str]] | None = None
    for route in _routes(_MODEL_OF.get(service, service)):
        if route.method != method or not route.required_query <= given.keys():
            continue
        found = route.pattern.fullmatch(path)
        if found is None:
            continue
        if any(name not in headers for name in route.required_headers):
            continue
        rank = (len(route.required_query), len(route.required_headers), route.literal_length)
        if best is None or rank > best[0]:
            best = (rank, route, found)
    if best is None:
        return None
    route, found = best[1:]
    in_path = {key: unquote(value) for key, value in found.groupdict().items() if value}
    parameters: dict[str, Any] = {
        route.members[key]: value
        for key, value in (given | in_path).items()
        if key in route.members
    }
    return route.name, parameters


@cache
def _routes(service: str) -> tuple[_Route, ...]:
    try:
        model = Loader().load_service_model(service, "service-2")
    except UnknownServiceError:
        return ()
    routes = []
    for name, operation in model["operations"].items():
        http = operation.get("http")
        if http is None:
            continue
        path, _, query = http["requestUri"].partition("?")
        required = frozenset(
            key for key, _ in parse_qsl(query, keep_blank_values=True) if key != "x-id"
        )
        routes.append(
            _Route(
                method=http["method"],
                pattern=re.compile(_pattern(path)),
                required_query=required,
                required_headers=_required_headers(model, operation),
                literal_length=len(re.sub(r"\{[^}]*\}", "", path)),
                name=name,
                members=_members(model, operation),
            )
        )
    return tuple(routes)


def _members(model: dict[str, Any], operation: dict[str, Any]) -> dict[str, str]:
    """Name in a path (as a group of the pattern) or query -> name of the parameter."""
    shape = model["shapes"].get(operation.get("input", {}).get("shape", ""), {})
    named = {
        member.get("locationName", name): (name, member.get("location"))
        for name, member in shape.get("members", {}).items()
    }
    return {
        re.sub(r"\W", "_", wire) if location == "uri" else wire: name
        for wire, (name, location) in named.items()
        if location in {"uri", "querystring"}
    }


def _required_headers(model: dict[str, Any], operation: dict[str, Any]) -> frozenset[str]:
    shape = model["shapes"].get(operation.get("input", {}).get("shape", ""), {})
    members = shape.get("members", {})
    return frozenset(
        members[name]["locationName"]
        for name in shape.get("required", ())
        if members[name].get("location") == "header"
    )


def _pattern(path: str) -> str:
    parts = re.split(r"(\{[^}]*\})", path)
    pattern = ""
    for part in parts:
        if not part.startswith("{"):
            pattern += re.escape(part)
            continue
        name = re.sub(r"\W", "_", part.strip("{}+"))
        pattern += f"(?P<{name}>{'.+' if part.endswith('+}') else '[^/]+'})"
    return pattern.rstrip("/") + "/?"
