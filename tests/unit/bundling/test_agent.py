from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runsfleet_constructs.bundling import AgentPackage, BundlingError, agent, build_agent_package
from runsfleet_constructs.bundling.agent import AGENT_SERVICES, agent_fingerprint, agent_sources
from tests.unit.bundling.conftest import LocalIndex


def _runtime(folder: Path, modules: dict[str, str]) -> Path:
    for name, content in {"__init__.py": "", "version.py": "", **modules}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_the_agent_brings_what_it_imports_and_no_more(tmp_path: Path) -> None:
    """Rooms and modules come along when the agent reaches them, even late or through others."""
    root = _runtime(
        tmp_path,
        {
            "agent/__init__.py": "",
            "agent/__main__.py": "from runsfleet_runtime.contract import tables",
            "agent/logs.py": "def start():\n    import runsfleet_runtime.telemetry.log",
            "agent/__pycache__/logs.cpython-311.pyc": "",
            "contract/__init__.py": "from runsfleet_runtime import clock",
            "contract/tables.py": "",
            "telemetry/log.py": "",
            "clock.py": "",
            "composition.py": "import runsfleet_runtime.jobs",
            "jobs/model.py": "",
        },
    )

    assert set(agent_sources(root)) == {
        f"runsfleet_runtime/{name}"
        for name in (
            "__init__.py",
            "agent/__init__.py",
            "agent/__main__.py",
            "agent/logs.py",
            "clock.py",
            "contract/__init__.py",
            "contract/tables.py",
            "telemetry/log.py",
            "version.py",
        )
    }


def test_a_runtime_without_agent_is_refused(tmp_path: Path) -> None:
    """A broken installation is named instead of packing nothing."""
    with pytest.raises(BundlingError, match="there is no agent in"):
        agent_sources(_runtime(tmp_path, {}))


def _botocore(**more: str) -> dict[str, str]:
    services = {
        f"botocore/data/{service}/{version}/{name}": ""
        for service in (*AGENT_SERVICES, "workspaces")
        for version in ("2014-09-01", "2016-11-15")
        for name in ("service-2.json.gz", "examples-1.json")
    }
    return {"botocore/__init__.py": "", "botocore/data/endpoints.json": "{}", **services, **more}


@pytest.fixture
def agent_lock(index: LocalIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalIndex:
    """An index whose packages the agent carries."""
    monkeypatch.setattr(agent, "AGENT_LOCK", tmp_path / "agent.lock")
    return index


def _names(package: AgentPackage) -> set[str]:
    with zipfile.ZipFile(package.path) as archive:
        return set(archive.namelist())


def test_botocore_is_cut_down_to_what_the_agent_calls(
    agent_lock: LocalIndex, cache_dir: Path, tmp_path: Path
) -> None:
    """Of the needed services the newest description stays; others and examples go."""
    agent_lock.add("botocore", _botocore())
    agent_lock.lock(tmp_path / "agent.lock")

    names = _names(build_agent_package(cache_dir))

    assert {name for name in names if name.startswith("botocore/")} == {
        "botocore/__init__.py",
        "botocore/data/endpoints.json",
        *(f"botocore/data/{service}/2016-11-15/service-2.json.gz" for service in AGENT_SERVICES),
    }
    assert "runsfleet_runtime/contract/environment.py" in names


def test_two_machines_pack_the_same_bytes(
    agent_lock: LocalIndex, cache_dir: Path, tmp_path: Path
) -> None:
    """The hash in the launch template does not depend on who deploys."""
    agent_lock.add("botocore", _botocore())
    agent_lock.lock(tmp_path / "agent.lock")

    one = build_agent_package(cache_dir)
    two = build_agent_package(tmp_path / "another cache")

    assert one.path != two.path
    assert one.sha256 == two.sha256 == hashlib.sha256(two.path.read_bytes()).hexdigest()


def test_compiled_parts_are_refused(
    agent_lock: LocalIndex, cache_dir: Path, tmp_path: Path
) -> None:
    """A package that would run on one architecture only does not get into the agent."""
    agent_lock.add("botocore", _botocore(**{"botocore/fast.so": ""}))
    agent_lock.lock(tmp_path / "agent.lock")

    with pytest.raises(BundlingError, match=r"compiled parts, got botocore/fast\.so"):
        build_agent_package(cache_dir)


def test_the_name_of_the_package_follows_its_lock(agent_lock: LocalIndex, tmp_path: Path) -> None:
    """Other dependencies are another asset, known before anything is built."""
    agent_lock.add("botocore", _botocore())
    agent_lock.lock(tmp_path / "agent.lock")
    before = agent_fingerprint()
    agent_lock.add("more", {"more.py": ""})
    agent_lock.lock(tmp_path / "agent.lock")

    assert agent_fingerprint() != before


@pytest.mark.integration
def test_the_real_package_runs_with_nothing_else_installed(tmp_path: Path) -> None:
    """Unpacked, it makes a client of every service and imports the agent, without site-packages."""
    with zipfile.ZipFile(build_agent_package().path) as archive:
        archive.extractall(tmp_path)
    script = f"""
import json, pkgutil, sys
sys.path.insert(0, {str(tmp_path)!r})
import botocore.session, runsfleet_runtime.agent
for module in pkgutil.iter_modules(runsfleet_runtime.agent.__path__):
    if module.name != "__main__":
        __import__("runsfleet_runtime.agent." + module.name)
session = botocore.session.get_session()
made = [session.create_client(name, region_name="eu-central-1").meta.service_model.service_name
        for name in {sorted(AGENT_SERVICES)!r}]
foreign = [m.__file__ for m in list(sys.modules.values())
           if "site-packages" in (getattr(m, "__file__", None) or "")]
print(json.dumps([made, foreign]))
"""
    ran = subprocess.run(
        [sys.executable, "-S", "-I", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )

    assert ran.stderr == ""
    assert json.loads(ran.stdout) == [sorted(AGENT_SERVICES), []]
