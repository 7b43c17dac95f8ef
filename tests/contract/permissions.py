"""Which IAM actions a function's code needs, read from the code.

From a builder in a composition module, or from a module, the code that can run is followed by
name: a class runs when running code mentions it, a method when moreover running code mentions its
name. In what runs of the adapters the calls of botocore clients are looked for:
``client.send_message_batch`` needs ``sqs:SendMessage``; a transaction needs the actions of its
parts. Names are compared, not types, so the answer may hold too much and never too little.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "runtime"
PACKAGE = "runsfleet_runtime"

SERVICES = ("dynamodb", "ec2", "logs", "s3", "secretsmanager", "sqs", "ssm")
"""Adapters are modules named for their service."""

OTHER_ADAPTERS = {"aws_prices": "ec2", "aws_topic": "sns", "aws_usage": "cloudwatch"}
"""Those that are named for what they do, and the service that they call."""

CLIENTS = {"ec2": "ec2", "pricing": "pricing"}
"""Names of clients that tell their service, in an adapter of several."""

TRANSACTION_PARTS = {
    "ConditionCheck": "dynamodb:ConditionCheckItem",
    "Delete": "dynamodb:DeleteItem",
    "Put": "dynamodb:PutItem",
    "Update": "dynamodb:UpdateItem",
}

# where the action is not the method's name in camel case
ACTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("dynamodb", "transact_write_items"): (),  # its parts, wherever they are written
    ("ec2", "create_fleet"): (
        "ec2:CreateFleet",
        "ec2:CreateTags",
        "ec2:RunInstances",
        "iam:CreateServiceLinkedRole",
        "iam:PassRole",
        "ssm:GetParameters",
    ),
    ("sqs", "send_message_batch"): ("sqs:SendMessage",),
    ("sqs", "delete_message_batch"): ("sqs:DeleteMessage",),
    ("sqs", "change_message_visibility_batch"): ("sqs:ChangeMessageVisibility",),
    ("s3", "list_objects_v2"): ("s3:ListBucket",),
    ("ssm", "put_parameter"): ("ssm:AddTagsToResource", "ssm:PutParameter"),
}

Definition = ast.FunctionDef | ast.ClassDef


@dataclass
class Code:
    """Modules, and what of them can run.

    Attributes:
        without: Modules that this deployment does not use (the other configuration store).
        modules: Parsed modules by name.
        running: What can run, each with the module that it stands in.
        mentioned: Every name that running code mentions.
    """

    without: tuple[str, ...] = ()
    modules: dict[str, ast.Module] = field(default_factory=dict)
    running: list[tuple[str, ast.AST]] = field(default_factory=list)
    mentioned: set[str] = field(default_factory=set)

    def run(self, module: str, node: ast.AST) -> None:
        """Take note that a piece of code can run."""
        self.running.append((module, node))
        self.mentioned |= set(_mentioned(node))
        for name in _imports(node):
            self.load(name)

    def load(self, module: str) -> None:
        """Take note that a module is imported: its statements run, its definitions may."""
        path = _path(module)
        if module in self.modules or module in self.without or path is None:
            return
        tree = self.modules[module] = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if not isinstance(node, Definition):
                self.run(module, node)

    def spread(self) -> None:
        """Follow what is mentioned until nothing more can run."""
        done: set[int] = set()
        before = -1
        while before != len(done):
            before = len(done)
            for name in list(self.modules):
                for node in _definitions(self.modules[name], self.mentioned):
                    if id(node) not in done:
                        done.add(id(node))
                        self.run(name, node)

    @property
    def actions(self) -> set[str]:
        """The actions that the code that can run needs."""
        return {
            action
            for module, node in self.running
            if (service := _service(module.rpartition(".")[2]))
            for action in _actions(service, node)
        }


def code_of_builder(composition: str, builder: str, *, without: tuple[str, ...] = ()) -> Code:
    """Return what a builder of a composition module and the use case that it builds can run.

    Args:
        composition: Name of the module.
        builder: Name of the function, and of the handler that calls it.
        without: Modules that this deployment does not use.
    """
    functions = {
        node.name: node for node in _parse(composition).body if isinstance(node, ast.FunctionDef)
    }
    code, waiting, done = Code(without), [builder], set[str]()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in done:
            done.add(name)
            code.run(composition, functions[name])
            waiting += [n.id for n in ast.walk(functions[name]) if isinstance(n, ast.Name)]
    handler = f"{PACKAGE}.handlers.{builder}"
    for node in _parse(handler).body:
        if isinstance(node, Definition):
            code.run(handler, node)
    code.modules.pop(composition, None)
    code.spread()
    return code


def code_of_module(module: str, *, without: tuple[str, ...] = ()) -> Code:
    """Return what a program can run.

    Args:
        module: Its main module.
        without: Modules that this deployment does not use.
    """
    code = Code(without)
    code.load(module)
    code.spread()
    return code


def _definitions(tree: ast.Module, mentioned: set[str]) -> Iterator[ast.AST]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in mentioned:
            yield node
        elif isinstance(node, ast.ClassDef) and node.name in mentioned:
            yield from node.bases
            for part in node.body:
                name = part.name if isinstance(part, ast.FunctionDef) else "__body__"
                if name in mentioned or name.startswith("__"):
                    yield part


def _service(module: str) -> str | None:
    return module if module in SERVICES else OTHER_ADAPTERS.get(module)


def _actions(default: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = node.func.attr
            service = CLIENTS.get(_name(node.func.value), default)
            if method == "get_paginator" and isinstance(node.args[0], ast.Constant):
                method = str(node.args[0].value)
            if method != "client" and _is_client(node.func.value):
                camel = "".join(word.capitalize() for word in method.split("_"))
                yield from ACTIONS.get((service, method), (f"{service}:{camel}",))
        elif isinstance(node, ast.Dict) and default == "dynamodb":
            keys = (key.value for key in node.keys if isinstance(key, ast.Constant))
            yield from (TRANSACTION_PARTS[k] for k in keys if k in TRANSACTION_PARTS)


def _is_client(node: ast.expr) -> bool:
    """Whether an expression is a botocore client: ``client``, ``self._client``, ``clients(…)``."""
    return _name(node) in ("client", "clients", *CLIENTS)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return name.lstrip("_")


def _mentioned(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(PACKAGE))


def _parse(module: str) -> ast.Module:
    path = _path(module)
    if path is None:
        raise LookupError(f"there is no module {module} in {ROOT}")
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _path(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None
