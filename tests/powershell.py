"""A real parser of PowerShell, for scripts that no test can run here."""

from __future__ import annotations

from collections.abc import Iterator

import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

_PARSER = Parser(Language(tree_sitter_powershell.language()))


def parse(script: str) -> Node:
    """Return the tree of a script.

    Raises:
        AssertionError: If it is no PowerShell; naming each place.
    """
    root = _PARSER.parse(script.encode()).root_node
    faults = [
        f"line {node.start_point.row + 1}: {_text(node).splitlines()[:1]}"
        for node in walk(root)
        if node.is_error or node.is_missing
    ]
    assert not root.has_error, f"not PowerShell: {faults}\n{script}"
    return root


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it."""
    yield node
    for child in node.children:
        yield from walk(child)


def commands(script: str) -> list[str]:
    """Return the names of all commands that a script calls, in their order."""
    return [_text(node) for node in walk(parse(script)) if node.type == "command_name"]


def _text(node: Node) -> str:
    return (node.text or b"").decode()
