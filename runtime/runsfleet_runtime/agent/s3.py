"""Runner packages in the fleet's bucket. Satisfies ``CachesPackages``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

    from runsfleet_runtime.agent.aws import AwsClients

_BLOCK = 1 << 20
# without the right to list the bucket, S3 says 403 for a key that does not exist
_ABSENT = frozenset({"NoSuchKey", "404", "AccessDenied", "403"})


class S3Packages:
    """Reads and writes the cache.

    Args:
        clients: AWS.
        bucket: Name of the bucket.
    """

    def __init__(self, clients: AwsClients, *, bucket: str) -> None:
        self._clients = clients
        self._bucket = bucket

    def fetch(self, key: str, target: Path, *, check: Callable[[], None]) -> bool:
        """Write an object to a file; False when it does not exist.

        Raises:
            OSError: S3 failed in another way; the message holds S3's.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        client = cast("S3Client", self._clients.client("s3"))
        try:
            answer = client.get_object(Bucket=self._bucket, Key=key)
            with target.open("wb") as file:
                for block in answer["Body"].iter_chunks(_BLOCK):
                    check()
                    file.write(block)
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return False
            raise OSError(f"cannot read s3://{self._bucket}/{key}: {error}") from error
        except BotoCoreError as error:
            raise OSError(f"cannot read s3://{self._bucket}/{key}: {error}") from error
        return True

    def store(self, key: str, source: Path) -> None:
        """Write a file to an object."""
        client = cast("S3Client", self._clients.client("s3"))
        with source.open("rb") as file:
            client.put_object(Bucket=self._bucket, Key=key, Body=file)
