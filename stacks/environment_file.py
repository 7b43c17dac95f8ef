"""Environment files read, put together and checked as a whole.

Everything that is wrong, in every file, is reported at once: file, line, path, value and cure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from runsfleet_runtime.labels.settings import LabelSettingsError
from stacks.environment_model import EnvironmentFile
from stacks.yaml_positions import Document, Finding, Location, read

BASE = "base"
"""Name of the file that is only extended and is no environment."""

_SECRET = re.compile(r"PRIVATE KEY|gh[ps]_|github_pat_")


class EnvironmentFilesError(ValueError):
    """The environment files are wrong; the message lists every finding.

    Attributes:
        findings: All of them, at least one.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(sorted(set(findings)))
        count = len(self.findings)
        title = f"{count} {'finding' if count == 1 else 'findings'} in environment files"
        super().__init__("\n".join([title, *(f"  {finding}" for finding in self.findings)]))


def load_environments(folder: Path, only: Sequence[str] | None = None) -> list[EnvironmentFile]:
    """Load the environments of a folder, one for each ``*.yaml`` file but ``base.yaml``.

    Args:
        folder: The folder.
        only: Names of the environments to load; all if left out.

    Returns:
        The environments by name.

    Raises:
        EnvironmentFilesError: If anything is wrong in any of the files.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.yaml")) if path.stem != BASE}
    names = list(files) if only is None else list(dict.fromkeys(only))
    findings: list[Finding] = []
    environments: list[EnvironmentFile] = []
    for name in names:
        if name not in files:
            message = f"there is no such environment; use one of {', '.join(files) or 'none'}"
            findings.append(Finding(f"{name}.yaml", 1, "", message))
            continue
        loaded = load_environment(files[name])
        if isinstance(loaded, EnvironmentFile):
            environments.append(loaded)
        else:
            findings += loaded
    if not names:
        message = f"there is no environment in {folder.name}; write one, for example dev.yaml"
        findings.append(Finding(folder.name, 1, "", message))
    if findings:
        raise EnvironmentFilesError(findings)
    return environments


def load_environment(path: Path) -> EnvironmentFile | list[Finding]:
    """Load one environment.

    Args:
        path: Its file; the environment is named after it unless the file says otherwise.

    Returns:
        The environment, or everything that is wrong with it.
    """
    document = read(path)
    data = {"name": path.stem, **document.data}
    try:
        environment = EnvironmentFile.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        found = [f for detail in details for f in _findings(document, detail)]
        return document.findings + found
    return document.findings or environment


def _findings(document: Document, detail: ErrorDetails) -> Iterator[Finding]:
    location = _without_variants(document, detail["loc"])
    error = detail.get("ctx", {}).get("error")
    if not isinstance(error, LabelSettingsError):
        yield document.find(location, _message(location, detail))
        return
    for finding in error.findings:
        message = f"{finding.reason}; {finding.cure}, got {finding.value!r}"
        yield document.find((*location, *_label_place(finding.key)), message)


def _label_place(key: str) -> Location:
    """Return where a finding of the label grammar stands below ``labels``.

    Example:
        >>> _label_place("label_aliases[1].spec: runner")
        ('aliases', 1, 'spec')
    """
    found = re.match(r"(?:label_)?(\w+)(?:\[([^\]]+)\])?(?:\.(\w+))?", key)
    parts = [part for part in (found.groups() if found else ()) if part]
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _without_variants(document: Document, location: Location) -> Location:
    """Drop the names that pydantic inserts for the variants of a union."""
    value: Any = document.data
    kept: list[str | int] = []
    for part in location:
        is_key = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if is_key:
            value = value[part]
            kept.append(part)
        elif part == location[-1] and isinstance(value, dict) and str(part).isidentifier():
            kept.append(part)
    return tuple(kept)


def _message(location: Location, detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        return f"there is no such key; {_closest(location)}"
    if kind == "value_error":
        text = str(context["error"])
    elif kind in ("literal_error", "enum"):
        text = f"must be {context['expected']}"
    elif kind == "string_pattern_mismatch":
        text = f"must have the form {context['pattern']}"
    else:
        text = detail["msg"].replace("Input should", "must").replace("Value error, ", "")
        text = text[:1].lower() + text[1:]
    return text if isinstance(detail["input"], dict | list) else f"{text}, got {_shown(detail)}"


def _shown(detail: ErrorDetails) -> str:
    value = repr(detail["input"])
    # a key in the wrong place must not end in a build log
    if _SECRET.search(value):
        return "what looks like a secret; put it into Secrets Manager and name it here"
    return value if len(value) <= 80 else f"{value[:77]}…"  # noqa: PLR2004  # one line of a terminal


def _closest(location: Location) -> str:
    known = list(_known_keys(location[:-1]))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"use one of {', '.join(known)}" if known else "remove it"


def _known_keys(location: Location) -> Iterator[str]:
    model: Any = EnvironmentFile
    for part in location:
        if isinstance(part, int):
            continue
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return
        model = next(_models(fields[part].annotation), None)
    yield from getattr(model, "model_fields", {})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)
