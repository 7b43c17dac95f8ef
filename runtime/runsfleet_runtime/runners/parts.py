"""Splitting a configuration into standard parameters, which hold 4 KB each.

The parts, joined in order, are the content. No count goes with them: a part of a JSON object is
never itself one, so whoever reads part after part knows when the configuration is whole, and parts
that are left over from a longer one do no harm.
"""

from __future__ import annotations

MAX_PART_BYTES = 4096
"""Value of a standard parameter; the next tier costs money (AWS Systems Manager quotas)."""
MAX_PARTS = 10
"""``DeleteParameters`` takes ten names, so that one request removes whatever there may be."""
_FOLLOWS, _KIND = 0x80, 0xC0  # in UTF-8 the second and later bytes of a character are 10xxxxxx


def split(content: str) -> tuple[str, ...]:
    """Split content into parts.

    Args:
        content: Any text but the empty one.

    Returns:
        The parts, each at most 4,096 bytes in UTF-8 and never empty.

    Raises:
        ValueError: If there is nothing to split, or ten parts do not suffice.

    Example:
        >>> [len(part) for part in split("x" * 5000)]
        [4096, 904]
    """
    if not content:
        raise ValueError("the content is empty; parameter store keeps no empty values")
    parts: list[str] = []
    rest = content.encode()
    while rest:
        cut = min(MAX_PART_BYTES, len(rest))
        while cut < len(rest) and rest[cut] & _KIND == _FOLLOWS:  # never within a character
            cut -= 1
        parts.append(rest[:cut].decode())
        rest = rest[cut:]
    if len(parts) > MAX_PARTS:
        raise ValueError(
            f"the content needs {len(parts)} parameters, more than the {MAX_PARTS} allowed"
        )
    return tuple(parts)
