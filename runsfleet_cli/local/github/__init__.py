"""A stand-in for GitHub: REST API, webhooks, runner releases and the runner's protocol.

Example:
    async with GitHubStandIn() as github:
        github.set_webhook("http://127.0.0.1:9000/webhook", "secret")
"""

from runsfleet_cli.local.github.background import BackgroundStandIn
from runsfleet_cli.local.github.broker import Timing
from runsfleet_cli.local.github.server import GitHubStandIn, generate_key
from runsfleet_cli.local.github.traffic import Fault, RateLimits, RecordedRequest

__all__ = [
    "BackgroundStandIn",
    "Fault",
    "GitHubStandIn",
    "RateLimits",
    "RecordedRequest",
    "Timing",
    "generate_key",
]
