"""The interceptor's own small API, at its own address, for commands in other processes.

    GET    /_runsfleet/calls?since=&service=&action=&caller=&outcome=&limit=   the record
    GET    /_runsfleet/faults                                                  rules and counters
    POST   /_runsfleet/faults        a rule as JSON (see `faults.FaultRule`)
    DELETE /_runsfleet/faults        all rules
    DELETE /_runsfleet/faults/<id>   one rule

`until` of a rule may be given as `seconds` from now.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aiohttp import web

from runsfleet_cli.local.interceptor.faults import FaultBook, FaultRule, FaultRuleError

if TYPE_CHECKING:
    from runsfleet_cli.local.interceptor.calls import CallLog

PREFIX = "/_runsfleet/"


async def serve(incoming: web.BaseRequest, log: CallLog, faults: FaultBook) -> web.Response:
    """Answer a control request."""
    path = incoming.path.removeprefix(PREFIX)
    if path == "calls" and incoming.method == "GET":
        return _calls(incoming, log)
    if path == "faults":
        if incoming.method == "GET":
            return web.json_response({"faults": faults.describe()})
        if incoming.method == "POST":
            return await _add(incoming, faults)
        if incoming.method == "DELETE":
            faults.clear()
            return web.json_response({"faults": []})
    if path.startswith("faults/") and incoming.method == "DELETE":
        rule_id = unquote(path.removeprefix("faults/"))
        if faults.remove(rule_id):
            return web.json_response({"faults": faults.describe()})
        return _refuse(404, f"no rule {rule_id}; GET {PREFIX}faults lists them")
    return _refuse(404, f"no {incoming.method} {incoming.path}; see calls and faults")


def _calls(incoming: web.BaseRequest, log: CallLog) -> web.Response:
    query = incoming.query
    try:
        calls = log.query(
            since=int(query.get("since", "0")),
            service=query.get("service", "*"),
            action=query.get("action", "*"),
            caller=query.get("caller", "*"),
            outcome=query.get("outcome", "*"),
            limit=int(query["limit"]) if "limit" in query else None,
        )
    except ValueError:
        return _refuse(400, "since and limit must be whole numbers")
    return web.json_response(
        {"calls": [call.as_dict() for call in calls]},
        dumps=lambda value: json.dumps(value, default=str),
    )


async def _add(incoming: web.BaseRequest, faults: FaultBook) -> web.Response:
    try:
        given = json.loads(await incoming.read())
        if not isinstance(given, dict):
            return _refuse(400, "a rule must be a JSON object")
        if "seconds" in given:
            given["until"] = time.time() + float(given.pop("seconds"))
        rule = FaultRule.from_dict(given)
        faults.add(rule)
    except FaultRuleError as error:
        return _refuse(400, str(error))
    except (ValueError, TypeError) as error:
        return _refuse(400, f"a rule must be a JSON object with typed values: {error}")
    return web.json_response({"faults": faults.describe()}, status=201)


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
