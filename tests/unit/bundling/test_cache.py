from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from runsfleet_constructs.bundling import BundlingError, default_cache_dir
from runsfleet_constructs.bundling.cache import cached


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"RUNSFLEET_CACHE_DIR": "/r", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/r"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/runsfleet"),
        ({"HOME": "/h"}, "/h/.cache/runsfleet"),
        ({"RUNSFLEET_CACHE_DIR": "", "HOME": "/h"}, "/h/.cache/runsfleet"),
    ],
)
def test_the_most_specific_variable_names_the_cache(environ: dict[str, str], expected: str) -> None:
    """Our own variable wins over the desktop's, and that over the home folder."""
    assert default_cache_dir(environ) == Path(expected)


def test_without_a_home_the_cure_is_named() -> None:
    """A user without a home folder is told which variable to set."""
    with pytest.raises(BundlingError, match="set RUNSFLEET_CACHE_DIR"):
        default_cache_dir({})


def test_an_entry_is_built_once(cache_dir: Path) -> None:
    """The second call with the same key finds what the first one built."""
    builds: list[Path] = []

    def build(folder: Path) -> None:
        builds.append(folder)
        (folder / "file").write_text("content")

    first = cached(cache_dir, "kind", "key", build)
    second = cached(cache_dir, "kind", "key", build)

    assert first == second
    assert (first / "file").read_text() == "content"
    assert len(builds) == 1


def test_a_failed_build_leaves_nothing(cache_dir: Path) -> None:
    """Half of an entry is never seen, and the next call builds it anew."""

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise BundlingError("no network")

    with pytest.raises(BundlingError, match="no network"):
        cached(cache_dir, "kind", "key", fail)

    assert list((cache_dir / "kind").iterdir()) == []
    assert cached(cache_dir, "kind", "key", lambda folder: (folder / "whole").touch()).is_dir()


def test_two_builders_of_one_entry_both_get_it(cache_dir: Path) -> None:
    """When two build the same at once, the slower one gives way and takes the other's."""
    both_are_building = Barrier(2, timeout=10)

    def build(folder: Path) -> None:
        (folder / "file").write_text("content")
        both_are_building.wait()

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(cached, cache_dir, "kind", "key", build) for _ in range(2)]
        entries = [call.result() for call in calls]

    assert entries[0] == entries[1]
    assert [path.name for path in (cache_dir / "kind").iterdir()] == ["key"]
    assert (entries[0] / "file").read_text() == "content"


def test_what_nobody_used_for_long_is_removed(cache_dir: Path) -> None:
    """Entries of states of the sources that are gone do not fill the disk for ever."""
    old = cached(cache_dir, "kind", "old", lambda folder: None)
    used = cached(cache_dir, "kind", "used", lambda folder: None)
    long_ago = time.time() - 91 * 24 * 3600
    for entry in (old, used):
        os.utime(entry, (long_ago, long_ago))

    cached(cache_dir, "kind", "used", lambda folder: None)
    cached(cache_dir, "kind", "new", lambda folder: None)

    assert {path.name for path in (cache_dir / "kind").iterdir()} == {"used", "new"}


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path: Path) -> None:
    """The user is told which folder is at fault and how to choose another."""
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(BundlingError, match=r"cannot write .*file.*set RUNSFLEET_CACHE_DIR"):
        cached(blocked, "kind", "key", lambda folder: None)
