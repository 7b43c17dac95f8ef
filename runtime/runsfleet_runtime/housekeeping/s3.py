"""The fleet's bucket as the sweeps see it: reports that were kept, and archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.housekeeping.kept_reports import KeptReport
from runsfleet_runtime.housekeeping.ports import SweepError

_ABSENT: Final = frozenset({"NoSuchKey", "404"})


class S3Bucket:
    """Adapter of ``KeepsObjects`` and ``KeepsArchives``.

    Args:
        client: An S3 client.
        bucket: Name of the bucket.
    """

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def pages(self, prefix: str) -> Iterator[Sequence[KeptReport]]:
        """Yield the objects under a prefix, up to a thousand at a time; raises ``SweepError``."""
        token: dict[str, str] = {}
        while True:
            answer = self._list(prefix, token)
            yield [
                KeptReport(
                    key=found["Key"],
                    size=found["Size"],
                    written_at=found["LastModified"].timestamp(),
                )
                for found in answer.get("Contents", [])
            ]
            if not answer.get("NextContinuationToken"):
                return
            token = {"ContinuationToken": answer["NextContinuationToken"]}

    def _list(self, prefix: str, token: dict[str, str]) -> Any:
        return _asked(
            lambda: self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **token)
        )

    def read(self, key: str) -> str | None:
        """Return an object's text; ``None`` when it is gone. Raises ``SweepError``."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            content: bytes = answer["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise SweepError(f"s3://{self._bucket}/{key}: {error}") from error
        except BotoCoreError as error:
            raise SweepError(f"s3://{self._bucket}/{key}: {error}") from error
        return content.decode(errors="replace")

    def write(self, key: str, content: str) -> None:
        """Write an object; raises ``SweepError``."""
        _asked(
            lambda: self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=content.encode(),
                ContentType="application/x-ndjson",
            )
        )

    def delete(self, key: str) -> None:
        """Delete an object; raises ``SweepError``."""
        _asked(lambda: self._client.delete_object(Bucket=self._bucket, Key=key))


def _asked(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (ClientError, BotoCoreError) as error:
        raise SweepError(str(error)) from error
