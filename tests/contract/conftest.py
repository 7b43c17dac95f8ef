"""The deployed side of the contract: the templates that the infrastructure tests use too."""

from tests.infrastructure.conftest import dev, library, parameters

__all__ = ["dev", "library", "parameters"]
