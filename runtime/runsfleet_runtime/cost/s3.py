"""Reports in the fleet's bucket: a day's Markdown, page and summary side by side."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.paths import cost_report_key
from runsfleet_runtime.cost.page import to_html
from runsfleet_runtime.cost.report import CostReport
from runsfleet_runtime.cost.trends import Summary
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("cost.s3")

_KEPT_DAYS: Final = 30
_MISSING: Final = frozenset({"NoSuchKey", "404"})


class ReportsUnavailableError(Exception):
    """The bucket did not answer."""


class S3Reports:
    """Keeps reports and reads the summaries of earlier days.

    Args:
        client: An S3 client.
        bucket: The fleet's bucket.
    """

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def keep(self, report: CostReport) -> str:
        """Write a report; the summary last, so that a day that has one is whole.

        Returns:
            The address of the page, ``s3://…``.

        Raises:
            ReportsUnavailableError: If a part could not be written.
        """
        day = report.cost.day.name
        parts = (
            ("md", "text/markdown; charset=utf-8", report.to_markdown()),
            ("html", "text/html; charset=utf-8", to_html(report)),
            ("json", "application/json", Summary.of(report.cost).to_json()),
        )
        for suffix, kind, text in parts:
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=cost_report_key(day, suffix),
                    Body=text.encode(),
                    ContentType=kind,
                )
            except (ClientError, BotoCoreError) as error:
                raise ReportsUnavailableError(f"the report of {day}: {error}") from error
        return f"s3://{self._bucket}/{cost_report_key(day, 'html')}"

    def before(self, last: date) -> Sequence[Summary]:
        """Return the summaries of the thirty days before a day, as far as there are any.

        Raises:
            ReportsUnavailableError: If the bucket did not answer: a trend would be a guess.
        """
        days = [last - timedelta(days=n) for n in range(1, _KEPT_DAYS + 1)]
        found = (self._read(day.isoformat()) for day in days)
        return [summary for summary in found if summary is not None]

    def _read(self, day: str) -> Summary | None:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=cost_report_key(day, "json"))
            return Summary.from_json(answer["Body"].read().decode())
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise ReportsUnavailableError(f"the summary of {day}: {error}") from error
        except BotoCoreError as error:
            raise ReportsUnavailableError(f"the summary of {day}: {error}") from error
        except ValueError as error:
            log.warning("summary not readable", extra={"day": day, "error": str(error)})
            return None
