"""Which regular expressions may stand in an alias.

A pattern comes from the fleet's operator, the labels it meets from anybody, so that it must neither
take a neighbour's labels nor make the webhook hang.
"""

from __future__ import annotations

import re
import warnings

# labels that GitHub gives to every self-hosted runner; they say nothing about whose job it is
GENERIC_LABELS = ("self-hosted", "linux", "windows", "x64", "arm64")
# only a pattern that takes nearly everything takes these
_NEIGHBOURS = (*GENERIC_LABELS, "q", "zz-9_somebody.else")

# labels compare by ASCII case, as in GitHub
_FLAGS = re.IGNORECASE | re.ASCII
# backtracking grows with the power of the repeats: three over 512 characters take some tenths of a
# second at worst, four would take a minute; options double it each
_MAX_REPEATS = 3
_MAX_OPTIONAL = 6


def read_pattern(text: str) -> re.Pattern[str] | tuple[tuple[str, str], ...]:
    """Read the pattern of an alias; it has to match a whole label (``fullmatch``).

    Args:
        text: A regular expression between ``^`` and ``$``.

    Returns:
        The compiled pattern, or for each thing that is wrong with it a reason and a cure.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pattern = re.compile(text, _FLAGS)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        return ((f"this is not a regular expression: {error}", "correct it"),)
    faults = []
    scan = _Scan(text)
    if not text.startswith("^") or not scan.ends_anchored:
        faults.append(("the pattern is not anchored", "put ^ before it and $ behind"))
    if scan.open_choice:
        faults.append(("| splits the anchors from each other", "write ^(?:this|that)$"))
    if text.lstrip("^(?:").startswith("."):
        faults.append(("the pattern begins with a wildcard", "begin with the labels' own prefix"))
    else:
        taken = [label for label in _NEIGHBOURS if pattern.fullmatch(label)]
        if taken:
            reason = f"the pattern takes labels of others too, such as {taken[0]}"
            faults.append((reason, "begin with the labels' own prefix"))
    if scan.repeats > _MAX_REPEATS or scan.optional > _MAX_OPTIONAL or scan.repeated_group:
        cure = (
            f"repeat no group, and use *, + and {{}} at most {_MAX_REPEATS} times, "
            f"? at most {_MAX_OPTIONAL} times"
        )
        faults.append(("the pattern could take very long on a label made for it", cure))
    return tuple(faults) or pattern


class _Scan:
    """What a walk over a valid pattern's characters finds.

    Attributes:
        ends_anchored: Whether it ends in ``$`` that means the end.
        open_choice: Whether ``|`` stands outside any group.
        repeats: How many ``*``, ``+`` and ``{}`` there are.
        optional: How many ``?`` there are.
        repeated_group: Whether one of the repeats is of a group.
    """

    def __init__(self, text: str) -> None:
        self.ends_anchored = False
        self.open_choice = False
        self.repeats = 0
        self.optional = 0
        self.repeated_group = False
        depth = 0
        before = ""  # what a quantifier here would apply to: "", "group", "quantifier" or "atom"
        at = 0
        while at < len(text):
            char = text[at]
            step = 1
            kind = "atom"
            if char == "\\":
                step = 2
            elif char == "[":
                step = _class_length(text, at)
            elif char == "(":
                depth += 1
                kind = ""
                step = 2 if text[at + 1] == "?" else 1
            elif char == ")":
                depth -= 1
                kind = "group"
            elif char == "|":
                self.open_choice |= depth == 0
                kind = ""
            elif char in "*+" or (char == "{" and text[at + 1] in "0123456789,"):
                if before != "quantifier":
                    self.repeats += 1
                    self.repeated_group |= before == "group"
                kind = "quantifier"
            elif char == "?":
                self.optional += before != "quantifier"
                kind = "quantifier"
            before = kind
            at += step
            self.ends_anchored = char == "$" and at == len(text)


def _class_length(text: str, start: int) -> int:
    """Return the length of the character class that opens at ``start``."""
    at = start + 1
    if text[at] == "^":
        at += 1
    at += 1  # a ] in the first place is a member
    while text[at] != "]":
        at += 2 if text[at] == "\\" else 1
    return at + 1 - start
