"""YAML files read with the place of every value, and put together by ``extends``.

PyYAML keeps a mark on each node; it is carried along here, so that whatever is found wrong later
can be said with the file and the line where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

EXTENDS = "extends"

Location = tuple[str | int, ...]
"""Keys and indexes from the root to a value."""


@dataclass(frozen=True, order=True)
class Finding:
    """Something wrong in a file.

    Attributes:
        file: Name of the file.
        line: Line, from 1.
        path: Where in the document, such as ``labels.aliases[0].spec``.
        message: What is wrong, with the value and the cure.
    """

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


@dataclass(frozen=True)
class Position:
    """Where a value stands."""

    file: str
    line: int


@dataclass
class Document:
    """The merged content of a file and of those that it extends.

    Attributes:
        data: Plain values.
        positions: Where each stands; the root is ``()``.
        findings: What is wrong with the files as YAML.
    """

    data: dict[str, Any] = field(default_factory=dict)
    positions: dict[Location, Position] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def position(self, location: Location) -> Position:
        """Return where a value stands, or where the nearest value around it does."""
        for end in range(len(location), -1, -1):
            if found := self.positions.get(location[:end]):
                return found
        return Position("", 1)

    def find(self, location: Location, message: str) -> Finding:
        """Return a finding at a value."""
        position = self.position(location)
        return Finding(position.file, position.line, dotted(location), message)


def dotted(location: Location) -> str:
    """Return a location as people write it.

    Example:
        >>> dotted(("labels", "aliases", 0, "spec"))
        'labels.aliases[0].spec'
    """
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def read(path: Path) -> Document:
    """Read a file and those that it extends.

    Args:
        path: The file.

    Returns:
        The merged document; what could not be read is among its findings.
    """
    return _read(path, shown=path.name, line=1, by=path.name, above=())


def _read(path: Path, *, shown: str, line: int, by: str, above: tuple[Path, ...]) -> Document:
    document = Document(positions={(): Position(shown, 1)})
    chain = (*above, path.resolve())
    if path.resolve() in above:
        names = " -> ".join(p.name for p in chain)
        message = f"files extend one another in a circle ({names}); remove one of the extends"
        document.findings.append(Finding(by, line, EXTENDS, message))
        return document
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        message = f"there is no file {path.name!r} beside this one; correct the name"
        document.findings.append(Finding(by, line, EXTENDS if above else "", message))
        return document
    except (OSError, UnicodeDecodeError) as error:
        document.findings.append(Finding(shown, 1, "", f"cannot be read: {error}"))
        return document
    except yaml.YAMLError as error:
        document.findings.append(_syntax_finding(shown, error))
        return document
    if root is None:
        return document
    if not isinstance(root, yaml.MappingNode):
        message = "must be a mapping of keys to values; write 'key: value' lines"
        document.findings.append(Finding(shown, root.start_mark.line + 1, "", message))
        return document
    document.data = _plain(root, (), shown, document)
    if EXTENDS not in document.data:
        return document
    return _extended(document, path, shown, chain)


def _extended(document: Document, path: Path, shown: str, chain: tuple[Path, ...]) -> Document:
    place = document.position((EXTENDS,))
    name = document.data.pop(EXTENDS)
    if not isinstance(name, str):
        message = f"must be the name of a file beside this one, got {name!r}"
        document.findings.append(Finding(shown, place.line, EXTENDS, message))
        return document
    base = _read(path.parent / name, shown=name, line=place.line, by=shown, above=chain)
    merged = Document(findings=[*base.findings, *document.findings])
    merged.positions = {(): document.positions[()]}
    merged.data = _merge(base, document, (), merged.positions)
    return merged


def _merge(
    base: Document, over: Document, location: Location, positions: dict[Location, Position]
) -> dict[str, Any]:
    low, high = _at(base.data, location), _at(over.data, location)
    result: dict[str, Any] = {}
    for key in [*low, *(key for key in high if key not in low)]:
        here = (*location, key)
        if isinstance(low.get(key), dict) and isinstance(high.get(key), dict):
            positions[here] = over.position(here)
            result[key] = _merge(base, over, here, positions)
            continue
        source = over if key in high else base
        result[key] = (high if key in high else low)[key]
        positions.update(
            (place, position)
            for place, position in source.positions.items()
            if place[: len(here)] == here
        )
    return result


def _at(data: Any, location: Location) -> dict[str, Any]:
    for part in location:
        data = data[part]
    return data  # type: ignore[no-any-return]  # the caller goes through mappings only


def _plain(node: yaml.Node, location: Location, file: str, document: Document) -> Any:
    document.positions[location] = Position(file, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return dict(_items(node, location, file, document))
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(item, (*location, index), file, document)
            for index, item in enumerate(node.value)
        ]
    try:
        return _CONSTRUCTOR.construct_object(node)
    except yaml.YAMLError as error:
        document.findings.append(_syntax_finding(file, error))
        return None
    except ValueError as error:  # a date that does not exist, say
        document.findings.append(document.find(location, f"cannot be read: {error}; quote it"))
        return None


def _items(
    node: yaml.MappingNode, location: Location, file: str, document: Document
) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else ""
        if not key or key_node.tag == "tag:yaml.org,2002:merge":
            message = "a key must be plain text; write 'key: value' (use extends instead of <<)"
            document.findings.append(Finding(file, line, dotted(location), message))
            continue
        here = (*location, key)
        if key in seen:
            message = f"this key stands in line {seen[key]} already; keep one of the two"
            document.findings.append(Finding(file, line, dotted(here), message))
        seen[key] = line
        value = _plain(value_node, here, file, document)
        # of the key: a block below it begins in a later line
        document.positions[here] = Position(file, line)
        yield key, value


def _syntax_finding(file: str, error: yaml.YAMLError) -> Finding:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    line = mark.line + 1 if mark is not None else 1
    return Finding(
        file, line, "", f"this is not YAML: {problem}; look at the line and the one before"
    )


_CONSTRUCTOR = yaml.SafeLoader("")
