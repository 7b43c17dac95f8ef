"""What docs/decisions/0002 promises of every lock file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PYTHON_LOCKS = [
    ROOT / "requirements/installer.lock",
    ROOT / "requirements/dev.lock",
    ROOT / "runsfleet_cli/local/emulator.lock",
    ROOT / "runsfleet_constructs/bundling/functions.lock",
    ROOT / "runsfleet_constructs/bundling/agent.lock",
]
DEPLOYED_LOCKS = PYTHON_LOCKS[-2:]


def _requirements(lock: Path) -> dict[str, str]:
    """Return each locked requirement with its hashes, one line each."""
    lines = re.sub(r"\\\n", "", lock.read_text()).splitlines()
    return {line.split()[0]: line for line in lines if line and not line.lstrip().startswith("#")}


@pytest.mark.parametrize("lock", PYTHON_LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_versions_by_hash_and_names_no_address(lock: Path) -> None:
    """Every requirement has an exact version and a hash; nothing says where to fetch it."""
    requirements = _requirements(lock)
    assert requirements
    for requirement, line in requirements.items():
        assert re.fullmatch(r"[\w.-]+==[\w.]+", requirement)
        assert "--hash=sha256:" in line
    assert not re.search(r"://|index-url|find-links|@ file", lock.read_text())


@pytest.mark.parametrize("lock", DEPLOYED_LOCKS, ids=lambda lock: lock.name)
def test_what_is_deployed_is_locked_without_markers(lock: Path) -> None:
    """No requirement depends on the machine that happens to build the asset."""
    assert [line for line in _requirements(lock).values() if ";" in line] == []


def test_functions_leave_boto3_to_the_lambda_runtime() -> None:
    """The layer holds what the runtime lacks and not the 17 MB that it brings."""
    names = {requirement.partition("==")[0] for requirement in _requirements(DEPLOYED_LOCKS[0])}
    assert {"pyjwt", "cryptography"} <= names
    assert not {"boto3", "botocore"} & names


def test_all_environments_speak_to_aws_by_one_version() -> None:
    """Development, emulator and agent carry the same botocore."""
    versions = {
        requirement
        for lock in PYTHON_LOCKS
        for requirement in _requirements(lock)
        if requirement.startswith("botocore==")
    }
    assert len(versions) == 1


def test_the_node_lock_pins_by_hash_and_names_no_address() -> None:
    """Each npm package has a version and an integrity hash, and no place to fetch it from."""
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert len(packages) > 1
    for name, package in packages.items():
        assert "resolved" not in package
        assert name == "" or {"version", "integrity"} <= package.keys()
