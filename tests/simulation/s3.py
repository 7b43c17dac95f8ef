"""Models of S3, Secrets Manager and Parameter Store: the few calls that the fleet makes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tests.simulation.errors import client_error


class S3:
    """Objects by key; there is one bucket.

    Args:
        clock: Simulated time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.objects: dict[str, tuple[bytes, float]] = {}

    def put_object(self, **request: Any) -> dict[str, Any]:
        body = request["Body"]
        content = body.encode() if isinstance(body, str) else bytes(body)
        if request.get("IfNoneMatch") == "*" and request["Key"] in self.objects:
            raise client_error("put_object", "PreconditionFailed", status=412)
        self.objects[request["Key"]] = (content, self._clock())
        return {}

    def get_object(self, **request: Any) -> dict[str, Any]:
        if request["Key"] not in self.objects:
            raise client_error("get_object", "NoSuchKey", status=404)
        content, written = self.objects[request["Key"]]
        return {"Body": io.BytesIO(content), "LastModified": _moment(written)}

    def delete_object(self, **request: Any) -> dict[str, Any]:
        self.objects.pop(request["Key"], None)
        return {}

    def delete_objects(self, **request: Any) -> dict[str, Any]:
        for entry in request["Delete"]["Objects"]:
            self.objects.pop(entry["Key"], None)
        return {"Deleted": request["Delete"]["Objects"]}

    def list_objects_v2(self, **request: Any) -> dict[str, Any]:
        start = request.get("ContinuationToken", request.get("StartAfter", ""))
        most = min(request.get("MaxKeys", 1000), 1000)
        keys = sorted(
            key for key in self.objects if key.startswith(request.get("Prefix", "")) and key > start
        )
        page = keys[:most]
        answer: dict[str, Any] = {
            "IsTruncated": len(keys) > most,
            "KeyCount": len(page),
            "Contents": [
                {
                    "Key": key,
                    "Size": len(self.objects[key][0]),
                    "LastModified": _moment(self.objects[key][1]),
                }
                for key in page
            ],
        }
        if len(keys) > most:
            answer["NextContinuationToken"] = page[-1]
        return answer


class Secrets:
    """Secrets Manager.

    Args:
        values: Text by name.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get_secret_value(self, **request: Any) -> dict[str, Any]:
        if request["SecretId"] not in self._values:
            raise client_error("get_secret_value", "ResourceNotFoundException")
        return {"SecretString": self._values[request["SecretId"]]}


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
