"""What a label means once it is understood, and the three answers that a job's labels can get."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

MARKER = "runs-fleet"

# longest text of a reader's own that a finding repeats: an annotation has to stay readable
_SHOWN_CHARS = 80


class Os(StrEnum):
    """Operating systems of runners."""

    LINUX = "linux"
    WINDOWS = "windows"


class Arch(StrEnum):
    """Processor architectures of runners, by GitHub's names."""

    ARM64 = "arm64"
    X64 = "x64"


class RetryPolicy(StrEnum):
    """Whether a job is run again after its instance was taken away."""

    WHEN_INTERRUPTED = "when-interrupted"
    NEVER = "false"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSpec:
    """The machine that a job asks for.

    Attributes:
        os: Operating system.
        arch: Exactly one architecture, also when the label leaves it open.
        cpu_min: Fewest vCPUs.
        cpu_max: Most vCPUs; equal to ``cpu_min`` for a named runner.
        ram_gib_min: Least memory in GiB; 0 when any will do.
        ram_gib_max: Most memory in GiB; ``None`` means no upper bound.
        families: Instance families in order of preference; empty means the architecture's default.
        generations: Instance generations, ascending; empty means any.
        disk_gib: Size of the root volume in GiB.
        pool: Warm pool to take the runner from.
        spot: Whether spot capacity may serve the job.
        retry: What happens when the instance is interrupted.
        private: Whether the instance goes to a private subnet.
        region: Region that the label insists on; always this fleet's own.
        environment: Fleet that the label insists on; always this one.
        image: Name of one of the fleet's images; ``None`` means the platform's default.
        preferred_type: First choice of a named runner; ``None`` when nothing is preferred.
    """

    os: Os
    arch: Arch
    cpu_min: int
    cpu_max: int
    ram_gib_min: int = 0
    ram_gib_max: int | None = None
    families: tuple[str, ...] = ()
    generations: tuple[int, ...] = ()
    disk_gib: int
    pool: str | None = None
    spot: bool = True
    retry: RetryPolicy = RetryPolicy.WHEN_INTERRUPTED
    private: bool = False
    region: str | None = None
    environment: str | None = None
    image: str | None = None
    preferred_type: str | None = None

    @property
    def platform(self) -> str:
        """Operating system and architecture, such as ``linux-arm64``."""
        return f"{self.os.value}-{self.arch.value}"

    def group_key(self) -> str:
        """Return a stable text that is equal for specs which one CreateFleet can launch together.

        What changes nothing about the launch (pool, retry, and region and environment, which are
        always the fleet's own) is left out.
        """
        return "|".join(
            (
                self.platform,
                f"cpu={self.cpu_min}+{self.cpu_max}",
                f"ram={self.ram_gib_min}+{self.ram_gib_max or ''}",
                f"family={'+'.join(self.families)}",
                f"gen={'+'.join(map(str, self.generations))}",
                f"disk={self.disk_gib}",
                f"spot={_word(self.spot)}",
                f"private={_word(self.private)}",
                f"image={self.image or ''}",
                f"first={self.preferred_type or ''}",
            )
        )

    def to_label(self) -> str:
        """Return the label that says the same in full; to read it gives this spec again.

        Example:
            >>> RunnerSpec(os=Os.LINUX, arch=Arch.X64, cpu_min=4, cpu_max=8, disk_gib=50).to_label()
            'runs-fleet/cpu=4+8/os=linux/arch=x64/disk=50/spot=true'
        """
        parts = [MARKER]
        if self.preferred_type is not None:
            parts.append(f"runner={self.cpu_min}cpu-{self.platform}")
        else:
            parts.append(f"cpu={self.cpu_min}+{self.cpu_max}")
            parts.append(f"os={self.os.value}/arch={self.arch.value}")
        if self.ram_gib_min:
            upper = "" if self.ram_gib_max is None else f"+{self.ram_gib_max}"
            parts.append(f"ram={self.ram_gib_min}{upper}")
        if self.families:
            parts.append(f"family={'+'.join(self.families)}")
        if self.generations:
            parts.append(f"gen={'+'.join(map(str, self.generations))}")
        parts.append(f"disk={self.disk_gib}")
        parts.append(f"spot={_word(self.spot)}")
        if self.private:
            parts.append("private=true")
        if self.retry is not RetryPolicy.WHEN_INTERRUPTED:
            parts.append(f"retry={self.retry.value}")
        named = (
            ("pool", self.pool),
            ("image", self.image),
            ("region", self.region),
            ("env", self.environment),
        )
        parts.extend(f"{key}={value}" for key, value in named if value is not None)
        return "/".join(parts)


class LabelFinding(NamedTuple):
    """One thing that is wrong with a label, as its author shall read it.

    Texts that came from outside are printable ASCII and cut short, so that a finding can be put
    into a log line or an annotation as it is; ``find`` makes one.

    Attributes:
        label: The label.
        key: The key at fault; empty when it is the label as a whole.
        value: The value at fault.
        reason: What is wrong.
        cure: What to write instead.
    """

    label: str
    key: str
    value: str
    reason: str
    cure: str

    def __str__(self) -> str:
        """Return one line: what was written, what is wrong with it, and the cure."""
        written = f"{self.key}={self.value}" if self.key else self.value or self.label
        return f"{written}: {self.reason}; {self.cure}"


@dataclass(frozen=True, slots=True)
class NotOurs:
    """The job is for somebody else: nothing is launched, nothing is reported.

    Attributes:
        reason: Why, for the log.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The job is for this fleet, but its label cannot be served as written.

    Attributes:
        findings: Everything that is wrong, at least one.
    """

    findings: tuple[LabelFinding, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job is for this fleet and this is the machine it asks for.

    Attributes:
        spec: The machine.
        label: The label that it was read from: the native one, or the one an alias stands for.
    """

    spec: RunnerSpec
    label: str


Outcome: TypeAlias = NotOurs | Refused | Accepted


def shown(text: str) -> str:
    r"""Return outside text for people: printable ASCII, escaped and cut where it is not.

    Example:
        >>> shown("a\nb")
        'a\\x0ab'
    """
    cut = text[:_SHOWN_CHARS]
    if not (cut.isascii() and cut.isprintable()):
        plain = cut.encode("ascii", "backslashreplace").decode("ascii")
        cut = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain)
    return cut if len(text) <= _SHOWN_CHARS else f"{cut}... ({len(text)} characters)"


def find(label: str, key: str, value: str, reason: str, cure: str) -> LabelFinding:
    """Return a finding whose outside texts are safe to show."""
    return LabelFinding(shown(label), shown(key), shown(value), reason, cure)


def _word(value: bool) -> str:
    return "true" if value else "false"
