"""The built assets, as the CDK takes them.

Each asset is named by a hash of what it is made of (lock, sources, target), which is known
without building it. So a template says the same whether or not the CDK asks for the build, and
where it does not (`cdk ls`, tests with the context `aws:cdk:bundling-stacks` set to none), nothing
is fetched or copied.

Where it does, the build runs before the CDK is called: an exception raised inside a callback from
the CDK's JavaScript would arrive wrapped and without the cure that it names.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aws_cdk as cdk
import jsii
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

from runsfleet_constructs.bundling.agent import agent_fingerprint, build_agent_package
from runsfleet_constructs.bundling.dependencies import (
    FUNCTIONS_LOCK,
    build_dependencies,
    dependencies_fingerprint,
)
from runsfleet_constructs.bundling.runtime import build_runtime, runtime_fingerprint
from runsfleet_constructs.bundling.target import Platform

UNBUNDLED_SHA256 = "0" * 64
"""Stands for the hash of an agent package that the CDK did not ask for; matches no file."""

# the CDK wants a source folder and an image, and touches neither when the build is ours
_SOURCE = str(Path(__file__).parent)
_LAYER_FOLDER = "python"


@jsii.implements(cdk.ILocalBundling)
class LocalBundling:
    """Fills the CDK's folder for an asset in this process, so that Docker is never started.

    Args:
        fill: given the folder, puts the asset's files there.
    """

    def __init__(self, fill: Callable[[Path], None]) -> None:
        self._fill = fill

    def try_bundle(self, output_dir: str, options: cdk.BundlingOptions) -> bool:  # noqa: ARG002
        """Fill the folder and say that this was done; called by the CDK."""
        self._fill(Path(output_dir))
        return True


@dataclass(frozen=True, slots=True)
class AgentAsset:
    """The agent package among the assets of a stack.

    Args:
        asset: where it will be; grant reading it to the instances.
        sha256: what the instance compares the download with, in hex; ``UNBUNDLED_SHA256`` when
            the CDK does not build the assets of this stack.
    """

    asset: s3_assets.Asset
    sha256: str


def function_code() -> lambda_.Code:
    """Return the code of the functions: the runtime, without its dependencies.

    All functions of an app share the one asset. Its dependencies are a layer of their own
    (``dependencies_layer_code``), which changes rarely.

    Example:
        >>> lambda_.Function(  # doctest: +SKIP
        ...     self,
        ...     "Webhook",
        ...     code=function_code(),
        ...     handler="runsfleet_runtime.handlers.webhook.handler",
        ...     runtime=lambda_.Runtime.PYTHON_3_13,
        ... )
    """
    return _code(build_runtime, asset_hash=runtime_fingerprint())


def dependencies_layer_code(
    scope: Construct,
    target: Platform,
    *,
    lock: Path = FUNCTIONS_LOCK,
    cache_dir: Path | None = None,
) -> lambda_.Code:
    """Return the content of the layer with what the functions import beside the runtime.

    Args:
        scope: where the layer will stand; decides whether it is built.
        target: what the functions run on.
        lock: requirements with hashes; those of runsfleet by default.
        cache_dir: where built folders are kept; ``default_cache_dir()`` by default.

    Raises:
        BundlingError: when the packages are needed and cannot be fetched.
    """
    if _is_built(scope):
        built = build_dependencies(lock, target, cache_dir)

        def fill(folder: Path) -> None:
            shutil.copytree(built, folder / _LAYER_FOLDER)
    else:
        fill = _never_called

    return _code(fill, asset_hash=dependencies_fingerprint(lock, target))


def agent_asset(
    scope: Construct, construct_id: str, *, cache_dir: Path | None = None
) -> AgentAsset:
    """Put the agent package among the assets of a stack, as the zip that it is.

    Args:
        scope: where the asset stands; decides whether it is built.
        construct_id: id of the asset in that scope.
        cache_dir: where built packages are kept; ``default_cache_dir()`` by default.

    Raises:
        BundlingError: when the package is needed and what it carries cannot be fetched.
    """
    sha256 = UNBUNDLED_SHA256
    fill = _never_called
    if _is_built(scope):
        package = build_agent_package(cache_dir)
        sha256 = package.sha256

        def fill(folder: Path) -> None:
            shutil.copyfile(package.path, folder / package.path.name)

    asset = s3_assets.Asset(
        scope,
        construct_id,
        path=_SOURCE,
        asset_hash_type=cdk.AssetHashType.CUSTOM,
        asset_hash=agent_fingerprint(),
        bundling=_options(fill, cdk.BundlingOutput.ARCHIVED),
    )
    return AgentAsset(asset=asset, sha256=sha256)


def _is_built(scope: Construct) -> bool:
    return cdk.Stack.of(scope).bundling_required


def _never_called(folder: Path) -> None:
    raise AssertionError(f"the cdk asked for {folder} although its stack is not to be bundled")


def _code(fill: Callable[[Path], None], *, asset_hash: str) -> lambda_.Code:
    return lambda_.Code.from_asset(
        _SOURCE,
        asset_hash_type=cdk.AssetHashType.CUSTOM,
        asset_hash=asset_hash,
        bundling=_options(fill, cdk.BundlingOutput.NOT_ARCHIVED),
    )


def _options(fill: Callable[[Path], None], output_type: cdk.BundlingOutput) -> cdk.BundlingOptions:
    return cdk.BundlingOptions(
        image=lambda_.Runtime.PYTHON_3_13.bundling_image,
        # the declared signature has keywords; at run time the options arrive as one object
        local=LocalBundling(fill),  # type: ignore[arg-type]
        output_type=output_type,
    )
