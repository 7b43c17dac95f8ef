"""A tiny package index on disk, so that the real installer runs without a network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class LocalIndex:
    """Wheels in a folder, and locks that name them."""

    folder: Path
    hashes: dict[str, str] = field(default_factory=dict)

    def add(
        self, name: str, files: dict[str, str], *, tag: str = "py3-none-any", version: str = "1.0"
    ) -> None:
        """Put a wheel of that name and content there."""
        info = f"{name}-{version}.dist-info"
        entries = {
            **files,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
            f"{info}/licenses/LICENSE": "permitted",
            f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
        }
        record = "".join(
            f"{path},sha256={_urlsafe(content)},{len(content)}\n"
            for path, content in entries.items()
        )
        entries[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
        wheel = self.folder / f"{name}-{version}-{tag}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in entries.items():
                archive.writestr(path, content)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        line = f"{name}=={version}"
        self.hashes[line] = f"{self.hashes.get(line, '')} --hash=sha256:{digest}"

    def lock(self, path: Path) -> Path:
        """Write a lock of everything that was added."""
        path.write_text("".join(f"{line}{hashes}\n" for line, hashes in self.hashes.items()))
        return path


def _urlsafe(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalIndex:
    """An index that pip, and uv, use instead of any other."""
    folder = tmp_path / "index"
    folder.mkdir()
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(folder))
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
    return LocalIndex(folder)


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """A cache of its own, empty."""
    return tmp_path / "cache"
