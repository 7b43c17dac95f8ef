"""The walls of the house: who may import what, read from the code itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "runtime" / "runsfleet_runtime"
ADAPTERS = frozenset({"dynamodb", "ec2", "s3", "secretsmanager", "sqs", "ssm", "logs", "sts"})
MODULES = sorted(RUNTIME.rglob("*.py"))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what only type checkers see."""
    is_typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    if not is_typing:
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _walk(child)


def imports(path: Path) -> set[str]:
    """Return the absolute names of everything that a file imports when it runs."""
    found: set[str] = set()
    for node in _walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top(names: set[str]) -> set[str]:
    """Return the top-level packages of names."""
    return {name.partition(".")[0] for name in names}


def name_of(path: Path) -> str:
    """Return a module's path inside the runtime."""
    return str(path.relative_to(RUNTIME))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_aws_is_called_by_adapters_only(path: Path) -> None:
    """boto3 and botocore are imported in modules named for a service, and in the composition."""
    uses = top(imports(path)) & {"boto3", "botocore"}
    is_adapter = path.stem in ADAPTERS or "aws" in path.stem
    assert not uses or is_adapter or path.name == "composition.py"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_runtime_knows_nothing_of_the_cdk(path: Path) -> None:
    """What runs in AWS imports neither the CDK nor anything that deploys it."""
    forbidden = {"aws_cdk", "constructs", "jsii", "runsfleet_constructs", "runsfleet_cli", "stacks"}
    assert not top(imports(path)) & forbidden


@pytest.mark.parametrize("path", sorted((RUNTIME / "contract").glob("*.py")), ids=name_of)
def test_contract_is_standard_library_only(path: Path) -> None:
    """Constructs, runtime, agent and command line all import the contract, so it costs nothing."""
    assert top(imports(path)) <= sys.stdlib_module_names | {"runsfleet_runtime"}
    own = {n for n in imports(path) if n.startswith("runsfleet_runtime.")}
    assert all(n.startswith("runsfleet_runtime.contract") for n in own)


@pytest.mark.parametrize("path", sorted((RUNTIME / "agent").rglob("*.py")), ids=name_of)
def test_agent_needs_only_what_its_package_holds(path: Path) -> None:
    """The agent's package has the contract, the telemetry and botocore, and no compiled part."""
    allowed = sys.stdlib_module_names | {"runsfleet_runtime", "botocore", "urllib3"}
    assert top(imports(path)) <= allowed
    own = {n for n in imports(path) if n.startswith("runsfleet_runtime.")}
    rooms = {n.split(".")[1] for n in own}
    assert rooms <= {"agent", "contract", "telemetry", "version"}


@pytest.mark.parametrize("path", sorted((RUNTIME / "handlers").glob("*.py")), ids=name_of)
def test_handlers_are_thin(path: Path) -> None:
    """A handler parses, calls one use case and answers: it knows no adapter."""
    own = {n for n in imports(path) if n.startswith("runsfleet_runtime.")}
    assert not {n for n in own if n.rpartition(".")[2] in ADAPTERS}
    assert len(path.read_text().splitlines()) < 80


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.name in {"model.py", "plan.py", "backoff.py"}], ids=name_of
)
def test_decisions_are_pure(path: Path) -> None:
    """Time, randomness and ids are passed in: models and plans import none of them."""
    assert not top(imports(path)) & {"time", "random", "uuid", "os", "socket", "subprocess"}
