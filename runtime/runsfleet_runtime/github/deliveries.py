"""The App's delivery log, and delivering again what it lists as failed.

GitHub never delivers again by itself, keeps the log for three days, lists it newest first and has
no filter by time. A redelivery is a new entry with the same guid, signed with the present secret.
(docs.github.com, "Handling failed webhook deliveries".)
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from runsfleet_runtime.github.errors import UnavailableError
from runsfleet_runtime.github.installations import Installations
from runsfleet_runtime.github.listings import PER_PAGE, moment, text
from runsfleet_runtime.github.model import Delivery, DeliveryPage

_OK, _MULTIPLE_CHOICES = 200, 300


class DeliveryLog:
    """Reads the log and asks for redeliveries, as the App itself.

    Args:
        github: The API.
    """

    def __init__(self, github: Installations) -> None:
        self._github = github

    def page(self, cursor: str | None = None) -> DeliveryPage:
        """Return a page of the log, newest first.

        Args:
            cursor: ``following`` of the page before; ``None`` for the newest.

        Raises:
            RefusedError: If GitHub does not know the cursor (any more).
            GitHubError: If the page could not be read.
        """
        after = "" if cursor is None else f"&cursor={quote(cursor, safe='')}"
        reply = self._github.call_as_app("GET", f"/app/hook/deliveries?per_page={PER_PAGE}{after}")
        if not isinstance(reply.body, list):
            raise UnavailableError("github's answer holds no list of deliveries")
        found = tuple(_delivery(entry) for entry in reply.body)
        return DeliveryPage(found, reply.of_next_page("cursor"))

    def redeliver(self, delivery_id: int) -> None:
        """Ask GitHub to deliver an event again.

        Raises:
            NotFoundError: If the log does not have the delivery any more.
            GitHubError: If GitHub did not take the request, or did not say so.
        """
        self._github.call_as_app("POST", f"/app/hook/deliveries/{delivery_id}/attempts")


def _delivery(entry: Any) -> Delivery:
    """Read an entry; one that cannot be read must not be passed over."""
    delivered_at = moment(entry, "delivered_at") if isinstance(entry, dict) else None
    if delivered_at is None or not isinstance(entry.get("id"), int) or not text(entry, "guid"):
        raise UnavailableError("github's answer holds a delivery without id, guid or time")
    code = entry.get("status_code")
    return Delivery(
        id=entry["id"],
        guid=text(entry, "guid"),
        delivered_at=delivered_at,
        is_redelivery=entry.get("redelivery") is True,
        is_ok=isinstance(code, int) and _OK <= code < _MULTIPLE_CHOICES,
        event=text(entry, "event"),
        action=text(entry, "action"),
    )
