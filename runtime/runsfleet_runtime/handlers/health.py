"""``GET /health``, answered by the webhook function beside its deliveries.

Lifecycle: the webhook's handler imports this module when the route is asked for the first time, so
that deliveries do not wait for what only this needs.
Gotcha: anybody may ask. The answer is kept for ten seconds, the route is throttled, and nothing in
it tells whose fleet this is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runsfleet_runtime import composition


def handler(event: Mapping[str, Any], context: object) -> dict[str, Any]:
    """Answer one question (payload format 2.0 of API Gateway HTTP APIs)."""
    del event, context
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json", "cache-control": "no-store"},
        "body": json.dumps(composition.health().check.tell()),
    }
