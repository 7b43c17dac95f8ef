"""Assets of the fleet, built without Docker, the same to the byte wherever they are built.

`dependencies` fetches locked packages for the functions' platform, `runtime` copies what runs in
the functions, `agent` packs what instances download; `cdk` hands each of them to the CDK. What
takes time is kept in a cache (`cache`), and nothing is built where the CDK does not ask for it.
"""

from runsfleet_constructs.bundling.agent import AgentPackage, build_agent_package
from runsfleet_constructs.bundling.cache import default_cache_dir
from runsfleet_constructs.bundling.dependencies import FUNCTIONS_LOCK, build_dependencies
from runsfleet_constructs.bundling.errors import BundlingError
from runsfleet_constructs.bundling.runtime import build_runtime
from runsfleet_constructs.bundling.target import Architecture, Platform, System

__all__ = [
    "FUNCTIONS_LOCK",
    "AgentPackage",
    "Architecture",
    "BundlingError",
    "Platform",
    "System",
    "build_agent_package",
    "build_dependencies",
    "build_runtime",
    "default_cache_dir",
]
