"""The local cloud's own parts, where no emulator is needed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runsfleet_cli.local.cloud import CloudSettings, LocalCloud


def test_two_clouds_that_start_at_once_get_two_addresses(tmp_path: Path) -> None:
    """Both chose the first free port; whoever comes second takes another one."""

    async def start_both() -> tuple[str, str]:
        first, second = (
            LocalCloud(CloudSettings(directory=folder, project=folder, cache=folder))
            for folder in (tmp_path / "first", tmp_path / "second")
        )
        assert first.github.url == second.github.url
        try:
            await first.start_github()
            await second.start_github()
            return first.github.url, second.github.url
        finally:
            await first.stop()
            await second.stop()

    one, other = asyncio.run(start_both())
    assert one != other
