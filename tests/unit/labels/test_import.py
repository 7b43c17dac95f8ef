"""What it costs to import the grammar, and that its examples are true."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import runsfleet_runtime.labels

MODULES = [
    f"runsfleet_runtime.labels.{m.name}"
    for m in pkgutil.iter_modules(runsfleet_runtime.labels.__path__)
]


def test_standard_library_only() -> None:
    """The webhook imports the grammar, so that it draws in nothing that is slow or foreign."""
    code = (
        "import sys; before = set(sys.modules); import runsfleet_runtime.labels; "
        "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    paths = [path for path in sys.path if path]
    run = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path = {paths!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert loaded - {"runsfleet_runtime"} <= sys.stdlib_module_names
    assert not loaded & {"asyncio", "logging", "socket", "ssl", "urllib", "http", "decimal"}


@pytest.mark.parametrize("module", ["runsfleet_runtime.fleet.catalogue", *MODULES])
def test_examples(module: str) -> None:
    """The examples in the docstrings give what they say."""
    assert doctest.testmod(importlib.import_module(module)).failed == 0
