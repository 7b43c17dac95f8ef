"""The metadata service of a local instance keeps IMDSv2's rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from runsfleet_cli.local.hypervisor.metadata import (
    InstanceFace,
    MetadataService,
    MetadataTrouble,
    RoleCredentials,
    spot_notice,
)

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"
NOW = 1_800_000_000.0


def face(**changed: Any) -> InstanceFace:
    """An instance."""
    values: dict[str, Any] = {
        "instance_id": "i-0123456789abcdef0",
        "instance_type": "c7g.xlarge",
        "zone": "eu-central-1b",
        "region": "eu-central-1",
        "account": "123456789012",
        "image_id": "ami-1",
        "architecture": "arm64",
        "lifecycle": "spot",
        "private_ip": "10.0.0.7",
        "launched_at": NOW,
        "user_data": "#!/bin/sh",
        "role": "runner-role",
    }
    return InstanceFace(**(values | changed))


class Client:
    """A client of the service."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def ask(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and text of an answer."""
        async with self._session.request(method, self._url + path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def get(self, path: str, ttl: str = "60") -> tuple[int, str]:
        """Ask with a new token."""
        status, token = await self.ask("/latest/api/token", "PUT", {TTL: ttl})
        assert status == 200
        return await self.ask(f"/latest/{path}", headers={TOKEN: token})


async def keys() -> RoleCredentials | None:
    """Keys of the role."""
    return RoleCredentials("ASIA1", "secret", "session", datetime(2030, 1, 1, tzinfo=UTC))


def play(
    test: Callable[[Client], Awaitable[None]],
    about: InstanceFace | None = None,
    clock: Callable[[], float] = lambda: NOW,
) -> None:
    """Run a test against a served instance."""

    async def scenario() -> None:
        service = MetadataService(about or face(), keys, clock=clock)
        await service.start()
        try:
            async with aiohttp.ClientSession() as session:
                await test(Client(session, service.url))
        finally:
            await service.stop()

    asyncio.run(scenario())


def test_nothing_is_told_without_a_token() -> None:
    """IMDSv1 is off; a made-up token is no token."""

    async def test(client: Client) -> None:
        assert (await client.ask("/latest/meta-data/instance-id"))[0] == 401
        forged = {TOKEN: "made-up"}
        assert (await client.ask("/latest/meta-data/instance-id", headers=forged))[0] == 401

    play(test)


@pytest.mark.parametrize("ttl", ["", "0", "21601", "-1", "soon"])
def test_a_token_needs_a_lifetime_within_six_hours(ttl: str) -> None:
    """Anything else is 400."""

    async def test(client: Client) -> None:
        headers = {TTL: ttl} if ttl else {}
        assert (await client.ask("/latest/api/token", "PUT", headers))[0] == 400

    play(test)


def test_a_token_cannot_be_had_by_get_or_through_a_proxy() -> None:
    """405 and 403: what protects from forged requests."""

    async def test(client: Client) -> None:
        assert (await client.ask("/latest/api/token"))[0] == 405
        forwarded = {TTL: "60", "X-Forwarded-For": "10.1.1.1"}
        assert (await client.ask("/latest/api/token", "PUT", forwarded))[0] == 403

    play(test)


def test_a_token_ends_with_its_lifetime() -> None:
    """Then it is 401 again."""
    now = [NOW]

    async def test(client: Client) -> None:
        _, token = await client.ask("/latest/api/token", "PUT", {TTL: "60"})
        path, headers = "/latest/meta-data/instance-id", {TOKEN: token}
        assert (await client.ask(path, headers=headers))[0] == 200
        now[0] += 61
        assert (await client.ask(path, headers=headers))[0] == 401

    play(test, clock=lambda: now[0])


def test_leaves_and_listings() -> None:
    """What an SDK, an agent or a person reads."""

    async def test(client: Client) -> None:
        expected = {
            "meta-data/instance-id": "i-0123456789abcdef0",
            "meta-data/instance-type": "c7g.xlarge",
            "meta-data/placement/availability-zone": "eu-central-1b",
            "meta-data/placement/region": "eu-central-1",
            "meta-data/instance-life-cycle": "spot",
            "meta-data/iam/security-credentials/": "runner-role",
            "meta-data/placement/": "availability-zone\nregion",
            "user-data": "#!/bin/sh",
        }
        for path, text in expected.items():
            assert await client.get(path) == (200, text), path
        listing = (await client.get("meta-data/"))[1].splitlines()
        assert {"instance-id", "placement/", "iam/"} <= set(listing)
        assert (await client.get("meta-data/nothing"))[0] == 404

    play(test)


def test_the_identity_document_tells_when_the_launch_was() -> None:
    """The agent counts its boot from there."""

    async def test(client: Client) -> None:
        status, text = await client.get("dynamic/instance-identity/document")
        document = json.loads(text)
        assert status == 200
        assert document["pendingTime"] == "2027-01-15T08:00:00Z"
        assert document["architecture"] == "arm64"
        assert document["accountId"] == "123456789012"

    play(test)


def test_the_roles_keys_are_those_of_this_instance() -> None:
    """As SDKs read them; another role's name is 404."""

    async def test(client: Client) -> None:
        status, text = await client.get("meta-data/iam/security-credentials/runner-role")
        found = json.loads(text)
        assert status == 200
        assert found["Code"] == "Success"
        assert (found["AccessKeyId"], found["Token"]) == ("ASIA1", "session")
        assert found["Expiration"] == "2030-01-01T00:00:00Z"
        other = await client.get("meta-data/iam/security-credentials/admin")
        assert other[0] == 404

    play(test)


def test_an_instance_without_a_role_has_no_credentials() -> None:
    """404, which SDKs take for none."""

    async def test(client: Client) -> None:
        assert (await client.get("meta-data/iam/security-credentials/"))[0] == 404

    play(test, face(role=""))


def test_notices_appear_once_they_are_given() -> None:
    """Before, both are 404."""
    about = face()

    async def test(client: Client) -> None:
        assert (await client.get("meta-data/spot/instance-action"))[0] == 404
        assert (await client.get("meta-data/events/recommendations/rebalance"))[0] == 404
        about.interruption = spot_notice(NOW, 120, "terminate")
        about.rebalance = "2027-01-15T08:00:00Z"
        _, action = await client.get("meta-data/spot/instance-action")
        assert json.loads(action) == {"action": "terminate", "time": "2027-01-15T08:02:00Z"}
        _, notice = await client.get("meta-data/events/recommendations/rebalance")
        assert json.loads(notice) == {"noticeTime": "2027-01-15T08:00:00Z"}

    play(test, about)


@pytest.mark.parametrize(("shown", "status"), [(True, 200), (False, 404)])
def test_tags_are_told_only_where_the_template_allows(shown: bool, status: int) -> None:
    """`instance_metadata_tags` is off by default."""

    async def test(client: Client) -> None:
        assert (await client.get("meta-data/tags/instance/Name"))[0] == status

    play(test, face(tags={"Name": "runner"}, tags_shown=shown))


def test_trouble_is_refused_or_outwaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """During a trouble every request is 503, at once or after it; then all is as before."""
    waits: list[float] = []
    moment = [NOW]

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def scenario() -> None:
        trouble = MetadataTrouble("refuse", NOW + 5)
        service = MetadataService(face(), keys, trouble=trouble, clock=lambda: moment[0])
        await service.start()
        async with aiohttp.ClientSession() as session:
            client = Client(session, service.url)
            assert (await client.ask("/latest/api/token", "PUT", {TTL: "60"}))[0] == 503
            assert waits == []
            trouble.how = "hang"
            with monkeypatch.context() as patch:
                patch.setattr("runsfleet_cli.local.hypervisor.metadata.asyncio.sleep", sleep)
                assert (await client.ask("/latest/api/token", "PUT", {TTL: "60"}))[0] == 503
            assert 5.0 in waits
            moment[0] += 5
            assert (await client.get("meta-data/instance-id"))[0] == 200
        await service.stop()

    asyncio.run(scenario())
