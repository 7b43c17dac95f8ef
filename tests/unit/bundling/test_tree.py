from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from runsfleet_constructs.bundling.tree import (
    EPOCH_SECONDS,
    fingerprint,
    is_source,
    make_reproducible,
    tidy_installation,
    write_zip,
)


def _write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_an_installation_is_reduced_to_packages_and_licences(tmp_path: Path) -> None:
    """Scripts, byte code and what the installer noted go; code, metadata and licences stay."""
    _write(
        tmp_path,
        "bin/tool",
        "one/__init__.py",
        "one/__pycache__/__init__.cpython-311.pyc",
        "one-1.0.dist-info/METADATA",
        "one-1.0.dist-info/RECORD",
        "one-1.0.dist-info/INSTALLER",
        "one-1.0.dist-info/licenses/LICENSE.txt",
        "one-1.0.dist-info/sboms/parts.json",
        ".lock",
    )

    tidy_installation(tmp_path)

    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {
        "one",
        "one/__init__.py",
        "one-1.0.dist-info",
        "one-1.0.dist-info/METADATA",
        "one-1.0.dist-info/licenses",
        "one-1.0.dist-info/licenses/LICENSE.txt",
    }


def test_times_and_permissions_do_not_tell_who_built_it(tmp_path: Path) -> None:
    """Every file and folder has the one time and the usual permissions."""
    _write(tmp_path, "a/b.so", "c.py")
    (tmp_path / "c.py").chmod(0o600)

    make_reproducible(tmp_path)

    for path in tmp_path.rglob("*"):
        assert path.stat().st_mtime == EPOCH_SECONDS
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_a_zip_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    """The order in which entries are given leaves no trace, and nothing is compressed."""
    entries = [("b/two", b"2"), ("a", b"1" * 1000)]
    write_zip(tmp_path / "x.zip", entries)
    write_zip(tmp_path / "y.zip", reversed(entries))

    assert (tmp_path / "x.zip").read_bytes() == (tmp_path / "y.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() == ["a", "b/two"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o644}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("a", b"1")], [("a", b"2")]),
        ([("a", b"1")], [("b", b"1")]),
        ([("a", b"b"), ("c", b"")], [("a", b""), ("c", b"b")]),
        ([("a", b"1")], [("a", b"1"), ("b", b"")]),
    ],
)
def test_a_fingerprint_tells_contents_apart(
    one: list[tuple[str, bytes]], other: list[tuple[str, bytes]]
) -> None:
    """Another name, content or border between them gives another hash."""
    assert fingerprint(one) != fingerprint(other)


def test_a_fingerprint_ignores_the_order() -> None:
    """The order in which parts are found leaves no trace."""
    parts = [("a", b"1"), ("b", b"2")]
    assert fingerprint(parts) == fingerprint(reversed(parts))


def test_byte_code_is_no_source() -> None:
    """What an interpreter left in a package is not taken for the package."""
    assert is_source(Path("a") / "b.py")
    assert not is_source(Path("a") / "__pycache__" / "b.txt")
    assert not is_source(Path(f"a{os.sep}b.pyc"))
