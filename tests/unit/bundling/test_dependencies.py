from __future__ import annotations

import importlib.util
import os
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from runsfleet_constructs.bundling import (
    Architecture,
    BundlingError,
    Platform,
    build_dependencies,
)
from runsfleet_constructs.bundling.dependencies import dependencies_fingerprint
from tests.unit.bundling.conftest import LocalIndex

ARM = Platform(Architecture.ARM64)
X86 = Platform(Architecture.X86_64)


def _tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(params=["pip", "uv"])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two installers in turn, as if the other were not there."""
    missing = {"pip": (), "uv": ("pip",)}[request.param]
    _hide(monkeypatch, *missing)
    return str(request.param)


def _hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    find = importlib.util.find_spec

    def find_other(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in names else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_other)


@pytest.mark.usefixtures("installer")
def test_each_platform_gets_its_own_wheels(
    index: LocalIndex, cache_dir: Path, tmp_path: Path
) -> None:
    """The wheel for the target is taken, whatever machine builds the asset."""
    index.add("part", {"part.py": "arm"}, tag="cp311-abi3-manylinux2014_aarch64")
    index.add("part", {"part.py": "x86"}, tag="cp311-abi3-manylinux2014_x86_64")
    lock = index.lock(tmp_path / "lock")

    arm = build_dependencies(lock, ARM, cache_dir)
    x86 = build_dependencies(lock, X86, cache_dir)

    assert (arm / "part.py").read_text() == "arm"
    assert (x86 / "part.py").read_text() == "x86"


@pytest.mark.usefixtures("installer")
def test_two_builds_are_the_same_to_the_byte(index: LocalIndex, tmp_path: Path) -> None:
    """Caches of two users hold the same files with the same contents and times."""
    index.add("part", {"part/__init__.py": "x = 1", "part/more.py": ""})
    lock = index.lock(tmp_path / "lock")

    one = build_dependencies(lock, ARM, tmp_path / "one")
    two = build_dependencies(lock, ARM, tmp_path / "two")

    assert _tree(one) == _tree(two)
    assert set(_tree(one)) == {
        "part/__init__.py",
        "part/more.py",
        "part-1.0.dist-info/METADATA",
        "part-1.0.dist-info/licenses/LICENSE",
    }
    assert {path.stat().st_mtime for path in one.rglob("*")} == {
        path.stat().st_mtime for path in two.rglob("*")
    }


def test_both_installers_build_the_same(
    index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which installer a user has leaves no trace in the asset."""
    index.add("part", {"part/__init__.py": "x = 1"})
    lock = index.lock(tmp_path / "lock")

    by_pip = build_dependencies(lock, ARM, tmp_path / "pip")
    _hide(monkeypatch, "pip")
    by_uv = build_dependencies(lock, ARM, tmp_path / "uv")

    assert _tree(by_pip) == _tree(by_uv)


def test_what_was_built_needs_no_installer_any_more(
    index: LocalIndex, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second build finds the first one, even without pip, uv or a network."""
    index.add("part", {"part.py": ""})
    lock = index.lock(tmp_path / "lock")
    first = build_dependencies(lock, ARM, cache_dir)
    _hide(monkeypatch, "pip", "uv")

    assert build_dependencies(lock, ARM, cache_dir) == first


def test_without_an_installer_the_cure_is_named(
    index: LocalIndex, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who has neither pip nor uv is told how to get one."""
    index.add("part", {"part.py": ""})
    _hide(monkeypatch, "pip", "uv")
    with pytest.raises(BundlingError, match=r"neither pip nor uv .* run: python -m ensurepip"):
        build_dependencies(index.lock(tmp_path / "lock"), ARM, cache_dir)


@pytest.mark.usefixtures("installer")
def test_a_package_that_nobody_holds_names_the_cure(
    index: LocalIndex, cache_dir: Path, tmp_path: Path
) -> None:
    """Offline, the error says what is missing, that a mirror helps, and what the installer said."""
    lock = tmp_path / "far.lock"
    lock.write_text(f"absent==1.0 --hash=sha256:{'0' * 64}\n")

    with pytest.raises(BundlingError) as caught:
        build_dependencies(lock, ARM, cache_dir)

    message = str(caught.value)
    assert "far.lock for python3.13-linux-arm64 could not be fetched" in message
    assert "PIP_INDEX_URL" in message
    assert "absent" in message
    assert not index.hashes


@pytest.mark.usefixtures("installer")
def test_a_package_that_was_changed_is_refused(
    index: LocalIndex, cache_dir: Path, tmp_path: Path
) -> None:
    """A wheel with another hash than the locked one is not installed, and the error says why."""
    index.add("part", {"part.py": "good"})
    lock = index.lock(tmp_path / "lock")
    index.add("part", {"part.py": "evil"})

    with pytest.raises(BundlingError, match="differs from the one that was locked"):
        build_dependencies(lock, ARM, cache_dir)


def test_settings_for_the_users_own_packages_do_not_interfere(
    index: LocalIndex, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pip that is set to install for the user still fills the asset."""
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    index.add("part", {"part.py": ""})

    built = build_dependencies(index.lock(tmp_path / "lock"), ARM, cache_dir)

    assert (built / "part.py").is_file()


def test_the_fingerprint_follows_lock_and_target(tmp_path: Path) -> None:
    """Another lock or another target is another asset; where the lock stands is not."""
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    for path, content in ((one, "a==1"), (same, "a==1"), (other, "a==2")):
        path.write_text(content)
    os.utime(same, (0, 0))

    assert dependencies_fingerprint(one, ARM) == dependencies_fingerprint(same, ARM)
    assert dependencies_fingerprint(one, ARM) != dependencies_fingerprint(other, ARM)
    assert dependencies_fingerprint(one, ARM) != dependencies_fingerprint(one, X86)
