from __future__ import annotations

from pathlib import Path

from runsfleet_constructs.bundling import build_runtime
from runsfleet_constructs.bundling.runtime import (
    function_sources,
    runtime_fingerprint,
    runtime_source,
)


def _write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_functions_carry_the_runtime_without_the_agent(tmp_path: Path) -> None:
    """Handlers and rooms go into the functions; the agent and byte code do not."""
    _write(
        tmp_path,
        "__init__.py",
        "py.typed",
        "composition.py",
        "handlers/webhook.py",
        "handlers/__pycache__/webhook.cpython-313.pyc",
        "agent/__main__.py",
    )

    assert function_sources(tmp_path) == {
        "runsfleet_runtime/__init__.py": tmp_path / "__init__.py",
        "runsfleet_runtime/composition.py": tmp_path / "composition.py",
        "runsfleet_runtime/handlers/webhook.py": tmp_path / "handlers/webhook.py",
        "runsfleet_runtime/py.typed": tmp_path / "py.typed",
    }


def test_the_installed_runtime_is_copied_whole(tmp_path: Path) -> None:
    """The copy is importable under its own name and equal to what is installed."""
    build_runtime(tmp_path)

    copied = tmp_path / "runsfleet_runtime"
    assert (copied / "contract" / "environment.py").read_bytes() == (
        runtime_source() / "contract" / "environment.py"
    ).read_bytes()
    assert not (copied / "agent").exists()
    assert {
        path.relative_to(tmp_path).as_posix() for path in copied.rglob("*") if path.is_file()
    } == (set(function_sources()))


def test_two_copies_are_the_same(tmp_path: Path) -> None:
    """Time and place of the copy leave no trace in it."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        build_runtime(folder)

    def seen(folder: Path) -> list[tuple[str, float, int]]:
        return sorted(
            (path.relative_to(folder).as_posix(), path.stat().st_mtime, path.stat().st_mode)
            for path in folder.rglob("*")
        )

    assert seen(one) == seen(two)


def test_the_fingerprint_is_a_hash() -> None:
    """The name of the asset is a SHA-256 in hex, the same at every call."""
    assert len(bytes.fromhex(runtime_fingerprint())) == 32
    assert runtime_fingerprint() == runtime_fingerprint()
