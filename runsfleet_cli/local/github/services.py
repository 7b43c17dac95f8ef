"""What every route module works with, and the helpers that they share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from runsfleet_cli.local.github.auth import RATE_KEY, Authenticator
from runsfleet_cli.local.github.errors import ApiError, invalid, not_found
from runsfleet_cli.local.github.traffic import RATE_CHECK
from runsfleet_cli.local.github.world import App, Job, Repository, Run, TokenGrant, World

if TYPE_CHECKING:
    from runsfleet_cli.local.github.broker import Broker
    from runsfleet_cli.local.github.lifecycle import Lifecycle
    from runsfleet_cli.local.github.registry import Registry
    from runsfleet_cli.local.github.releases import Releases
    from runsfleet_cli.local.github.render import Renderer
    from runsfleet_cli.local.github.webhooks import Webhooks

MAX_PAGE: Final = 100
DEFAULT_PAGE: Final = 30


@dataclass(slots=True)
class Services:
    """The parts of one stand-in."""

    world: World
    auth: Authenticator
    renderer: Renderer
    lifecycle: Lifecycle
    broker: Broker
    registry: Registry
    webhooks: Webhooks
    releases: Releases

    def as_app(self, request: web.Request) -> App:
        """Authenticate an App's JWT and count the request."""
        app = self.auth.app(request)
        request[RATE_CHECK].count(request[RATE_KEY])
        return app

    def as_installation(
        self,
        request: web.Request,
        permission: str,
        level: str = "read",
        *,
        repository: Repository | None = None,
        organization: str | None = None,
    ) -> TokenGrant:
        """Authenticate an installation token and count the request."""
        grant = self.auth.installation(
            request,
            permission=permission,
            level=level,
            repository=repository,
            organization=organization,
        )
        request[RATE_CHECK].count(request[RATE_KEY])
        return grant

    def repository(self, request: web.Request) -> Repository | None:
        """Answer the repository of the path, or None."""
        return self.world.repository(request.match_info["owner"], request.match_info["repo"])

    def seen_repository(
        self, request: web.Request, permission: str, level: str = "read"
    ) -> Repository:
        """Authenticate for the repository of the path.

        Raises:
            ApiError: 404 when there is none that the caller may see.
        """
        repository = self.repository(request)
        self.as_installation(request, permission, level, repository=repository)
        if repository is None:
            raise not_found()
        return repository

    def run(self, request: web.Request, repository: Repository) -> Run:
        """Answer the run of the path.

        Raises:
            ApiError: 404 when the repository has none of this id.
        """
        run = self.world.runs.get(number_in(request, "run_id"))
        if run is None or run.repository is not repository:
            raise not_found()
        return run

    def job(self, request: web.Request, repository: Repository) -> Job:
        """Answer the job of the path.

        Raises:
            ApiError: 404 when the repository has none of this id.
        """
        job = self.world.jobs.get(number_in(request, "job_id"))
        if job is None or job.repository is not repository:
            raise not_found()
        return job


def number_in(request: web.Request, name: str) -> int:
    """Answer a number of the path.

    Raises:
        ApiError: 404 when it is no number.
    """
    try:
        return int(request.match_info[name])
    except ValueError:
        raise not_found() from None


async def json_body(request: web.Request, *, optional: bool = False) -> Any:
    """Answer the request's JSON.

    Raises:
        ApiError: 400 when it is none.
    """
    text = await request.text()
    if optional and not text.strip():
        return {}
    try:
        return json.loads(text)
    except ValueError:
        raise ApiError(400, "Problems parsing JSON") from None


def _positive(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    try:
        return max(1, int(text))
    except ValueError:
        raise invalid(f"Validation Failed: {name} must be a number, got {text!r}") from None


def page(request: web.Request, items: Sequence[Any]) -> tuple[Sequence[Any], dict[str, str]]:
    """Cut one page out of a list and make its ``Link`` header.

    ``per_page`` is 30 by default and at most 100; ``page`` begins at 1.
    """
    size = min(MAX_PAGE, _positive(request, "per_page", DEFAULT_PAGE))
    number = _positive(request, "page", 1)
    last = max(1, -(-len(items) // size))
    links = []
    if number > 1:
        links += [("prev", min(number - 1, last)), ("first", 1)]
    if number < last:
        links += [("next", number + 1), ("last", last)]
    header = ", ".join(
        f'<{request.url.update_query(page=target, per_page=size)}>; rel="{name}"'
        for name, target in links
    )
    return items[(number - 1) * size : number * size], {"Link": header} if header else {}


def listing(request: web.Request, key: str, items: Sequence[Any], render: Any) -> web.Response:
    """Answer a page of a list in GitHub's form: ``total_count`` and the entries."""
    entries, headers = page(request, items)
    body = {"total_count": len(items), key: [render(entry) for entry in entries]}
    return web.json_response(body, headers=headers)
