from __future__ import annotations

import sys

import pytest

from runsfleet_constructs.bundling import Architecture, Platform, System


@pytest.mark.parametrize(
    ("platform", "pip_name", "uv_name"),
    [
        (Platform(Architecture.ARM64), "manylinux2014_aarch64", "aarch64-manylinux2014"),
        (Platform(Architecture.X86_64), "manylinux2014_x86_64", "x86_64-manylinux2014"),
        (
            Platform(Architecture.ARM64, system=System.MACOS),
            "macosx_11_0_arm64",
            "aarch64-apple-darwin",
        ),
        (
            Platform(Architecture.X86_64, system=System.MACOS),
            "macosx_11_0_x86_64",
            "x86_64-apple-darwin",
        ),
    ],
)
def test_both_installers_get_the_name_that_they_know(
    platform: Platform, pip_name: str, uv_name: str
) -> None:
    """One platform is spelled as pip and as uv spell it."""
    assert (platform.wheel_tag, platform.uv_name) == (pip_name, uv_name)


@pytest.mark.parametrize("python", ["3.10", "2.7", "3", "3.13.1", "", "3.x"])
def test_a_version_that_cannot_run_the_functions_is_refused(python: str) -> None:
    """A Python that is too old or not in the form 3.<minor> is named in the refusal."""
    with pytest.raises(ValueError, match=rf"got '{python}'"):
        Platform(Architecture.ARM64, python=python)


def test_the_host_is_this_interpreter() -> None:
    """The platform of a local cloud's functions has the version of the running Python."""
    assert Platform.host().python == f"3.{sys.version_info.minor}"


def test_an_unknown_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine for which no wheels are chosen is named in the refusal."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ValueError, match="got 'riscv64'"):
        Platform.host()


def test_platforms_differ_in_what_names_them() -> None:
    """No two platforms share the text that goes into the hash of an asset."""
    platforms = [
        Platform(architecture, python, system)
        for architecture in Architecture
        for python in ("3.11", "3.13")
        for system in System
    ]
    assert len({str(platform) for platform in platforms}) == len(platforms)
