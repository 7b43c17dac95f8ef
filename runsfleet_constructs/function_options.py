"""What the functions of a fleet have in common: processor, logs, encryption."""

from __future__ import annotations

from dataclasses import dataclass, replace

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from runsfleet_constructs.bundling import Architecture, Platform
from runsfleet_constructs.bundling.cdk import dependencies_layer_code, function_code

ARCHITECTURE_CONTEXT = "runsfleet:function_architecture"
"""Context that overrides the processor of all functions: ``arm64``, ``x86_64`` or ``host``.

``host`` fits the compiled parts of the functions to this machine and to the interpreter of this
process, for an emulator that runs functions as processes.
"""

PYTHON_VERSION = "3.14"
"""The functions' interpreter: AWS Lambda supports it until the end of 2029 at least."""


@dataclass(frozen=True, kw_only=True)
class FunctionOptions:
    """How all functions of a fleet are built, logged and encrypted.

    Attributes:
        architecture: Processor; default arm64, 20 % cheaper than x86_64 for the same memory and
            time. The context ``runsfleet:function_architecture`` overrides it.
        log_retention: How long logs are kept; default one month.
        removal_policy: What becomes of the logs when the fleet is removed; default ``DESTROY``.
        encryption_key: Key of the logs and of the data that the functions touch; by default keys
            that AWS owns.
        otlp_endpoint: Base URL of an OpenTelemetry collector that traces go to; by default there
            are none.
    """

    architecture: lambda_.Architecture | None = None
    log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH
    removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.DESTROY
    encryption_key: kms.IKey | None = None
    otlp_endpoint: str | None = None


@dataclass(frozen=True)
class FunctionAssets:
    """The code and the layer that the functions of one fleet share.

    Attributes:
        code: The runtime.
        layer: What the runtime imports beside boto3; ``None`` for a function that needs no more.
        architecture: Processor that the layer was built for.
    """

    code: lambda_.Code
    layer: lambda_.ILayerVersion | None
    architecture: lambda_.Architecture

    @classmethod
    def build(cls, scope: Construct, construct_id: str, options: FunctionOptions) -> FunctionAssets:
        """Put the assets of the functions into a scope.

        Args:
            scope: Where the layer stands.
            construct_id: Id of the layer.
            options: The functions' options.

        Raises:
            ValueError: If the context names an unknown processor.
        """
        target = _target(scope, options.architecture)
        architecture = _architecture(target)
        layer = lambda_.LayerVersion(
            scope,
            construct_id,
            code=dependencies_layer_code(scope, target),
            compatible_architectures=[architecture],
            compatible_runtimes=[lambda_.Runtime.PYTHON_3_14],
            description="what the functions of runsfleet import",
        )
        return cls(code=function_code(), layer=layer, architecture=architecture)

    @classmethod
    def without_layer(cls, scope: Construct, options: FunctionOptions) -> FunctionAssets:
        """Return the assets of a function that imports nothing beside boto3.

        Args:
            scope: Any construct of the app.
            options: The function's options.

        Raises:
            ValueError: If the context names an unknown processor.
        """
        target = _target(scope, options.architecture)
        return cls(code=function_code(), layer=None, architecture=_architecture(target))


def _architecture(target: Platform) -> lambda_.Architecture:
    is_arm = target.architecture is Architecture.ARM64
    return lambda_.Architecture.ARM_64 if is_arm else lambda_.Architecture.X86_64


def _target(scope: Construct, architecture: lambda_.Architecture | None) -> Platform:
    default = Platform(Architecture.ARM64, python=PYTHON_VERSION)
    if architecture is not None:
        default = replace(default, architecture=Architecture(architecture.name))
    wanted = scope.node.try_get_context(ARCHITECTURE_CONTEXT)
    if wanted is None:
        return default
    if wanted == "host":
        return Platform.host()
    if wanted not in set(Architecture):
        raise ValueError(
            f"context {ARCHITECTURE_CONTEXT} must be arm64, x86_64 or host, got {wanted!r}"
        )
    return replace(default, architecture=Architecture(wanted))
