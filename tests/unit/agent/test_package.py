from __future__ import annotations

import hashlib
import json
import logging
import tarfile
from pathlib import Path

import pytest

from runsfleet_runtime.agent.download import UrlDownloads
from runsfleet_runtime.agent.errors import PackageError, StopRequestedError, WrongDigestError
from runsfleet_runtime.agent.package import (
    BakedRunner,
    ProvidedRunner,
    RunnerPackages,
    package_version,
    unpack,
)
from tests.unit.agent.fakes import (
    FILENAME,
    VERSION,
    FakeCache,
    FakeClock,
    FakeDownloads,
    archive,
    runner_config,
)
from tests.unit.agent.servers import file_server

PACKAGE = archive({"run.sh": "#!/bin/sh\n", "bin/tool": "x"}, links={"bin/link": "tool"})
SHA256 = hashlib.sha256(PACKAGE).hexdigest()
KEY = f"runners/{VERSION}/linux-x64/{FILENAME}"
URL = "https://github.example/runner.tar.gz"
CONFIG = runner_config(package_url=URL, package_filename=FILENAME, package_sha256=SHA256)


class Case:
    """A provider with everything around it."""

    def __init__(self, directory: Path, *answers: bytes | Exception) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.cache = FakeCache()
        self.downloads = FakeDownloads(*(answers or (PACKAGE,)))
        self.baked = BakedRunner(directory=directory / "baked", marker=directory / "baked.json")
        self.free = 10**12
        self.workspace = directory / "workspace"
        self.workspace.mkdir()
        self.packages = RunnerPackages(
            platform="linux-x64",
            baked=self.baked,
            cache=self.cache,
            downloads=self.downloads,
            clock=self.clock,
            draw=lambda: 0.5,
            free_bytes=lambda _: self.free,
        )

    def bake(self, version: str, platform: str = "linux-x64") -> None:
        self.baked.directory.mkdir(exist_ok=True)
        self.baked.marker.write_text(json.dumps({"version": version, "platform": platform}))

    def provide(self, **changes: object) -> ProvidedRunner:
        config = runner_config(
            **{
                "package_url": URL,
                "package_filename": FILENAME,
                "package_sha256": SHA256,
                **changes,
            }
        )
        return self.packages.provide(config, self.workspace)


def test_a_package_is_downloaded_verified_unpacked_and_cached(tmp_path: Path) -> None:
    """With neither image nor cache, GitHub's package is used and kept for the next instance."""
    case = Case(tmp_path)
    provided = case.provide()
    assert provided.source == "download"
    assert (provided.root / "run.sh").stat().st_mode & 0o111
    assert (provided.root / "bin/link").readlink() == Path("tool")
    assert case.downloads.urls == [URL]
    case.packages.keep(provided)
    assert case.cache.objects == {KEY: PACKAGE}
    assert [p.name for p in case.workspace.iterdir()] == ["runner"]


def test_a_cached_package_spares_the_download(tmp_path: Path) -> None:
    """The cache is asked first, and not written again."""
    case = Case(tmp_path)
    case.cache.objects[KEY] = PACKAGE
    provided = case.provide()
    assert provided.source == "cache"
    assert case.downloads.urls == []
    case.cache.objects.clear()
    case.packages.keep(provided)
    assert case.cache.objects == {}


def test_a_poisoned_cache_is_not_believed(tmp_path: Path) -> None:
    """A cached package with another digest is dropped for GitHub's and replaced."""
    case = Case(tmp_path)
    case.cache.objects[KEY] = archive({"run.sh": "#!/bin/sh\nevil"})
    provided = case.provide()
    assert provided.source == "download"
    assert (provided.root / "run.sh").read_text() == "#!/bin/sh\n"
    case.packages.keep(provided)
    assert case.cache.objects == {KEY: PACKAGE}


def test_a_cache_that_fails_costs_nothing_but_time(tmp_path: Path) -> None:
    """A cache that cannot be read or written does not fail the job."""
    case = Case(tmp_path)
    case.cache.failure = OSError("S3 does not answer")
    provided = case.provide()
    assert provided.source == "download"
    case.packages.keep(provided)


