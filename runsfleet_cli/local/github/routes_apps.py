"""Endpoints of a GitHub App: itself, its installations, access tokens, webhook deliveries."""

from __future__ import annotations

import base64
from typing import Any, Final

from aiohttp import web

from runsfleet_cli.local.github.errors import invalid, not_found
from runsfleet_cli.local.github.services import Services, json_body, number_in, page
from runsfleet_cli.local.github.webhooks import Delivery
from runsfleet_cli.local.github.world import Installation, iso

FAILURE_CODES: Final = range(400, 600)
"""``status=failure`` covers only these codes; a refused connection may not match it."""


class AppRoutes:
    """The handlers; see `routes` for their addresses."""

    def __init__(self, services: Services) -> None:
        self._s = services

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """Answer the routes under a prefix."""
        return [
            web.get(f"{prefix}/app", self.app),
            web.get(f"{prefix}/app/installations", self.installations),
            web.get(f"{prefix}/app/installations/{{installation_id}}", self.installation),
            web.post(
                f"{prefix}/app/installations/{{installation_id}}/access_tokens", self.access_token
            ),
            web.get(f"{prefix}/repos/{{owner}}/{{repo}}/installation", self.of_repository),
            web.get(f"{prefix}/orgs/{{org}}/installation", self.of_account),
            web.get(f"{prefix}/users/{{org}}/installation", self.of_account),
            web.get(f"{prefix}/app/hook/config", self.hook_config),
            web.get(f"{prefix}/app/hook/deliveries", self.deliveries),
            web.get(f"{prefix}/app/hook/deliveries/{{delivery_id}}", self.delivery),
            web.post(f"{prefix}/app/hook/deliveries/{{delivery_id}}/attempts", self.redeliver),
        ]

    async def app(self, request: web.Request) -> web.Response:
        """Answer the App that is calling."""
        return web.json_response(self._s.renderer.app(self._s.as_app(request)))

    async def installations(self, request: web.Request) -> web.Response:
        """List the App's installations."""
        app = self._s.as_app(request)
        mine = [entry for entry in self._s.world.installations.values() if entry.app_id == app.id]
        entries, headers = page(request, mine)
        body = [self._s.renderer.installation(entry) for entry in entries]
        return web.json_response(body, headers=headers)

    def _mine(self, request: web.Request) -> Installation:
        app = self._s.as_app(request)
        found = self._s.world.installations.get(number_in(request, "installation_id"))
        if found is None or found.app_id != app.id:
            raise not_found()
        return found

    async def installation(self, request: web.Request) -> web.Response:
        """Answer one installation."""
        return web.json_response(self._s.renderer.installation(self._mine(request)))

    async def of_repository(self, request: web.Request) -> web.Response:
        """Answer the App's installation that covers a repository."""
        app = self._s.as_app(request)
        repository = self._s.repository(request)
        for entry in [] if repository is None else self._s.world.installations_for(repository):
            if entry.app_id == app.id:
                return web.json_response(self._s.renderer.installation(entry))
        raise not_found()

    async def of_account(self, request: web.Request) -> web.Response:
        """Answer the App's installation on an organization or user."""
        app = self._s.as_app(request)
        login = request.match_info["org"].lower()
        wants_organization = "/orgs/" in request.path
        for entry in self._s.world.installations.values():
            account = entry.account
            if entry.app_id == app.id and account.login.lower() == login:
                if wants_organization and not account.is_organization:
                    break
                return web.json_response(self._s.renderer.installation(entry))
        raise not_found()

    async def access_token(self, request: web.Request) -> web.Response:
        """Make an installation access token."""
        installation = self._mine(request)
        body = await json_body(request, optional=True)
        if not isinstance(body, dict):
            raise invalid("Invalid request.\n\nThe body is not an object.")
        grant = self._s.auth.issue(
            installation,
            permissions=body.get("permissions"),
            repositories=body.get("repositories") or (),
            repository_ids=body.get("repository_ids") or (),
        )
        answer: dict[str, Any] = {
            "token": grant.token,
            "expires_at": iso(grant.expires_at),
            "permissions": grant.permissions,
            "repository_selection": "all" if grant.repository_ids is None else "selected",
        }
        if grant.repository_ids is not None:
            answer["repositories"] = [
                self._s.renderer.repository(entry)
                for entry in self._s.world.repositories.values()
                if entry.id in grant.repository_ids
            ]
        return web.json_response(answer, status=201)

    async def hook_config(self, request: web.Request) -> web.Response:
        """Answer where the App's webhooks go; the secret is masked."""
        app = self._s.as_app(request)
        secret = "********" if app.webhook_secret else None
        return web.json_response(
            {
                "content_type": "json",
                "insecure_ssl": "0",
                "secret": secret,
                "url": app.webhook_url,
            }
        )

    async def deliveries(self, request: web.Request) -> web.Response:
        """List deliveries, newest first; pages by an opaque cursor in ``Link``."""
        app = self._s.as_app(request)
        items = self._s.webhooks.listing(app.id)
        wanted = request.query.get("status")
        if wanted not in {None, "success", "failure"}:
            raise invalid(
                f"Invalid request.\n\n{wanted} is not a possible value. Must be one of "
                "the following: success, failure."
            )
        if wanted is not None:
            items = [
                entry
                for entry in items
                if (entry.status_code in FAILURE_CODES) is (wanted == "failure")
            ]
        return self._delivery_page(request, items)

    def _delivery_page(self, request: web.Request, items: list[Delivery]) -> web.Response:
        cursor = request.query.get("cursor")
        if cursor is not None:
            before = _read_cursor(cursor)
            items = [entry for entry in items if entry.id < before]
        try:
            size = min(100, max(1, int(request.query.get("per_page", "30"))))
        except ValueError:
            raise invalid("Invalid request.\n\nper_page is not an integer.") from None
        headers = {}
        if len(items) > size:
            following = request.url.update_query(cursor=_cursor(items[size - 1].id), per_page=size)
            headers["Link"] = f'<{following}>; rel="next"'
        return web.json_response([entry.summary() for entry in items[:size]], headers=headers)

    def _delivery(self, request: web.Request) -> Delivery:
        app = self._s.as_app(request)
        found = self._s.webhooks.log.get(number_in(request, "delivery_id"))
        if found is None or found.app_id != app.id or found not in self._s.webhooks.listing(app.id):
            raise not_found()
        return found

    async def delivery(self, request: web.Request) -> web.Response:
        """Answer a delivery with its request and response."""
        return web.json_response(self._delivery(request).detail())

    async def redeliver(self, request: web.Request) -> web.Response:
        """Deliver again: a new item under the same guid."""
        self._s.webhooks.redeliver(self._delivery(request))
        return web.json_response({}, status=202)


def _cursor(delivery_id: int) -> str:
    return "v1_" + base64.urlsafe_b64encode(str(delivery_id).encode()).decode().rstrip("=")


def _read_cursor(text: str) -> int:
    try:
        body = text.removeprefix("v1_")
        return int(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except ValueError:
        raise invalid("Invalid request.\n\nInvalid cursor.") from None
