"""The values of one label: each key's own form and limits, with a finding for what breaks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from runsfleet_runtime.labels.families import FAMILIES
from runsfleet_runtime.labels.model import LabelFinding, find
from runsfleet_runtime.labels.named import NamedRunner, read_runner

if TYPE_CHECKING:
    from runsfleet_runtime.labels.settings import LabelSettings

Choice = TypeVar("Choice")

KEYS = (
    "runner",
    "cpu",
    "ram",
    "arch",
    "os",
    "family",
    "gen",
    "disk",
    "pool",
    "spot",
    "retry",
    "private",
    "region",
    "env",
    "image",
)
# longest name of a pool in runs-fleet; the other names follow it
MAX_NAME_CHARS = 63
# more digits than any number of the grammar needs; int() of thousands of them is slow or refused
_MAX_DIGITS = 6
_MAX_GENERATION = 10


def is_name(text: str) -> bool:
    """Tell whether a text can name a pool, image, region or fleet.

    ASCII letters and digits, ``-`` and ``_``, 63 at most: the rule of runs-fleet for pools; valid
    in a tag, a metric dimension and a DynamoDB key alike.
    """
    plain = text.replace("-", "").replace("_", "")
    return len(text) <= MAX_NAME_CHARS and plain.isascii() and plain.isalnum()


class Reader:
    """Reads the values of one label and notes everything that is wrong with them.

    A reading method returns ``None`` when the key is not given or its value is at fault; ``sound``
    tells the two apart.

    Args:
        text: ``key=value`` pairs joined by ``/``; empty means none.
        label: The label as its author wrote it, for the findings.
        settings: What the fleet offers.
    """

    def __init__(self, text: str, label: str, settings: LabelSettings) -> None:
        self.settings = settings
        self.findings: list[LabelFinding] = []
        self._label = label
        self._values: dict[str, str] = {}
        self._unsound: set[str] = set()
        if text:
            for part in text.split("/"):
                self._take(part)

    def fault(self, key: str, reason: str, cure: str, *, value: str | None = None) -> None:
        """Note a finding about a key, by default about its value in the label."""
        written = self._values.get(key, "") if value is None else value
        self._unsound.add(key)
        self.findings.append(find(self._label, key, written, reason, cure))

    def sound(self, *keys: str) -> bool:
        """Tell whether nothing was found to be wrong with these keys."""
        return self._unsound.isdisjoint(keys)

    def given(self, key: str) -> str | None:
        """Return the value of a key as it stands in the label; ``None`` when absent or empty."""
        return self._values.get(key) or None

    def choice(self, key: str, offered: Mapping[str, Choice]) -> Choice | None:
        """Read a key whose value is one word of a few."""
        text = self.given(key)
        if text is None or text in offered:
            return None if text is None else offered[text]
        lower = text.strip().lower()
        known = ", ".join(offered)
        cure = f"write {key}={lower}" if lower in offered else f"use one of {known}"
        self.fault(key, "this is not one of the words that the key takes", cure)
        return None

    def number(self, key: str, limit: int) -> int | None:
        """Read a key whose value is a whole number from 1 up to a limit."""
        text = self.given(key)
        return None if text is None else self._count(key, text, limit)

    def span(self, key: str, limit: int) -> tuple[int, int | None] | None:
        """Read a key whose value is a number, or a lower and an upper bound joined by ``+``."""
        text = self.given(key)
        if text is None:
            return None
        low_text, plus, high_text = text.partition("+")
        low = self._count(key, low_text, limit)
        if not plus:
            return None if low is None else (low, None)
        high = self._count(key, high_text, limit)
        if low is None or high is None:
            return None
        if low > high:
            cure = f"write {key}={high}+{low}"
            self.fault(key, "the lower bound is above the upper", cure)
            return None
        return low, high

    def name(self, key: str) -> str | None:
        """Read a key whose value is a name."""
        text = self.given(key)
        if text is None or is_name(text):
            return text
        self.fault(
            key,
            "this is not a name",
            f"use up to {MAX_NAME_CHARS} letters, digits, - and _, such as {key}=default-1",
        )
        return None

    def runner(self) -> NamedRunner | None:
        """Read ``runner=``."""
        text = self.given("runner")
        if text is None:
            return None
        runner = read_runner(text)
        if not isinstance(runner, NamedRunner):
            self.fault("runner", *runner)
            return None
        limits = self.settings.limits
        if runner.cpu > limits.max_cpu or runner.memory_gib > limits.max_ram_gib:
            reason = f"the fleet's limit is {limits.max_cpu} vCPUs and {limits.max_ram_gib} GiB"
            self.fault("runner", reason, "choose a smaller runner")
            return None
        return runner

    def families(self) -> tuple[str, ...]:
        """Read ``family=``; empty when the key is not given or at fault."""
        text = self.given("family")
        names = () if text is None else tuple(text.split("+"))
        unknown = [name for name in names if name not in FAMILIES]
        if unknown:
            self.fault(
                "family",
                "there is no such instance family among those that the fleet knows",
                f"use one or more of {', '.join(FAMILIES)}, joined by +",
                value="+".join(unknown),
            )
        if len(set(names)) < len(names):
            self.fault("family", "a family is given more than once", "name each family once")
        return names if self.sound("family") else ()

    def generations(self) -> tuple[int, ...]:
        """Read ``gen=``, ascending; empty when the key is not given or at fault."""
        text = self.given("gen")
        texts = () if text is None else text.split("+")
        read = [self._count("gen", one, _MAX_GENERATION) for one in texts]
        numbers = sorted({number for number in read if number is not None})
        if self.sound("gen") and len(numbers) < len(read):
            self.fault("gen", "a generation is given more than once", "name each generation once")
        return tuple(numbers) if self.sound("gen") else ()

    def image(self) -> str | None:
        """Read ``image=``, which must be one of the fleet's."""
        name = self.name("image")
        if name is None or name in self.settings.images:
            return name
        offered = ", ".join(sorted(self.settings.images))
        cure = f"use one of {offered}" if offered else "drop image=; this fleet has only its own"
        self.fault("image", "this fleet has no such image", cure)
        return None

    def _take(self, part: str) -> None:
        key, equals, value = part.partition("=")
        if not part:
            self.fault("", "there is an empty part", "drop the / too many", value=part)
        elif not equals:
            known = f"key=value with one of the keys {', '.join(KEYS)}"
            cure = f"write {known}"
            if isinstance(read_runner(part), NamedRunner):
                cure = f"write runner={part}"
            self.fault("", "this part is not key=value", cure, value=part)
        elif key not in KEYS:
            lower = key.strip().lower()
            cure = f"write {lower}=" if lower in KEYS else f"use one of {', '.join(KEYS)}"
            self.fault(key, "this key is unknown", cure, value=value)
        elif key in self._values:
            self.fault(key, "this key is given more than once", f"keep one {key}=", value=value)
        else:
            self._values[key] = value
            if not value:
                self.fault(key, "the value is empty", f"give a value or drop {key}=")

    def _count(self, key: str, text: str, limit: int) -> int | None:
        digits = text.isascii() and text.isdigit() and (text == "0" or not text.startswith("0"))
        if not digits:
            reason = "this is not a whole number"
            cure = "write it in digits, without sign, unit, space or leading zero"
        elif len(text) <= _MAX_DIGITS and 1 <= int(text) <= limit:
            return int(text)
        elif text == "0":
            reason, cure = "this must be 1 at least", f"give 1 to {limit}, or drop {key}="
        else:
            reason, cure = f"this is above the limit of {limit}", f"give 1 to {limit}"
        self.fault(key, reason, cure)
        return None