def test_a_download_is_tried_three_times(tmp_path: Path) -> None:
    """Two failures of any kind are survived, with pauses in between."""
    case = Case(tmp_path, OSError("reset"), PackageError("ended early"), PACKAGE)
    assert case.provide().source == "download"
    assert len(case.downloads.urls) == 3
    assert case.clock.time > 1001


def test_a_download_that_never_works_is_an_error(tmp_path: Path) -> None:
    """After three tries the reason is told, and nothing was unpacked."""
    case = Case(tmp_path, OSError("reset"))
    with pytest.raises(PackageError, match=r"cannot download.*reset"):
        case.provide()
    assert len(case.downloads.urls) == 3
    assert not (case.workspace / "runner").exists()


def test_a_wrong_digest_is_final(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not the named package is fetched once, told loudly, and neither kept nor replaced."""
    monkeypatch.setattr(logging.getLogger("runsfleet"), "propagate", True)
    case = Case(tmp_path, b"other bytes", PACKAGE)
    case.bake("2.330.0")
    with pytest.raises(WrongDigestError, match="has SHA-256"):
        case.provide()
    assert len(case.downloads.urls) == 1
    assert list(case.workspace.iterdir()) == []
    assert case.cache.objects == {}
    assert {r.levelname for r in caplog.records if "not genuine" in r.message} == {"ERROR"}


def test_a_stop_ends_the_tries(tmp_path: Path) -> None:
    """A stop during the pauses or within a download is obeyed."""
    case = Case(tmp_path, OSError("reset"))
    case.clock.stop_at = 1000.1
    with pytest.raises(StopRequestedError):
        case.provide()
    assert len(case.downloads.urls) == 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"package_sha256": ""}, "cannot be verified"),
        ({"package_sha256": "abc"}, "64 hexadecimal"),
        ({"package_filename": "../actions-runner-linux-x64-2.337.0.tar.gz"}, "package_filename"),
        ({"package_filename": "actions-runner-win-x64-2.337.0.zip"}, "package_filename"),
        ({"package_filename": ""}, "package_filename"),
        ({"package_url": ""}, "no package_url"),
    ],
)
def test_a_package_that_is_not_fully_named_is_refused(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    """Without a digest, a sane name or an address there is no runner, and it says why."""
    case = Case(tmp_path)
    with pytest.raises(PackageError, match=complaint):
        case.provide(**changes)
    assert case.downloads.urls == []


def test_a_full_disk_is_told_before_the_download(tmp_path: Path) -> None:
    """With less than 1 GB free nothing is fetched."""
    case = Case(tmp_path)
    case.free = 999_999_999
    with pytest.raises(PackageError, match="999999999 bytes are free"):
        case.provide()


def test_the_images_runner_is_used_when_it_is_the_wanted_one(tmp_path: Path) -> None:
    """A baked runner of the configured version, or with none configured, is used in place."""
    case = Case(tmp_path)
    case.bake(VERSION)
    assert case.provide().source == "baked"
    assert case.provide(package_filename="", package_sha256="").root == case.baked.directory
    assert case.downloads.urls == []


def test_an_outdated_image_is_the_last_resort(tmp_path: Path) -> None:
    """Another version than the baked one is fetched; only if that fails the baked one is used."""
    case = Case(tmp_path)
    case.bake("2.330.0")
    assert case.provide().source == "download"
    case.downloads.answers = [OSError("GitHub does not answer")]
    assert case.provide().source == "baked"


def test_an_image_below_githubs_floor_is_no_resort(tmp_path: Path) -> None:
    """A runner that GitHub does not register is not tried; the error tells both reasons."""
    case = Case(tmp_path, OSError("GitHub does not answer"))
    case.bake("2.328.9")
    with pytest.raises(PackageError, match=r"does not answer.*2\.328\.9.*make a new image"):
        case.provide()


def test_the_versions_are_known(tmp_path: Path) -> None:
    """What is used and what the image has are told, whichever was used."""
    case = Case(tmp_path)
    case.bake("2.330.0")
    provided = case.provide()
    assert (provided.version, provided.baked_version) == (VERSION, "2.330.0")
    case.bake(VERSION)
    provided = case.provide()
    assert (provided.version, provided.baked_version) == (VERSION, VERSION)


def test_an_images_runner_for_another_platform_is_none(tmp_path: Path) -> None:
    """The marker's platform has to fit."""
    case = Case(tmp_path)
    case.bake(VERSION, platform="linux-arm64")
    assert case.provide().source == "download"


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("actions-runner-linux-arm64-2.337.0.tar.gz", "2.337.0"),
        ("actions-runner-win-x64-2.337.10.zip", "2.337.10"),
        ("actions-runner-linux-x64.tar.gz", None),
        ("", None),
    ],
)
def test_the_version_is_in_the_file_name(name: str, version: str | None) -> None:
    """Names of release assets end in their version."""
    assert package_version(name) == version


