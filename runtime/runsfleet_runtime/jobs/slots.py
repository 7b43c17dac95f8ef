"""Caps on runners that exist at once: of the fleet, of an owner, of a repository.

A job holds a slot from its claim until it leaves claimed, launched or running. Its counters are
moved in the transaction that moves its record, and the record says whether it counts, so a counter
is the number of records that hold a slot, whatever is repeated or lost. All three scopes are
counted as soon as one is capped: a cap that is added later finds its counter right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

FLEET: Final = "fleet"


def scopes_of(repository: str) -> tuple[str, str, str]:
    """Return the scopes that a job of a repository counts towards.

    Example:
        >>> scopes_of("acme/web")
        ('fleet', 'owner:acme', 'repository:acme/web')
    """
    return FLEET, f"owner:{repository.partition('/')[0]}", f"repository:{repository}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The caps; at least one of them is given.

    Attributes:
        table: Physical name of the table of counters.
        fleet: Most runners of the fleet; ``None`` for no cap.
        owner: Most runners of one organisation or user; ``None`` for no cap.
        repository: Most runners of one repository; ``None`` for no cap.
    """

    table: str
    fleet: int | None = None
    owner: int | None = None
    repository: int | None = None

    @classmethod
    def of(
        cls, table: str, *, fleet: int | None, owner: int | None, repository: int | None
    ) -> Caps | None:
        """Return the caps; ``None`` when there are none, and nothing is counted."""
        if fleet is None and owner is None and repository is None:
            return None
        return cls(table=table, fleet=fleet, owner=owner, repository=repository)

    def most(self, scope: str) -> int | None:
        """Return the cap of a scope; ``None`` when it has none."""
        if scope == FLEET:
            return self.fleet
        return self.owner if scope.startswith("owner:") else self.repository

    def refuse(self, repositories: Sequence[str], used: Mapping[str, int]) -> dict[int, str]:
        """Say which of some jobs find no free slot, the first ones first.

        Args:
            repositories: The repository of each job.
            used: Slots in use, as far as known; an unknown scope counts as empty.

        Returns:
            The scope that is full, by the position of the job.

        Example:
            >>> Caps(table="slots", fleet=3).refuse(["a/x", "a/y", "b/z"], {"fleet": 1})
            {2: 'fleet'}
        """
        taken: Counter[str] = Counter(used)
        refused: dict[int, str] = {}
        for position, repository in enumerate(repositories):
            scopes = scopes_of(repository)
            full = [s for s in scopes if (m := self.most(s)) is not None and taken[s] >= m]
            if full:
                refused[position] = full[0]
            else:
                taken.update(scopes)
        return refused
