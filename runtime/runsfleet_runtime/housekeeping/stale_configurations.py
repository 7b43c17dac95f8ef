"""Configurations of runners whose instance does not exist any more.

They hold secrets, if expired ones. The end of an instance takes its configuration along; this is
for the ends that nobody took.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping.leftovers import EndsLeftovers
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare

YOUNG_SECONDS: Final = 3600.0
"""A configuration is left alone for so long: its instance may be so new that EC2 does not show it,
and its end may be under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A runner's configuration; what is in it is not read.

    Attributes:
        instance_id: Its instance.
        written_at: Epoch seconds; 0 when nobody can tell.
        is_instance_gone: Whether EC2 does not show the instance.
    """

    instance_id: str
    written_at: float
    is_instance_gone: bool = False


def decide(found: Configuration, *, now: float) -> Verdict:
    """Judge a configuration.

    Example:
        >>> str(decide(Configuration(instance_id="i-1", written_at=0.0), now=1e9))
        'spared: its age is unknown'
    """
    if not found.written_at:
        return spare("its age is unknown")
    if now - found.written_at <= YOUNG_SECONDS:
        return spare("young")
    if not found.is_instance_gone:
        return spare("its instance lives")
    return Verdict("delete", "its instance is gone")


class ListsConfigurations(Protocol):
    """The store of runner configurations."""

    def pages(self) -> Iterator[Sequence[Configuration]]:
        """Yield what there is, page by page; raises ``SweepError``."""


class ForgetsRunners(Protocol):
    """The same store, as others use it."""

    def delete(self, instance_id: str) -> None:
        """Delete all parts of a configuration; may be repeated. Raises ``RunnerStoreError``."""


class StaleConfigurations:
    """The task.

    Args:
        configurations: The store of configurations.
        runners: The same store; deletes.
        instances: EC2.
    """

    name: Final = HousekeepingTask.STALE_CONFIGURATIONS
    limit: Final = 1000

    def __init__(
        self,
        *,
        configurations: ListsConfigurations,
        runners: ForgetsRunners,
        instances: EndsLeftovers,
    ) -> None:
        self._configurations = configurations
        self._runners = runners
        self._instances = instances

    def select(self, run: Run) -> Iterator[Sequence[Configuration]]:
        """Yield all configurations."""
        del run
        # what is launched after this has a young configuration
        there: Collection[str] = {i.key for page in self._instances.pages() for i in page}
        for page in self._configurations.pages():
            yield [
                dataclasses.replace(found, is_instance_gone=found.instance_id not in there)
                for found in page
            ]

    def key(self, found: Configuration) -> str:
        """Return the instance's id."""
        return found.instance_id

    def decide(self, found: Configuration, *, now: float) -> Verdict:
        """Judge; see :func:`decide`."""
        return decide(found, now=now)

    def reread(self, found: Configuration) -> Configuration | None:
        """Ask EC2 once more for the instance; a configuration belongs to one instance for ever."""
        is_gone = self._instances.find(found.instance_id) is None
        return dataclasses.replace(found, is_instance_gone=is_gone)

    def act(self, found: Configuration, verdict: Verdict) -> bool:
        """Delete all parts of it."""
        del verdict
        self._runners.delete(found.instance_id)
        return True