@pytest.mark.parametrize("has_filters", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        archive({"../outside": "x", "run.sh": "x"}),
        archive({"/absolute/../../outside": "x", "run.sh": "x"}),
        archive({"run.sh": "x"}, links={"link": "/etc/passwd"}),
        archive({"run.sh": "x"}, links={"link": "../../outside"}),
        archive({"no-run.sh": "x"}),
        b"no archive at all",
        PACKAGE[: len(PACKAGE) // 2],
    ],
    ids=["parent", "absolute", "link", "relative-link", "no-runner", "no-archive", "truncated"],
)
def test_an_archive_cannot_lead_outside(
    tmp_path: Path, content: bytes, has_filters: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members that leave the root, foreign links and damaged archives are refused."""
    if not has_filters:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(PackageError, match=r"a\.tar\.gz"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "root")
    assert not (tmp_path / "outside").exists()


def test_a_python_without_filters_unpacks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 12's Python 3.11.2 has no extraction filters; links inside the package are kept."""
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    content = archive({"run.sh": "x", "bin/a": "y"}, links={"link": "bin/a"})
    (tmp_path / "a.tar.gz").write_bytes(content)
    unpack(tmp_path / "a.tar.gz", tmp_path / "root")
    assert (tmp_path / "root" / "link").read_text() == "y"


class TestUrlDownloads:
    """The real downloader against a real server."""

    def test_redirects_are_followed(self, tmp_path: Path) -> None:
        """A release download redirects to a storage address, as GitHub's do."""
        with file_server() as server:
            server.files = {"/a": f"{server.url}/b", "/b": PACKAGE}
            UrlDownloads().download(f"{server.url}/a", tmp_path / "t", check=lambda: None)
        assert (tmp_path / "t").read_bytes() == PACKAGE

    def test_a_cut_answer_is_an_error(self, tmp_path: Path) -> None:
        """A connection that ends early is noticed."""
        with file_server() as server:
            server.files = {"/a": PACKAGE}
            server.cut = True
            with pytest.raises(PackageError, match="bytes early"):
                UrlDownloads().download(f"{server.url}/a", tmp_path / "t", check=lambda: None)

    def test_a_missing_file_is_an_error(self, tmp_path: Path) -> None:
        """404 is told as such."""
        with file_server() as server, pytest.raises(OSError, match="404"):
            UrlDownloads().download(f"{server.url}/a", tmp_path / "t", check=lambda: None)

    def test_other_kinds_of_addresses_are_refused(self, tmp_path: Path) -> None:
        """A configuration cannot make the agent read local files."""
        with pytest.raises(PackageError, match="https address"):
            UrlDownloads().download("file:///etc/passwd", tmp_path / "t", check=lambda: None)

    def test_a_stop_ends_a_download(self, tmp_path: Path) -> None:
        """The check is asked while the download runs."""

        def stop() -> None:
            raise StopRequestedError("SIGTERM")

        with file_server() as server:
            server.files = {"/a": PACKAGE}
            with pytest.raises(StopRequestedError):
                UrlDownloads().download(f"{server.url}/a", tmp_path / "t", check=stop)
