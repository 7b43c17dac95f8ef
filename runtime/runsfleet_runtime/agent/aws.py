"""Clients of AWS: botocore alone, made when first used, with timeouts that a job can wait for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.session import Session

CONNECT_SECONDS = 3
READ_SECONDS = 10
TRIES = 4
OWN_TRIES = {"logs": 1}
"""Services whose caller tries again by itself, and must not be held up."""

METADATA_SECONDS = 2
METADATA_TRIES = 5


class AwsClients:
    """Makes clients with the instance's own credentials (the standard chain, so IMDS).

    Args:
        region: The fleet's region.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        self._session: Session | None = None
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()  # botocore clients may be shared, making them may not

    def client(self, service: str) -> Any:
        """Return the client of a service, the same one each time."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._make(service)
            return self._clients[service]

    def _make(self, service: str) -> Any:
        # here and not above: the agent must be able to end its instance without botocore too
        from botocore.config import Config
        from botocore.session import get_session

        if self._session is None:
            self._session = get_session()
            # one try of one second is botocore's default, and too little for a busy boot
            self._session.set_config_variable("metadata_service_timeout", METADATA_SECONDS)
            self._session.set_config_variable("metadata_service_num_attempts", METADATA_TRIES)
        return self._session.create_client(
            service,
            region_name=self._region,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": OWN_TRIES.get(service, TRIES)},
                user_agent_extra="runsfleet-agent",
            ),
        )
